"""Sources that change, and data that another command prepared."""

import shutil

import pytest

from recu.base.files import read_json
from tests.workflow.conftest import Project


def trained_at(project: Project) -> dict[str, int]:
    """When each training and evaluation published its result."""
    results = project.folder / "results"
    files = [file for stage in ("train", "evaluate") for file in sorted((results / stage).rglob("metrics.json"))]
    return {str(file.relative_to(results)): file.stat().st_mtime_ns for file in files}


def fingerprint(project: Project) -> str:
    return read_json(project.folder / "results/prepare/tiny/manifest.json")["fingerprint"]


@pytest.mark.slow
def test_a_source_that_moved_makes_nothing_else_run_and_one_that_changed_everything(finished: Project, tmp_path):
    project = Project(shutil.copytree(finished.folder, tmp_path / "copy"))
    before, same = trained_at(project), fingerprint(project)
    (project.folder / "images").rename(project.folder / "moved")
    project.edit("config.yaml", "{tiny: images}", "{tiny: moved}")
    assert "prepare" in project.planned()
    result = project.snakemake()
    assert result.returncode == 0, result.stdout + result.stderr
    assert trained_at(project) == before and fingerprint(project) == same
    assert project.planned() == set()
    test = project.folder / "moved/test"
    shutil.copy(test / "dark/0.png", test / "bright/0.png")
    assert {"prepare", "train", "evaluate"} <= project.planned()
    result = project.snakemake()
    assert result.returncode == 0, result.stdout + result.stderr
    after = trained_at(project)
    assert set(after) == set(before) and not set(after.values()) & set(before.values())
    assert fingerprint(project) != same and project.planned() == set()
    shutil.rmtree(project.folder / "moved")
    assert project.planned() == set(), "a result outlives its source"
