"""Text that a user writes, through the real Snakefile and the real shell."""

import shutil

import pytest

from tests.workflow.conftest import Project

SOURCE = """ima ges'; touch ran; "$(touch ran)" {params.source} {x}"""


@pytest.mark.slow
def test_a_source_with_spaces_quotes_and_semicolons_is_prepared_and_nothing_else_runs(project: Project):
    (project.folder / "images").rename(project.folder / SOURCE)
    quoted = SOURCE.replace("\\", "\\\\").replace('"', '\\"')
    project.edit("config.yaml", "sources: {tiny: images}", f'sources: {{tiny: "{quoted}"}}')
    result = project.snakemake("results/prepare/tiny/manifest.json")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (project.folder / "data/tiny/manifest.json").is_file()
    assert not list(project.folder.rglob("ran"))
    shutil.rmtree(project.folder / SOURCE)
