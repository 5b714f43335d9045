"""`make clean` removes what was made and nothing else."""

import shutil
import subprocess
from pathlib import Path

import pytest

from recu.experiment.paths import PROJECT_DIR

MADE = ("results/train/a/metrics.json", ".snakemake/x", "reports/demo.md", "reports/demo.csv", "reports/demo.html")
KEPT = ("reports/README.md", "reports/notes.txt", "data/x", "runs/x", "mlflow.db")


def filled(folder: Path) -> Path:
    for name in (*MADE, *KEPT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    shutil.copy(PROJECT_DIR / "Makefile", folder)
    shutil.copy(PROJECT_DIR / ".gitignore", folder)
    shutil.copy(PROJECT_DIR / "pyproject.toml", folder)
    return folder


def run(folder: Path, *words: str) -> None:
    subprocess.run(words, cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("repository", ["own", "none", "outer"])
def test_what_was_made_goes_and_all_else_stays(tmp_path, repository, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    folder = filled(tmp_path / "project")
    if repository != "none":
        run(folder if repository == "own" else tmp_path, "git", "init", "-q")
    run(folder, "make", "-s", "clean")
    assert [name for name in MADE if (folder / name).exists()] == []
    assert [name for name in KEPT if not (folder / name).exists()] == []


def test_what_git_tracks_stays(tmp_path):
    folder = filled(tmp_path)
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", "-f", "reports/README.md", "reports/demo.md", "results/train/a/metrics.json")
    run(folder, "make", "-s", "clean")
    assert (folder / "reports/demo.md").exists() and (folder / "results/train/a/metrics.json").exists()
    assert not (folder / "reports/demo.csv").exists()
    run(folder, "make", "-s", "clean")
