"""The comparison with others: a worker's turns and predictions, what is skipped and why, the table."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import peers
from recu.base.errors import ConfigError

ONE = {"models": ("resnet20_1w1a",), "small": True}
WAYS = ("packed", "evaluation", "plain, channels_last", "plain")


@pytest.fixture
def one_case(monkeypatch) -> None:
    monkeypatch.setattr(peers, "_BATCHES", (2,))
    monkeypatch.setattr(peers, "_THREADS", (1,))
    monkeypatch.setattr(peers, "_COMPARED", 11)


def test_ways_take_turns_predict_and_one_that_is_not_installed_is_named(one_case, monkeypatch, tmp_path) -> None:
    onnx = ("onnxruntime",) if importlib.util.find_spec("onnxruntime") else ()
    monkeypatch.setattr(peers, "_WAYS", (*WAYS, "openvino", *onnx))
    result = peers.bench_peers(peers.PeerSettings(openvino=tmp_path / "none", repeats=1, seconds=0.01, **ONE))
    (case,), (network,) = result["cases"], result["networks"]
    assert case["batch"] == 2 and 40_000 < case["bytes"] == network["bytes"]["packed"]
    assert case["ways"]["packed"]["rate"] == pytest.approx(2000 / case["ways"]["packed"]["ms"])
    assert case["ways"]["packed"]["memory"] > 20 << 20
    assert "make openvino" in case["skipped"]["openvino"]
    # Every way has the same weights: nearly all of eleven images are of the class that the plain network says.
    assert network["right"]["plain"] == 100 and set(network["right"]) == {*WAYS, *onnx}
    assert min(network["right"].values()) > 80
    for way in {*WAYS, *onnx} - {"packed"}:
        assert network["bytes"][way] > 10 * network["bytes"]["packed"]
    table = peers.render(result)
    # With room for the longest name.
    spare = len("imagenet.resnet18_1w1a, 224") - len(network["title"])
    assert max(map(len, table[: table.index("\n\n")].splitlines())) + spare <= 120
    assert "11 random images" in table and "as plain" in table and "weights: random" in table
    (row,) = (line for line in table.splitlines() if line.startswith("cifar.resnet20_1w1a, 32  "))
    assert row.split()[2:5] == ["2,", "1", "packed"]


def test_a_library_that_fails_on_this_processor_is_left_out_with_its_reason(one_case, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(peers, "_WAYS", ("packed", "openvino", "plain"))
    (tmp_path / "openvino.py").write_text('raise RuntimeError("cannot convert\\n from f32 to u1")\n')
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}:$PYTHONPATH exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    result = peers.bench_peers(peers.PeerSettings(openvino=python, repeats=1, seconds=0.01, **ONE))
    (case,), (network,) = result["cases"], result["networks"]
    assert case["skipped"] == {"openvino": "cannot convert from f32 to u1"}
    assert set(network["right"]) == {"packed", "plain"}
    assert "openvino: cannot convert from f32 to u1" in peers.render(result)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"repeats": 0}, {"seconds": 0.0}):
        with pytest.raises(ConfigError, match="expected 1 or more"):
            peers.bench_peers(peers.PeerSettings(openvino=Path("none"), **wrong))


def test_the_network_of_large_images_is_measured_alone_or_no_network_is_refused(tmp_path) -> None:
    only = peers.PeerSettings(openvino=tmp_path / "none")
    (network,) = peers._networks(tmp_path, only)
    assert network.title == "imagenet.resnet18_1w1a, 224"
    with pytest.raises(ConfigError, match="no network to measure: name some with --models, or leave --small out"):
        peers.bench_peers(replace(only, small=True))
    with pytest.raises(ConfigError, match="unknown model of family cifar: 'resnet21_1w1a'"):
        peers.bench_peers(replace(only, models=("resnet21_1w1a",)))
