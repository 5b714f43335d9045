"""The comparison with others: a worker's turns and predictions, what is skipped and why, OpenVINO itself, the table."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import peers
from recu.base.errors import ConfigError
from recu.binarisers.recu import BinaryConv2d
from recu.cli.bench import _OPENVINO
from recu.experiment.binarisers import USUAL
from recu.experiment.networks import ModelName
from recu.experiment.paths import PROJECT_DIR
from recu.export.comparing import Zeros
from recu.export.graph import operations_of
from recu.runtime.writer import packed_bytes
from tests.unit.export.test_graph import CLASSES, network

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


needs_openvino = pytest.mark.skipif(
    not _OPENVINO.is_file(), reason=f"needs {_OPENVINO.relative_to(PROJECT_DIR)}, which `make openvino` makes"
)
SIZE, COMPARED, AT_ONCE = 32, 20, 8


def on_grid(values: torch.Tensor) -> torch.Tensor:
    """Multiples of 1/64: sums of their products are exact, so that no library's order turns a sign near 0."""
    return (values * 64).round() / 64


def in_files(made: nn.Module, model: str, folder: Path) -> peers._Network:
    """A CIFAR network as workers read it, with random images of which no activation is 0: OpenVINO makes -1 of it."""
    for layer in made.modules():
        if isinstance(layer, nn.Conv2d) and not isinstance(layer, BinaryConv2d):
            layer.weight.data = on_grid(layer.weight.data)
    operations = operations_of(made)
    images = on_grid(torch.randn(COMPARED, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(3))).numpy()
    counted = Zeros(operations)
    counted(images)
    assert counted.zeros == 0 < counted.activations
    np.save(folder / "images.npy", images)
    said = {"family": "cifar", "model": model, "variant": None, "stage": 2, "binariser": USUAL}
    said |= {"num_classes": CLASSES, "size": SIZE}
    content = packed_bytes({"image": {"size": SIZE}}, operations)
    return peers._written(folder, made, content, said, labels=None, on=f"{COMPARED} random images")


def predicted(compared: peers._Network, way: str) -> list[int] | str:
    """The likeliest classes of its images; why there are none if the way cannot compute it."""
    settings = peers.PeerSettings(openvino=_OPENVINO)
    with peers._opened(compared, way, {"batch": AT_ONCE, "threads": 1}, settings) as (process, said):
        return said["missing"] if process is None else process.ask(peers.PREDICT)["classes"]


# One keeps residuals between its binary convolutions, the other has thresholds. A worker that predicts has found all of
# them to be BinaryConvolution in the compiled graph; the test after this one shows that it looks.
@needs_openvino
@pytest.mark.parametrize("model", ["resnet20_1w1a", "vgg_small_1w1a"])
def test_openvino_predicts_what_the_packed_runtime_predicts(model, tmp_path) -> None:
    compared = in_files(network(ModelName("cifar", model, None)), model, tmp_path)
    expected = predicted(compared, "packed")
    assert len(expected) == COMPARED and len(set(expected)) > 1
    assert predicted(compared, "openvino") == expected


@needs_openvino
def test_a_binary_convolution_that_openvino_computes_as_another_is_refused(tmp_path) -> None:
    made = network(ModelName("cifar", "resnet20_1w1a", None))
    with torch.no_grad():
        # Equal weights are their own mean: all of this filter have the sign 0.
        made.layer1[0].conv1.weight[3] = 0.25
    compared = in_files(made, "resnet20_1w1a", tmp_path)
    assert predicted(compared, "openvino") == "17 of 18 binary convolutions are OpenVINO's BinaryConvolution"
