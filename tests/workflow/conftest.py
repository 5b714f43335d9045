"""A project of its own in a temporary folder, run through the real Snakefile: tiny images, one network, two epochs."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy
import pytest
import yaml
from PIL import Image

from recu.experiment.paths import PARAMS_DIR, PROJECT_DIR

DATASET = {
    "title": "Tiny",
    "kind": "imagefolder",
    "family": "cifar",
    "num_classes": 2,
    "image_size": 32,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "augmentation": "crop_flip",
}
SUITE = """
title: Smallest
description: Every stage in seconds.
dataset: tiny
seeds: [1]
hyperparameters: {batch_size: 8, warm_up: false}
methods:
  vanilla: {epochs: 2}
  finetune: {epochs: 1}
rows:
  - model: resnet20_1w1a
"""


@dataclass(frozen=True)
class Project:
    """A working directory with params/ of its own."""

    folder: Path

    def snakemake(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", "-s", str(PROJECT_DIR / "Snakefile"), "--cores", "2", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
        )

    def planned(self, *arguments: str) -> set[str]:
        """Rules that would run."""
        result = self.snakemake(*arguments, "-n", "--quiet", "rules")
        assert result.returncode == 0, result.stderr
        # The table of job counts, which ends with an empty line.
        _, _, table = (result.stdout + result.stderr).partition("Job stats:\n")
        rows = [line.split() for line in table.split("\n\n")[0].splitlines()]
        return {row[0] for row in rows if len(row) == 2 and row[1].isdigit() and row[0] != "total"}

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / "params" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "SNAKEMAKE_"))}
    return kept | {"OMP_NUM_THREADS": "1"}


def write_images(folder: Path) -> None:
    """Two classes that a network can tell apart: dark and bright noise."""
    generator = numpy.random.default_rng(0)
    for split, count in (("train", 20), ("test", 10)):
        for name, low in (("bright", 128), ("dark", 0)):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(low, low + 128, (32, 32, 3), dtype=numpy.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")


def make_project(folder: Path) -> Project:
    shutil.copytree(PARAMS_DIR, folder / "params")
    (folder / "params/suites/smallest.yaml").write_text(SUITE)
    (folder / "params/datasets.yaml").write_text(yaml.safe_dump({"tiny": DATASET}))
    write_images(folder / "images")
    project = Project(folder)
    project.edit("config.yaml", "suites: demo", "suites: smallest")
    project.edit("config.yaml", "sources: {}", "sources: {tiny: images}")
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same after a complete run; tests that use it leave it as they found it."""
    project = make_project(tmp_path_factory.mktemp("finished"))
    result = project.snakemake()
    assert result.returncode == 0, result.stdout + result.stderr
    return project
