"""`make clean` removes what was made and nothing else; `make run-gpu` runs a suite in pieces of time."""

import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from recu.experiment.paths import PROJECT_DIR

MADE = ("results/train/a/metrics.json", ".snakemake/x", "reports/demo.md", "reports/demo.csv", "reports/demo.html")
MADE += ("reports/index.html", "reports/demo.json", "reports/demo.tex", "reports/figures/demo/curves.svg")
MADE += ("reports/runs/demo/digits/a/vanilla/seed1.html",)
WRONG = ("0", "08", "0.5", "-3", "nine", "9;true")
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


class PieceOfTime(NamedTuple):
    code: int
    said: str
    end: str
    words: str


def run_gpu(folder: Path, *words: str, code: int = 0) -> PieceOfTime:
    """`make run-gpu` with a program in the place of Snakemake that writes down what it is given."""
    shutil.copy(PROJECT_DIR / "Makefile", folder)
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    (folder / ".venv/installed").touch()
    snakemake = programs / "snakemake"
    snakemake.write_text(f'#!/bin/sh\necho "$SLURM_JOB_END_TIME" > end; echo "$@" > words; exit {code}\n')
    snakemake.chmod(0o755)
    done = subprocess.run(["make", "-s", "run-gpu", *words], cwd=folder, capture_output=True, text=True, check=False)
    given = [file.read_text().strip() if (file := folder / name).exists() else "" for name in ("end", "words")]
    return PieceOfTime(done.returncode, done.stderr, *given)


def test_a_piece_of_a_suite_ends_in_time_and_says_how_it_goes_on(tmp_path):
    before = time.time()
    piece = run_gpu(tmp_path, "SUITE=demo", "MINUTES=10")
    assert piece.code == 0 and before + 599 <= int(piece.end) <= time.time() + 601
    assert piece.words == "--cores all --resources gpu=1 --retries 0 --config suites=demo"
    piece = run_gpu(tmp_path, "SUITE=demo", code=1)
    assert piece.code == 2 and "the same command continues" in piece.said


@pytest.mark.parametrize("words", [[], ["SUITE=demo", "MINUTES="], *(["SUITE=demo", f"MINUTES={m}"] for m in WRONG)])
def test_a_piece_of_no_suite_or_time_is_refused_in_a_line(tmp_path, words):
    piece = run_gpu(tmp_path, *words)
    assert piece.code == 2 and not piece.end
    assert piece.said.startswith("error: MINUTES is" if words else "error: name a suite")


def test_what_git_tracks_stays(tmp_path):
    folder = filled(tmp_path)
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", "-f", "reports/README.md", "reports/demo.md", "results/train/a/metrics.json")
    run(folder, "make", "-s", "clean")
    assert (folder / "reports/demo.md").exists() and (folder / "results/train/a/metrics.json").exists()
    assert not (folder / "reports/demo.csv").exists()
    run(folder, "make", "-s", "clean")
