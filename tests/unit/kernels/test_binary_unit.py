"""The fast form of a unit against the same layers one by one, which are tested against the formulas elsewhere."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.kernels.binary_unit import _BinaryUnit
from recu.nn import BinaryConv2d, CompetitorBinaryConv2d, binary_unit, set_tau
from recu.nn.binary_unit import convolve

IMAGES, SIDE = 5, 8
SHAPES = pytest.mark.parametrize(("channels", "width", "stride"), [(16, 16, 1), (16, 32, 2), (128, 128, 1)])


class Layers(nn.Module):
    """A convolution and its BatchNorm, with values that no gradient treats specially."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv = BinaryConv2d(channels, width, 3, stride=stride, padding=1)
        self.norm = nn.BatchNorm2d(width)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)
        nn.init.uniform_(self.norm.bias, -0.5, 0.5)

    def one_by_one(self, activation: Tensor, residual: Tensor | None, hardtanh: bool) -> Tensor:
        out = self.norm(self.conv(activation))
        out = out if residual is None else out + residual
        return F.hardtanh(out) if hardtanh else out

    def at_once(self, activation: Tensor, residual: Tensor | None, hardtanh: bool) -> Tensor:
        return binary_unit(self.conv, self.norm, activation, residual, hardtanh=hardtanh)


def everything(layers: Layers, form: str, added: str, hardtanh: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    """Result, gradients and buffers after a step."""
    generator = torch.Generator().manual_seed(1)
    conv = layers.conv

    def draw(*shape: int) -> Tensor:
        # The same numbers in every type.
        return torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)

    inputs = draw(IMAGES, conv.in_channels, SIDE, SIDE).requires_grad_()
    side = SIDE // conv.stride[0]
    other = draw(IMAGES, conv.out_channels, side, side).requires_grad_()
    direction = draw(*other.shape)
    activation = inputs * 1.0
    residual = {"nothing": None, "the activation": activation, "another": other}[added]
    result = getattr(layers, form)(activation, residual, hardtanh)
    (result * direction).sum().backward()
    found = {"result": result.detach(), "activation": inputs.grad, "residual": other.grad}
    found |= {name: parameter.grad for name, parameter in layers.named_parameters()}
    found |= dict(layers.named_buffers())
    return {name: value for name, value in found.items() if value is not None}


@SHAPES
@pytest.mark.parametrize("hardtanh", [True, False], ids=["hardtanh", "plain"])
@pytest.mark.parametrize("added", ["nothing", "the activation", "another"])
def test_results_gradients_and_statistics_are_those_of_the_layers(channels, width, stride, added, hardtanh):
    if added == "the activation" and (channels, stride) != (width, 1):
        pytest.skip("has another shape than the result")
    torch.manual_seed(0)
    layers = Layers(channels, width, stride).double().train()
    set_tau(layers, 0.9)
    twin = copy.deepcopy(layers)
    fast = everything(layers, "at_once", added, hardtanh, torch.float64)
    plain = everything(twin, "one_by_one", added, hardtanh, torch.float64)
    assert fast.keys() == plain.keys()
    assert fast["norm.num_batches_tracked"] == 1
    for name, value in plain.items():
        # The layers' gradient of alpha is what is left when terms a million times as large cancel in the BatchNorm.
        tolerance = 1e-7 if name == "conv.alpha" else 1e-11
        assert (fast[name] - value).double().norm() <= tolerance * value.double().norm(), name


def test_in_float32_it_differs_by_rounding_only():
    torch.manual_seed(0)
    layers = Layers(16, 16, 1).train()
    twin = copy.deepcopy(layers)
    fast = everything(layers, "at_once", "the activation", True, torch.float32)
    plain = everything(twin, "one_by_one", "the activation", True, torch.float32)
    for name in ("result", "activation", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
        assert (fast[name] - plain[name]).norm() <= 1e-5 * plain[name].norm(), name


def test_in_float32_the_gradient_of_alpha_keeps_its_digits():
    torch.manual_seed(0)
    layers = Layers(16, 16, 1).train()
    twin = copy.deepcopy(layers).double()
    fast = everything(layers, "at_once", "another", True, torch.float32)["conv.alpha"]
    exact = everything(twin, "one_by_one", "another", True, torch.float64)["conv.alpha"]
    assert (fast - exact).norm() <= 1e-4 * exact.norm()


def test_equal_inputs_give_equal_bits():
    torch.manual_seed(0)
    layers = Layers(16, 16, 1).train()
    twin = copy.deepcopy(layers)
    first = everything(layers, "at_once", "another", True, torch.float32)
    second = everything(twin, "at_once", "another", True, torch.float32)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_kept_for_the_gradient_takes_two_bytes_a_value():
    layers = Layers(16, 16, 1).train()
    kept: list[Tensor] = []
    activation = torch.randn(IMAGES, 16, SIDE, SIDE, requires_grad=True).contiguous(memory_format=torch.channels_last)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        result = binary_unit(layers.conv, layers.norm, activation, activation, hardtanh=True)
    own = {activation.data_ptr(), result.data_ptr()}
    images = [tensor for tensor in kept if tensor.numel() == result.numel() and tensor.data_ptr() not in own]
    assert [tensor.dtype for tensor in images] == [torch.int16]


@pytest.mark.parametrize("what", ["evaluation", "no gradient", "frozen statistics", "another convolution"])
def test_where_there_is_no_fast_form_the_layers_are_called(what, monkeypatch):
    monkeypatch.setattr(_BinaryUnit, "apply", lambda *_: pytest.fail("the fast form was taken"))
    layers = Layers(16, 16, 1).double().train()
    if what == "evaluation":
        layers.eval()
    elif what == "frozen statistics":
        layers.norm.eval()
    elif what == "another convolution":
        layers.conv = CompetitorBinaryConv2d(16, 16, 3, padding=1).double()
    activation = torch.randn(IMAGES, 16, SIDE, SIDE, dtype=torch.float64)
    twin = copy.deepcopy(layers)
    with torch.set_grad_enabled(what != "no gradient"):
        result = layers.at_once(activation, activation, True)
        assert torch.allclose(result, twin.one_by_one(activation, activation, True), rtol=1e-12, atol=1e-14)


def test_a_single_value_cannot_be_normalised():
    layers = Layers(16, 16, 1).train()
    with pytest.raises(ValueError, match="more than one value per channel"):
        layers.at_once(torch.randn(1, 16, 1, 1), None, False)


def test_a_residual_of_another_shape_is_refused():
    layers = Layers(16, 16, 1).train()
    with pytest.raises(ValueError, match=r"residual's shape is \(1, 16, 1, 1\), the convolution's \(5, 16, 8, 8\)"):
        layers.at_once(torch.randn(IMAGES, 16, SIDE, SIDE), torch.randn(1, 16, 1, 1), False)


def test_a_channel_that_never_changes_gives_finite_numbers():
    torch.manual_seed(0)
    layers = Layers(128, 128, 1).train()
    activation = torch.ones(64, 128, SIDE, SIDE, requires_grad=True)
    layers.conv.padding = (0, 0)
    result = layers.at_once(activation, None, False)
    result.sum().backward()
    assert result.isfinite().all() and activation.grad.isfinite().all()
    assert layers.norm.running_var.isfinite().all()


@pytest.mark.parametrize("added", ["nothing", "the activation"])
def test_no_images_give_what_the_layers_give(added: str) -> None:
    found = []
    for form in ("one_by_one", "at_once"):
        torch.manual_seed(0)
        layers = Layers(16, 16, 1)
        inputs = torch.zeros(0, 16, SIDE, SIDE, requires_grad=True)
        activation = inputs * 1.0
        result = getattr(layers, form)(activation, activation if added == "the activation" else None, True)
        result.sum().backward()
        gradients = {name: parameter.grad for name, parameter in layers.named_parameters()}
        found.append(gradients | dict(layers.named_buffers()) | {"result": result, "inputs": inputs.grad})
    for name, value in found[0].items():
        assert torch.equal(found[1][name], value), name


@pytest.mark.parametrize("width", [16, 128])
def test_one_image_without_a_batch_is_the_layers_own_matter(width: int) -> None:
    conv = BinaryConv2d(width, width, 3, padding=1).eval()
    image = torch.randn(width, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            given = convolve(conv, image)
            assert torch.equal(given, conv(image)) and given.requires_grad == gradients
    expected = torch.autograd.grad(conv(image).sum(), image)[0]
    assert torch.equal(torch.autograd.grad(convolve(conv, image).sum(), image)[0], expected)
