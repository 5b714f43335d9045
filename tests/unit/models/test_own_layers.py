"""A layer of one's own in the place of a known one is noticed, in training and evaluation, on every network."""

from __future__ import annotations

import copy
import importlib
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.experiment.networks import find_network
from recu.kernels.exact import switch_off
from recu.models import ModelName, available_models
from recu.models import build as build_module
from recu.nn import BinaryConv2d, CompetitorBinaryConv2d
from recu.nn.inference import inference_form
from recu.nn.inference_conv import InferenceConv2d
from recu.nn.layers import HardTanh

CLASSES = 5

LIKE_ANOTHER = ("resnet34_1w1a", "resnet18B_1w1a", "resnet18C_1w1a")
"""Deeper or wider, of the very blocks and layers of those beside them."""
every_network = pytest.mark.parametrize(
    "entry",
    [entry for entry in available_models(stage=2) if entry.name not in LIKE_ANOTHER],
    ids=lambda entry: ".".join(filter(None, entry)),
)


def build(entry: ModelName, convolution: type[nn.Conv2d]) -> nn.Module:
    module, function = find_network(entry.name, family=entry.family, variant=entry.variant).builder.split(":")
    torch.manual_seed(0)
    return getattr(importlib.import_module(module), function)(CLASSES, convolution)


def convolution_of(entry: ModelName, stage: int) -> type[nn.Conv2d]:
    return build_module.convolution_of(entry.family, stage)


def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def zeros_of(kind: type[nn.Conv2d], calls: list[nn.Module]) -> type[nn.Conv2d]:
    """A class derived from a convolution whose forward gives zeros, at once."""

    class Zero(kind):
        def forward(self, activation: Tensor) -> Tensor:
            calls.append(self)
            height, width = (
                (side + 2 * pad - tap) // step + 1
                for side, pad, tap, step in zip(
                    activation.shape[2:], self.padding, self.kernel_size, self.stride, strict=True
                )
            )
            return activation.new_zeros(len(activation), self.out_channels, height, width) + 0 * self.weight.sum()

    return Zero


@every_network
@pytest.mark.parametrize("stage", [1, 2])
def test_a_forward_of_ones_own_is_run(entry: ModelName, stage: int) -> None:
    calls: list[nn.Module] = []
    model = build(entry, zeros_of(convolution_of(entry, stage), calls))
    own = [layer for layer in model.modules() if type(layer).__name__ == "Zero"]
    model(images()).sum().backward()
    assert Counter(calls) == Counter(own) and own
    model.eval()
    calls.clear()
    with torch.no_grad():
        found = inference_form(model)(images())
        assert Counter(calls) == Counter(own)
        assert torch.equal(found, model(images()))


@every_network
def test_hooks_on_layers_are_run(entry: ModelName) -> None:
    model = build(entry, convolution_of(entry, 2))
    calls: Counter[nn.Module] = Counter()
    leaves = [layer for layer in model.modules() if not any(True for _ in layer.children())]
    for layer in leaves:
        layer.register_forward_hook(lambda layer, *_: calls.update([layer]))
    model(images())
    seen = dict(calls)
    assert seen.keys() == set(leaves)
    model.eval()
    calls.clear()
    with torch.no_grad():
        found = inference_form(model)(images())
        assert dict(calls) == seen
        assert torch.equal(found, model(images()))


@pytest.mark.parametrize("kind", [BinaryConv2d, nn.BatchNorm2d, HardTanh, nn.Conv2d, "a block", "the network"])
def test_one_layer_whose_result_a_hook_changes(kind) -> None:
    model = build(ModelName("cifar", "resnet20_1w1a", None), BinaryConv2d).eval()
    layer = {
        "a block": model.layer2[1],
        "the network": model,
    }.get(kind) or next(layer for layer in model.modules() if type(layer) is kind)
    with torch.no_grad():
        before = model(images())
        layer.register_forward_hook(lambda _layer, _inputs, output: -output)
        expected, found = model(images()), inference_form(model)(images())
    assert torch.equal(found, expected) and not torch.equal(found, before)


def test_a_method_put_on_a_block_is_run() -> None:
    model = build(ModelName("cifar", "resnet20_1w1a", None), BinaryConv2d).eval()
    model.layer1[0].forward = lambda x: x * 0
    with torch.no_grad():
        form = inference_form(model)
        assert torch.equal(form(images()), model(images()))
    replaced = [layer for layer in form.modules() if isinstance(layer, InferenceConv2d)]
    assert len(replaced) == 16, "the other blocks still have the fast form"


class Drawn(nn.Module):
    """Applies layers of a small pool in a drawn order to drawn earlier results: shared, called twice, in place."""

    fixed_graph = True

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)

        def below(bound: int) -> int:
            return int(torch.randint(bound, (1,), generator=generator))

        self.convs = nn.ModuleList(
            (BinaryConv2d if below(2) else CompetitorBinaryConv2d)(8, 8, 3, padding=1) for _ in range(3)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(8, affine=below(2) > 0) for _ in range(2))
        for norm in self.norms:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        others = [HardTanh(), nn.Identity(), nn.Dropout(), nn.ReLU(inplace=True), nn.Hardtanh(), nn.Conv2d(8, 8, 1)]
        self.others = nn.ModuleList(others)
        self.plan = [(below(8), below(6), below(step), below(step)) for step in range(1, 13)]

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for kind, layer, first, second in self.plan:
            a, b = values[-1 - first // 2], values[second]
            if kind < 3:
                values.append(self.convs[layer % 3](a))
            elif kind < 5:
                values.append(self.norms[layer % 2](a))
            elif kind < 6:
                values.append(self.others[layer](a))
            elif kind < 7:
                values.append(nn.functional.hardtanh(a, inplace=layer < 2))
            else:
                values.append(a + b)
        return sum(values[1:], start=values[0])


@pytest.mark.parametrize("seed", range(60))
@torch.no_grad()
def test_drawn_networks_of_shared_layers_and_results(seed: int) -> None:
    model = Drawn(seed).eval()
    batch = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(seed))
    batch = batch.contiguous(memory_format=torch.channels_last)
    assert torch.equal(inference_form(model)(batch.clone()), model(batch.clone()))


class Overwriting(nn.Module):
    """Writes into what a convolution has read, before the BatchNorm behind it is called."""

    fixed_graph = True

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = BinaryConv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        whole, positive = self.conv(x), self.relu(x)
        return self.norm(whole) + positive


@torch.no_grad()
def test_a_layer_that_writes_into_its_input_is_not_overtaken() -> None:
    torch.manual_seed(0)
    model = Overwriting().eval()
    assert torch.equal(inference_form(model)(images()), model(images()))


class Counting(nn.Module):
    """Gives other results as it is called more often; its graph could be read, once."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.calls = BinaryConv2d(3, 4, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.conv(x) * self.calls


@torch.no_grad()
def test_a_class_that_does_not_say_that_its_graph_is_fixed_is_called_as_it_is() -> None:
    model = nn.Sequential(Counting(), nn.BatchNorm2d(4)).eval()
    form = inference_form(model)
    assert model[0].calls == 0
    first, second = form(images()), form(images())
    assert form.get_submodule("0").calls == 2 and not torch.equal(first, second)
    assert inference_form(model[0]) is model[0]


@torch.no_grad()
def test_a_batch_norm_left_in_training_mode_uses_the_batch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(BinaryConv2d(3, 4, 3), nn.BatchNorm2d(4), BinaryConv2d(4, 4, 3)).eval()
    model[1].train()
    assert torch.equal(inference_form(model)(images()), model(images()))
    assert model[1].training and model[1].num_batches_tracked == 2


@pytest.mark.parametrize("wrong", ["channels", "norm", "next channels", "size"])
@torch.no_grad()
def test_shapes_that_do_not_fit_are_an_error_and_no_number(wrong: str) -> None:
    norm = nn.BatchNorm2d(12 if wrong == "norm" else 8)
    second = BinaryConv2d(12 if wrong == "next channels" else 8, 8, 3)
    model = nn.Sequential(BinaryConv2d(4 if wrong == "channels" else 3, 8, 3), norm, second)
    batch = torch.randn(2, 3, *((4, 4) if wrong == "size" else (9, 9)))
    for network in (model.eval(), inference_form(model)):
        with pytest.raises(RuntimeError):
            network(batch)
    with torch.enable_grad(), pytest.raises(RuntimeError):
        model.train()(batch)


@every_network
def test_without_kernels_a_step_gives_the_same_numbers(entry: ModelName) -> None:
    with_kernels = build(entry, convolution_of(entry, 2)).double()
    for layer in with_kernels.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # Else a whole number that is its channel's mean becomes zero or, rounded otherwise, of either sign.
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    without = copy.deepcopy(with_kernels)
    switch_off(without)
    inputs = images().double()
    for model in (with_kernels, without):
        F.cross_entropy(model(inputs), torch.tensor([1, 3])).backward()
    total = torch.stack([parameter.grad.norm() for parameter in without.parameters()]).norm()
    for (name, ours), (_, plain) in zip(with_kernels.named_parameters(), without.named_parameters(), strict=True):
        # A BatchNorm undoes alpha but for its epsilon: what is left of its gradient are the last digits of large terms.
        tolerance = 1e-6 if name.endswith("alpha") else 1e-9
        assert (ours.grad - plain.grad).norm() <= tolerance * plain.grad.norm() + 1e-10 * total, name
    for model in (with_kernels, without):
        model.eval()
    with torch.no_grad():
        expected = without(inputs)
        assert inference_form(without) is without
        assert torch.allclose(inference_form(with_kernels)(inputs), expected, rtol=1e-9, atol=1e-9)
