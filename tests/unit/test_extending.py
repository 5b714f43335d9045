"""Every example of docs/extending.md and docs/tutorial.md works as it stands, carried out in a copy of the project.

Each section of the first for itself; the second as a whole, since its sections build on one another.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from recu.experiment.paths import PROJECT_DIR

FOUND = re.findall(
    r"^## (.+?)\n(.*?)(?=^## |\Z)", (PROJECT_DIR / "docs/extending.md").read_text(), re.MULTILINE | re.DOTALL
)
SECTIONS = dict(FOUND)
TUTORIAL = (PROJECT_DIR / "docs/tutorial.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"# (?P<file>[\w./-]+)(?:, (?P<how>below|in place of|at the end)(?: `(?P<line>.+)`)?)?$")


def copy_of_the_project(folder: Path) -> Path:
    for name in ("recu", "params", "tests", "benchmarks", "workflow"):
        shutil.copytree(PROJECT_DIR / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "Snakefile", "environment.yml"):
        shutil.copy(PROJECT_DIR / name, folder)
    config = folder / "params/config.yaml"
    config.write_text(re.sub("^tracking_uri: .*$", "tracking_uri: null", config.read_text(), flags=re.MULTILINE))
    for number, split in enumerate(("train", "test")):
        for label in ("daisy", "rose", "tulip"):
            (folder / "flowers" / split / label).mkdir(parents=True)
            for place in range(4):
                file = folder / "flowers" / split / label / f"{place}.png"
                Image.effect_noise((40 + number, 36), 60 + place).convert("RGB").save(file)
    return folder


def write(project: Path, text: str) -> None:
    """Put a block where its first line says: a new file, or a place in one that is there."""
    first, _, content = text.partition("\n")
    place = PLACE.fullmatch(first)
    assert place is not None, f"the block beginning {first!r} does not say where it belongs"
    file = project / place["file"]
    if place["how"] is None:
        assert not file.exists(), f"{place['file']} is there already"
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
        return
    old = file.read_text()
    if place["how"] == "at the end":
        file.write_text(old + "\n\n" + content)
        return
    (line,) = [line for line in old.splitlines(keepends=True) if place["line"] in line]
    file.write_text(old.replace(line, content if place["how"] == "in place of" else line + content))


def run(project: Path, commands: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["NUMBA_CACHE_DIR"] = str(PROJECT_DIR / "recu/kernels/__pycache__")
    programs = f'python() {{ "{sys.executable}" "$@"; }}; recu() {{ python -m recu "$@"; }}'
    programs += '; pytest() { python -m pytest "$@"; }; snakemake() { python -m snakemake "$@"; }'
    result = subprocess.run(
        ["bash", "-ec", f"{programs}\n{commands}"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.docs
@pytest.mark.parametrize("text", [*SECTIONS.values(), TUTORIAL], ids=[*SECTIONS, "tutorial"])
def test_a_text_does_what_it_says(text, tmp_path):
    project = copy_of_the_project(tmp_path)
    blocks = BLOCK.findall(text)
    assert any(language == "sh" for language, _ in blocks), "no command shows that it works"
    for language, text in blocks:
        if language == "sh":
            run(project, text)
        else:
            write(project, text)


def test_no_section_stands_twice():
    assert len(FOUND) == len(SECTIONS) > 10
