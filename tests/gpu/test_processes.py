"""One training on two GPUs, which speak NCCL."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recu.base.files import hash_file
from recu.experiment import paths

WHERE = ("--dataset", "digits", "--data_dir", "data")


@pytest.fixture
def two_gpus(cuda) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("this machine has one GPU")


def recu(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "recu", *words], cwd=folder, check=True)


@pytest.mark.usefixtures("two_gpus")
def test_two_gpus_give_the_same_bits_each_time_and_evaluate_as_one_does(tmp_path: Path, record) -> None:
    for save in ("a", "b"):
        words = ("--model", "resnet20_1w1a", "--epochs", "2", "-b", "64", "--seed", "7", "--tracking_uri", "")
        recu(tmp_path, "train", *words, *WHERE, "--gpus", "0,1", "--save", save)
    assert hash_file(tmp_path / "a" / paths.BEST_CHECKPOINT) == hash_file(tmp_path / "b" / paths.BEST_CHECKPOINT)
    found = []
    for gpus in ("0", "0,1"):
        output = tmp_path / f"{gpus}.json"
        recu(tmp_path, "evaluate", "-e", f"a/{paths.BEST_CHECKPOINT}", *WHERE, "--gpus", gpus, "--output", str(output))
        measured = json.loads(output.read_text())
        found.append([measured[name] for name in ("top1", "top5", "loss", "n")])
    record(top1=found[0][0])
    assert found[0] == found[1]
