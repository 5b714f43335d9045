"""Speed and memory against the plain reference, by `recu bench`; figures, of which none is a condition."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("model", ["resnet20_1w1a", "resnet18_1w1a"])
def test_measured_by_bench(model: str, device, tmp_path: Path, record) -> None:
    words = ["--models", model, "--gpus", "0" if device.type == "cuda" else "cpu", "-b", "256", "-bt", "256"]
    words += (
        ["--seconds", "2", "--repeats", "3"]
        if device.type == "cuda"
        else ["-b", "4", "--seconds", "0", "--repeats", "1"]
    )
    output = tmp_path / "bench.json"
    subprocess.run([sys.executable, "-m", "recu", "bench", *words, "--output", str(output)], check=True)
    found = json.loads(output.read_text())["models"][model]
    record(
        train_images_per_s=found["train"]["shipped"],
        train_ratio=found["train"]["ratio"],
        evaluate_images_per_s=found["evaluate"]["shipped"],
        evaluate_ratio=found["evaluate"]["ratio"],
        memory_mib=found["memory"]["shipped"] / 2**20,
        memory_ratio=found["memory"]["ratio"],
    )
    assert found["train"]["shipped"] > 0
