"""The checkout and the working directory may have any name."""

import subprocess
import sys

import pytest

from recu.experiment.paths import PROJECT_DIR
from tests.workflow.conftest import environment

pytestmark = pytest.mark.workflow

NAME = '{x} $HOME `id` "q" %s it\'s ü#%20?&'


def snakemake(snakefile, folder, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "-s", str(snakefile), "--cores", "1", *words]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )


def test_a_job_runs_from_and_in_a_folder_of_any_name(tmp_path):
    checkout, folder = tmp_path / NAME, tmp_path / f"work {NAME}"
    checkout.symlink_to(PROJECT_DIR)
    folder.mkdir()
    result = snakemake(checkout / "Snakefile", folder, "results/prepare/digits/manifest.json")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (folder / "data/digits/manifest.json").is_file()
    planned = snakemake(checkout / "Snakefile", folder, "table-demo", "-n", "--quiet", "rules")
    assert planned.returncode == 0, planned.stderr


def test_braces_that_snakemake_cannot_take_are_named(tmp_path):
    (tmp_path / "{a.b}").mkdir()
    result = snakemake(PROJECT_DIR / "Snakefile", tmp_path / "{a.b}", "-n")
    assert result.returncode == 2
    assert "error: Snakemake takes the braces in" in result.stderr.splitlines()[-1]
