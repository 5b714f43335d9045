"""The form for evaluation gives what the network gives, on every registered network."""

import logging
import operator
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.reference.networks import BUILDERS
from recu.binarisers.biper import BiPerConv2d
from recu.binarisers.irnet import IRNetConv2d
from recu.binarisers.reste import ReSTEConv2d
from recu.binarisers.sign import SignConv2d
from recu.experiment.networks import find_network
from recu.models import ModelName, available_models, build_model
from recu.models.build import convolution_of
from recu.nn import BinaryConv2d, CompetitorBinaryConv2d
from recu.nn.inference import inference_form
from recu.nn.inference_conv import InferenceConv2d
from recu.nn.layers import LearnableShift
from recu.training.device import place
from tests.golden.fill import fill

CLASSES = 7


def network(entry: ModelName, stage: int = 2, binariser: str = "recu") -> nn.Module:
    """With all kinds of values in every tensor, scales of BatchNorm below zero included."""
    torch.manual_seed(0)
    which = {"family": entry.family, "variant": entry.variant, "stage": stage, "binariser": binariser}
    model = build_model(entry.name, num_classes=CLASSES, **which)
    fill(model, 0.9)
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.BatchNorm1d)):
            layer.weight.data[::3] *= -1
    return model.eval()


def images(entry: ModelName, count: int) -> torch.Tensor:
    size = 32 if entry.family == "cifar" else 64
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, size, size, generator=generator).contiguous(memory_format=torch.channels_last)


def binary_networks() -> list:
    """Those that can be binary; the deepest repeat the blocks of the others."""
    return [
        pytest.param(
            entry,
            id=".".join(filter(None, entry)),
            marks=pytest.mark.slow if entry.name.startswith("resnet34") else (),
        )
        for entry in available_models(stage=2)
        if 2 in find_network(entry.name, family=entry.family, variant=entry.variant).stages
    ]


every_network = pytest.mark.parametrize("entry", binary_networks())


@every_network
@torch.no_grad()
def test_logits_in_float64(entry: ModelName) -> None:
    model, batch = network(entry).double(), images(entry, 2).double()
    expected, found = model(batch), inference_form(model)(batch)
    assert (found - expected).norm() <= 1e-9 * expected.norm()


@every_network
@torch.no_grad()
def test_logits_and_predictions_in_float32(entry: ModelName) -> None:
    model, batch = place(network(entry), torch.device("cpu")), images(entry, 24)
    form = inference_form(model)
    expected, found = model(batch), form(batch)
    assert torch.equal(found, expected)
    binary = [layer for layer in model.modules() if isinstance(layer, (BinaryConv2d, CompetitorBinaryConv2d))]
    assert len([layer for layer in form.modules() if isinstance(layer, InferenceConv2d)]) == len(binary)
    assert binary or entry not in BUILDERS  # a network of one's own may have a binariser of one's own
    # Batches of other sizes go through what was prepared for the first.
    assert torch.equal(torch.cat([form(part) for part in batch.split(7)]).argmax(1), expected.argmax(1))


@pytest.mark.parametrize("binariser", ["ir-net", "reste", "biper", "biper-f30", "sign"])
@pytest.mark.parametrize(
    ("family", "name"), [("cifar", "resnet20_1w1a"), ("imagenet", "resnet18_1w1a"), ("reactnet", "resnet18_1w1a")]
)
@torch.no_grad()
def test_other_binarisers_are_convolved_as_bits_too(family: str, name: str, binariser: str) -> None:
    entry = ModelName(family, name, None)
    model, batch = place(network(entry, binariser=binariser), torch.device("cpu")), images(entry, 3)
    form, kind = inference_form(model), convolution_of(entry.family, 2, binariser)
    binary = [layer for layer in model.modules() if type(layer) is kind]
    layers = inference_layers(form)
    assert len(layers) == len(binary) >= 10
    assert sum(layer.filters is None for layer in layers) <= 1, "where a weight happens to be zero"
    assert torch.equal(form(batch), model(batch))


@pytest.mark.parametrize("kind", [IRNetConv2d, ReSTEConv2d, BiPerConv2d, SignConv2d])
@torch.no_grad()
def test_weights_without_a_sign_stay_without_one(kind) -> None:
    """A filter of equal weights has no deviation in IR-Net; in the others zeros are 0."""
    torch.manual_seed(0)
    model = nn.Sequential(kind(4, 6, 3), nn.BatchNorm2d(6), nn.Hardtanh()).eval()
    model[0].weight[2] = 0.0
    batch = torch.randn(3, 4, 6, 6)
    form, expected = inference_form(model), model(batch)
    assert len(inference_layers(form)) == 1
    assert torch.equal(form(batch).nan_to_num(7.0), expected.nan_to_num(7.0))
    assert bool(expected[:, 2].isnan().all()) == (kind is IRNetConv2d)


def inference_layers(form: nn.Module) -> list[InferenceConv2d]:
    return [layer for layer in form.modules() if isinstance(layer, InferenceConv2d)]


def test_signs_are_passed_on_as_bits_where_nothing_else_is_looked_at() -> None:
    layers = inference_layers(inference_form(network(ModelName("cifar", "resnet18_1w1a", None))))
    passed = [layer for layer in layers if layer.sign_threshold is not None]
    assert len(passed) == 8  # the first convolution of each block
    assert [layer.norm is not None and layer.hardtanh for layer in layers if layer not in passed] == [True] * 8


@pytest.mark.parametrize(("family", "name"), [("cifar", "resnet20_1w1a"), ("imagenet", "resnet18_1w1a")])
def test_batch_norm_residual_and_hardtanh_are_part_of_the_convolution(family, name) -> None:
    form = inference_form(network(ModelName(family, name, None)))
    assert all(layer.norm is not None and layer.hardtanh for layer in inference_layers(form))
    sums = [node for node in form.graph.nodes if node.op == "call_function" and node.target is operator.add]
    assert not sums
    assert any(layer.in_place for layer in inference_layers(form))


class Pair(nn.Module):
    fixed_graph = True

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = BinaryConv2d(2, 6, 3), BinaryConv2d(6, 6, 3)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(F.hardtanh(self.norm(self.first(x))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_thresholds_at_a_number_between_numbers_out_of_reach_and_falling(dtype) -> None:
    torch.manual_seed(0)
    model = Pair().to(dtype).eval()
    norm = model.norm
    model.first.alpha.fill_(0.5)
    norm.running_mean.copy_(torch.tensor([1.0, 1.25, -20.0, 20.0, 1.0, 1.25]))
    norm.weight.copy_(torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0, -1.0]))
    batch = torch.randn(64, 2, 7, 7, dtype=dtype)
    whole = model.first(batch) / 0.5
    assert (whole[:, 0] == 2).any() and (whole[:, 4] == 2).any()  # the normalised value is zero there
    form = inference_form(model)
    # Zero is not a sign that a bit can be.
    assert all(layer.sign_threshold is None for layer in inference_layers(form))
    assert torch.equal(form(batch), model(batch))
    norm.running_mean[norm.running_mean == 1.0] = 1.1
    form = inference_form(model)
    assert [layer.sign_threshold is None for layer in inference_layers(form)] == [False, True]
    assert torch.equal(form(batch), model(batch))


@torch.no_grad()
def test_a_channel_that_is_always_zero_keeps_its_batch_norm() -> None:
    torch.manual_seed(0)
    model = Pair().eval()
    model.norm.weight[3] = 0.0
    batch = torch.randn(8, 2, 7, 7)
    form = inference_form(model)
    assert all(layer.sign_threshold is None for layer in inference_layers(form))
    assert torch.equal(form(batch), model(batch))


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="evaluation mode only"):
        inference_form(network(ModelName("cifar", "resnet20_1w1a", None)).train())


@torch.no_grad()
def test_the_network_is_not_changed_and_its_later_weights_do_not_matter() -> None:
    entry = ModelName("cifar", "resnet18A_1w1a", None)
    model, batch = network(entry), images(entry, 2)
    before, keys = model(batch), list(model.state_dict())
    form = inference_form(model)
    assert torch.equal(model(batch), before) and list(model.state_dict()) == keys
    found = form(batch)
    other = {name: -value if value.ndim in (2, 4) else value for name, value in model.state_dict().items()}
    model.load_state_dict(other)
    assert torch.equal(form(batch), found) and not torch.equal(model(batch), before)
    with pytest.raises(ValueError, match="load these into the network"):
        form.load_state_dict(form.state_dict())


class Unread(nn.Module):
    """Its graph is not read, so that it stays as it is, binary layer included. Counts its calls."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.prelu = BinaryConv2d(8, 8, 3, padding=1), nn.PReLU(8)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.prelu(self.conv(x)) + self.calls


class Around(nn.Module):
    """Calls another layer; not read either."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Kept(nn.Module):
    """Every kind of tensor that stays in a form, and names that a form may want to give."""

    fixed_graph = True

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.inference_conv = BinaryConv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.norm, self.prelu, self.shift = nn.BatchNorm2d(8), nn.PReLU(8), LearnableShift(8)
        self.inference_conv_ = nn.Parameter(torch.rand(8, 1, 1))
        self.register_buffer("offset", torch.rand(8, 1, 1))
        self.plain = torch.rand(8, 1, 1)  # neither parameter nor buffer
        self.unread = Unread()
        self.twice = nn.Sequential(Around(self.unread), Around(self.unread))
        self.pooled_norm, self.linear = nn.BatchNorm1d(8), nn.Linear(8, 5)
        self.lock = threading.Lock()  # which cannot be copied

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shift(self.norm(self.conv(x)))
        x = self.inference_conv(self.prelu(x * self.inference_conv_ + self.offset - self.plain))
        return self.linear(self.pooled_norm(self.twice(x).mean((2, 3))))


def kept() -> tuple[Kept, torch.Tensor]:
    torch.manual_seed(0)
    model = Kept()
    fill(model, 0.9)
    model.unread.calls.fill_(0)
    return model.eval(), torch.randn(2, 3, 6, 6).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["plain", *(name for name in Kept().state_dict() if "twice" not in name)])
@torch.no_grad()
def test_no_tensor_of_a_form_follows_the_network(name: str) -> None:
    model, batch = kept()
    form, again = inference_form(model), inference_form(model)
    assert len(inference_layers(form)) == 1
    found = form(batch)
    tensor = operator.attrgetter(name)(model)
    tensor.copy_(torch.rand_like(tensor) if tensor.is_floating_point() else tensor + 1)
    assert torch.equal(again(batch), found)
    assert name.endswith(("num_batches_tracked", "tau")) or not torch.equal(model(batch), found)


@torch.no_grad()
def test_what_two_layers_of_a_form_share_stays_shared_and_the_networks_own() -> None:
    model, batch = kept()
    form, calls = inference_form(model), model.unread.calls
    expected = [model(batch), model(batch)]
    assert calls == 4 and not torch.equal(*expected)
    assert [torch.equal(form(batch), each) for each in expected] == [True, True] and calls == 4


@torch.no_grad()
def test_a_layer_that_stays_and_cannot_be_copied_leaves_the_network_as_it_is_with_a_warning(caplog) -> None:
    model, _ = kept()
    model.prelu.lock = threading.Lock()
    with caplog.at_level(logging.WARNING):
        assert inference_form(model) is model
    assert "evaluating Kept layer by layer, which is slower: cannot pickle" in caplog.text


def test_nothing_binary_nothing_changed() -> None:
    model = network(ModelName("cifar", "resnet20_1w1a", None), stage=1)
    assert inference_form(model) is model


class Branching(nn.Module):
    fixed_graph = True

    def __init__(self) -> None:
        super().__init__()
        self.conv = BinaryConv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if x.sum() > 0 else self.conv(-x)


def test_a_network_whose_graph_depends_on_values_is_left_as_it_is_with_a_warning(caplog) -> None:
    model = Branching().eval()
    with caplog.at_level(logging.WARNING):
        assert inference_form(model) is model
    assert "evaluating Branching layer by layer" in caplog.text


class Counting(nn.Module):
    """Writes over a result that has another name."""

    fixed_graph = True

    def __init__(self, operator_: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.first, self.norm = BinaryConv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.operator = operator_

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = x = self.norm(self.first(x))
        x = self.operator(x, 0.75)
        return torch.cat([kept, x])


@pytest.mark.parametrize("operator_", [operator.iadd, operator.isub, operator.imul, operator.itruediv])
@torch.inference_mode()
def test_a_result_that_is_written_over_and_has_another_name(operator_, caplog) -> None:
    torch.manual_seed(0)
    model, batch = Counting(operator_), torch.randn(2, 3, 9, 8).contiguous(memory_format=torch.channels_last)
    fill(model, 0.9)
    model.eval()
    assert torch.equal(inference_form(model)(batch), model(batch))
    assert "evaluating Counting layer by layer, which is slower: the result norm is written over" in caplog.text


class Adding(nn.Module):
    """As torchvision's residual networks add."""

    fixed_graph = True

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = BinaryConv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm(self.conv(x))
        out += x
        return F.hardtanh(out)


@torch.inference_mode()
def test_a_residual_that_is_added_in_place_is_part_of_the_convolution(caplog) -> None:
    torch.manual_seed(0)
    model, batch = Adding(), torch.randn(2, 8, 5, 5).contiguous(memory_format=torch.channels_last)
    fill(model, 0.9)
    form = inference_form(model.eval())
    (layer,) = inference_layers(form)
    assert layer.hardtanh and torch.equal(form(batch), model(batch)) and not caplog.text


class Tangled(nn.Module):
    """Layers used twice, results used twice, functions instead of modules, a BatchNorm without statistics."""

    fixed_graph = True

    def __init__(self) -> None:
        super().__init__()
        self.conv = BinaryConv2d(8, 8, 3, padding=1)
        self.other = BinaryConv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.plain = nn.BatchNorm2d(8, affine=False, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.norm(self.conv(x))
        second = F.hardtanh(self.norm(self.conv(first)))
        third = self.plain(self.other(F.hardtanh(self.other(second), -0.5, 0.5)))
        return first + second + F.hardtanh(self.other(third)) + self.conv(F.hardtanh(self.other(third)))


class Residuals(nn.Module):
    """The first block's residual is read again at the end, the second's by way of a view; the third's by nothing."""

    fixed_graph = True

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(BinaryConv2d(8, 8, 3, padding=1) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(4))
        self.identity = nn.Identity()

    def block(self, number: int, x: torch.Tensor) -> torch.Tensor:
        return F.hardtanh(self.norms[number](self.convs[number](x)) + self.identity(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.block(0, x)
        second = self.block(1, first)
        view = second[:, :, ::2]
        third = self.block(2, second)
        last = self.block(3, third)
        return torch.cat((last, first), dim=2) + torch.cat((view, view, view, view), dim=2)


@torch.no_grad()
def test_memory_is_written_again_only_where_nothing_reads_it_later() -> None:
    torch.manual_seed(0)
    model = Residuals()
    fill(model, 0.9)
    model.eval()
    batch = torch.randn(3, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    before, form = batch.clone(), inference_form(model)
    assert [layer.in_place for layer in inference_layers(form)] == [False, False, False, True]
    assert torch.equal(form(batch), model(batch)) and torch.equal(batch, before)


@torch.no_grad()
def test_layers_and_results_that_are_used_more_than_once() -> None:
    torch.manual_seed(0)
    model = Tangled().double()
    fill(model, 0.9)
    batch = torch.randn(3, 8, 6, 6, dtype=torch.float64)
    model.eval()
    assert torch.allclose(inference_form(model)(batch), model(batch), rtol=1e-12)
    model.float()
    batch = batch.float()
    assert torch.equal(inference_form(model)(batch), model(batch))
