"""Choosing a device."""

import importlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from recu.base.errors import ConfigError
from recu.base.place import Place
from recu.models import build_model
from recu.results import provenance
from recu.training.device import check_precision, choose_device, describe, origin_of, place
from recu.training.processes import ALONE
from tests.unit.training.tiny import CPU, TinyNet


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """Pretends that there are as many GPUs as asked for; nothing is computed on them."""

    monkeypatch.setattr("recu.training.device.slots_folder", lambda: tmp_path)

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU model {device}")

    return pretend


def test_the_default_is_a_gpu_if_there_is_one(gpus):
    gpus(0)
    assert choose_device("") == torch.device("cpu")
    gpus(2)
    assert choose_device("") == torch.device("cuda:0")
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("1") == torch.device("cuda:1")


@pytest.mark.parametrize(("name", "what"), [("code_hash", "code"), ("environment_hash", "packages")])
def test_machines_with_different_programs_are_refused(monkeypatch, name, what):
    own, collect = "1" * 64, provenance.collect
    monkeypatch.setattr(provenance, "collect", lambda *what: collect(*what).model_copy(update={name: own}))
    said = SimpleNamespace(gather=lambda value: [value, "2" * 64 if value == own else value])
    with pytest.raises(ConfigError, match=f"different {what} .hashes 1{{12}}, 2{{12}}.: give all the same"):
        origin_of(CPU, said)


def test_the_devices_of_all_machines_are_named():
    assert origin_of(CPU, ALONE).device == describe(CPU)
    both = SimpleNamespace(gather=lambda value: [value, value])
    assert origin_of(CPU, both).device == f"2 x {describe(CPU)}"


def test_a_missing_gpu_names_what_there_is(gpus):
    gpus(0)
    with pytest.raises(ConfigError, match=r"no GPU 0 \(this machine has no CUDA device"):
        choose_device("0")
    gpus(2)
    with pytest.raises(ConfigError, match=r"no GPU 3 \(there is 0: GPU model 0, 1: GPU model 1"):
        choose_device("3")


@pytest.mark.parametrize("wrong", ["x", "-1", "0;1", ","])
def test_what_is_no_device_is_refused(wrong):
    with pytest.raises(ConfigError, match="neither 'cpu' nor a device number"):
        choose_device(wrong)


def test_each_process_of_a_machine_has_its_own_of_the_gpus_that_are_named(gpus, caplog):
    gpus(4)
    places = [Place(rank=2 + rank, count=4, local_rank=rank, local_count=2) for rank in range(2)]
    assert [choose_device("3,1", place) for place in places] == [torch.device("cuda:3"), torch.device("cuda:1")]
    assert [choose_device("", place) for place in places] == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert {choose_device("cpu", place) for place in places} == {torch.device("cpu")}
    assert choose_device("1,0") == torch.device("cuda:1")
    assert "--gpus 1,0 names more devices than the 1 in use" in caplog.text


def test_fewer_gpus_than_processes_are_refused_unless_each_sees_its_own_alone(gpus):
    gpus(1)
    places = [Place(rank=rank, count=2, local_rank=rank, local_count=2, launcher=1) for rank in range(2)]
    with pytest.raises(ConfigError, match=r"2 processes share this machine's 1 GPUs .* start one process a GPU"):
        choose_device("", places[0])
    bound = [replace(place, launcher=None) for place in places]
    assert [choose_device("", place) for place in bound] == [torch.device("cuda:0")] * 2


def test_a_gpu_named_twice_is_refused(gpus):
    gpus(2)
    with pytest.raises(ConfigError, match="the device 1 is given twice"):
        choose_device("1,1")


def test_description_and_layout():
    assert describe(CPU).startswith("CPU, ")
    assert place(TinyNet(), CPU).conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_compiling_changes_no_name_and_is_for_gpus(monkeypatch):
    with pytest.raises(ConfigError, match=r"compile is 'kernels' and the device is the CPU: .* leave compile out"):
        place(TinyNet(), CPU, compile_as="kernels")
    network, compiled = TinyNet(), []
    monkeypatch.setattr(network, "to", lambda **_: network)
    monkeypatch.setattr(network, "compile", lambda **options: compiled.append(options))
    keys = list(network.state_dict())
    assert place(network, torch.device("cuda:0"), compile_as="cuda-graphs") is network
    assert compiled == [{"mode": "reduce-overhead", "dynamic": False}] and list(network.state_dict()) == keys


def test_tf32_is_for_gpus_that_have_it(monkeypatch):
    with pytest.raises(ConfigError, match=r"precision is 'tf32' and the device is the CPU, which has none: use fp32"):
        check_precision("tf32", CPU)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    with pytest.raises(ConfigError, match=r"precision is 'tf32', which Tesla V100 lacks: .* capability 8.0 or newer"):
        check_precision("tf32", torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    for precision in ("fp32", "tf32", "bf16"):
        check_precision(precision, torch.device("cuda:0"))
    check_precision("bf16", CPU)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    check_precision("fp32", torch.device("cuda:0"))
    with pytest.raises(ConfigError, match=r"precision is 'tf32', .* unset NVIDIA_TF32_OVERRIDE$"):
        check_precision("tf32", torch.device("cuda:0"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TORCH_COMPILE_DISABLE", "1"),
        ("TORCHDYNAMO_DISABLE", "1"),
        ("TORCHDYNAMO_SUPPRESS_ERRORS", "1"),
        ("TORCH_COMPILE_OVERRIDE_BACKENDS", ">=0:eager"),
    ],
)
def test_compilation_that_the_environment_turns_off_is_not_recorded_as_done(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=rf"compile is 'kernels', .* {name}={value} .* unset {name}"):
        place(TinyNet(), torch.device("cuda:0"), compile_as="kernels")


@pytest.mark.parametrize(("visible", "noted"), [("abc", True), ("7", True), ("", False), ("-1", False), (None, False)])
def test_a_variable_that_hides_all_gpus_is_named(gpus, monkeypatch, caplog, visible, noted):
    gpus(0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert choose_device("") == torch.device("cpu")
    assert ("CUDA_VISIBLE_DEVICES" in caplog.text) == noted
    caplog.clear()
    assert choose_device("cpu") == torch.device("cpu") and not caplog.text


def test_a_network_is_compiled_for_more_shapes_than_pytorch_allows_by_itself(monkeypatch):
    compiled, compile_by = [], nn.Module.compile

    def note(graph, _inputs):
        compiled.append(graph)
        return graph

    def with_notes(network, *, mode, dynamic):
        compile_by(network, backend=note, dynamic=dynamic)

    monkeypatch.setattr("recu.training.device._check_compilation", lambda *_: None)
    monkeypatch.setattr(nn.Module, "compile", with_notes)
    network = place(nn.Linear(2, 2), CPU, compile_as="kernels")
    for images in range(2, 14):
        network(torch.zeros(images, 2))
    assert len(compiled) == 12


@pytest.mark.parametrize(
    ("family", "name", "size"),
    [
        ("birealnet", "birealnet18", 32),
        pytest.param("cifar", "resnet20_1w1a", 32, marks=pytest.mark.slow),
        pytest.param("cifar", "vgg_small_1w1a", 32, marks=pytest.mark.slow),
        pytest.param("imagenet", "resnet18_1w1a", 32, marks=pytest.mark.slow),
        pytest.param("reactnet", "resnet18_1w1a", 32, marks=pytest.mark.slow),
    ],
)
def test_networks_are_one_graph_for_the_compiler(monkeypatch, family, name, size):
    """With the operations that a GPU runs: whatever made the host wait, or a choice by value, would break the graph."""
    for module in ("sign_convolution", "winograd", "binary_conv"):
        monkeypatch.setattr(importlib.import_module(f"recu.kernels.{module}"), "compiled_for", lambda *_: False)
    network = build_model(name, family=family, num_classes=4)
    images, labels = torch.randn(4, 3, size, size), torch.arange(4)
    plain = F.cross_entropy(network(images), labels)
    network.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    loss = F.cross_entropy(network(images), labels)
    loss.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    assert all(parameter.grad is not None for parameter in network.parameters())
