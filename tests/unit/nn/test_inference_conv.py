"""The convolution for evaluation gives the library's results to the last bit, in bits and where bits cannot be used."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from recu.kernels.sign_codes import SignCodes
from recu.nn.inference_conv import InferenceConv2d

SHAPES = pytest.mark.parametrize(
    "shape", [(16, 16, 3, 1, 8), (16, 32, 3, 2, 8), (5, 7, 1, 2, 9), (3, 130, 3, 1, 5), (256, 256, 3, 1, 4)]
)
WEIGHTS = pytest.mark.parametrize("zeros", [False, True], ids=["signs", "signs and zeros"])


def activation(channels: int, size: int, count: int = 3) -> torch.Tensor:
    values = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(size))
    values.flatten()[::11] = 0
    values.flatten()[1::97] = 1e-20
    return values.contiguous(memory_format=torch.channels_last)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels).eval()
    for values in (norm.running_mean, norm.weight.data, norm.bias.data):
        values.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return norm


def layer(channels: int, outputs: int, kernel: int, stride: int, *, zeros: bool = False, **rest) -> InferenceConv2d:
    torch.manual_seed(0)
    weight = torch.randn(outputs, channels, kernel, kernel).sign()
    if zeros:
        weight.flatten()[::13] = 0
    padding = kernel // 2
    return InferenceConv2d(weight, torch.randn(outputs), stride=(stride, stride), padding=(padding, padding), **rest)


def whole_numbers(conv: InferenceConv2d, values: torch.Tensor) -> torch.Tensor:
    whole = F.conv2d(values.sign().double(), conv.weight.double(), None, conv.stride, conv.padding)
    return whole.to(values.dtype, memory_format=torch.channels_last)


@SHAPES
@WEIGHTS
@torch.inference_mode()
def test_convolution_and_what_follows_it(shape, zeros) -> None:
    channels, outputs, kernel, stride, size = shape
    norm = batch_norm(outputs)
    conv = layer(channels, outputs, kernel, stride, zeros=zeros, norm=norm, hardtanh=True)
    for values in (activation(channels, size), activation(channels, size).contiguous(), activation(channels, 2 * size)):
        normalised = norm(whole_numbers(conv, values) * conv.scale.view(-1, 1, 1))
        residual = torch.randn_like(normalised)
        assert torch.equal(conv(values), F.hardtanh(normalised))
        assert torch.equal(conv(values, residual), F.hardtanh(normalised + residual))


@pytest.mark.parametrize("shape", [(1, 16, 1, 1), (3, 16, 8, 1), (1, 1, 1, 1), (5, 3, 16, 8, 8)])
@torch.inference_mode()
def test_what_is_added_may_be_broadcast(shape) -> None:
    conv, values = layer(16, 16, 3, 1, norm=batch_norm(16), hardtanh=True), activation(16, 8)
    other = torch.randn(shape)
    normalised = conv.norm(whole_numbers(conv, values) * conv.scale.view(-1, 1, 1))
    assert torch.equal(conv(values, other), F.hardtanh(normalised + other))
    assert torch.equal(conv(values, other.double()), F.hardtanh(normalised + other.double()))


@SHAPES
@torch.inference_mode()
def test_scaled_convolution_alone(shape) -> None:
    channels, outputs, kernel, stride, size = shape
    conv, values = layer(channels, outputs, kernel, stride), activation(channels, size)
    assert torch.equal(conv(values), whole_numbers(conv, values) * conv.scale.view(-1, 1, 1))


@SHAPES
@WEIGHTS
@torch.inference_mode()
def test_signs_above_a_threshold_pass_from_layer_to_layer(shape, zeros) -> None:
    channels, outputs, kernel, stride, size = shape
    direction = torch.randint(0, 2, (outputs,)).mul(2).sub(1).int()
    threshold = torch.randint(-4, 4, (outputs,)).int()
    first = layer(channels, outputs, kernel, stride, zeros=zeros, sign_threshold=(direction, threshold))
    values = activation(channels, size)
    whole = whole_numbers(first, values) * direction.view(-1, 1, 1)
    expected = torch.where(whole > threshold.view(-1, 1, 1), 1.0, -1.0)
    signs = first(values)
    assert isinstance(signs, SignCodes) != zeros
    for next_zeros in (False, True):
        second = layer(outputs, 8, 3, 1, zeros=next_zeros)
        assert torch.equal(second(signs), second(expected))


@torch.inference_mode()
def test_what_is_not_a_number_is_passed_on() -> None:
    norm = batch_norm(16)
    norm.running_mean[3] = torch.nan
    conv = layer(16, 16, 3, 1, norm=norm, hardtanh=True)
    assert conv(activation(16, 8))[:, 3].isnan().all()


@torch.inference_mode()
def test_float64() -> None:
    torch.manual_seed(0)
    weight, scale, norm = torch.randn(8, 16, 3, 3).sign().double(), torch.randn(8).double(), batch_norm(8).double()
    conv = InferenceConv2d(weight, scale, stride=(1, 1), padding=(1, 1), norm=norm)
    values = activation(16, 8).double()
    expected = norm(whole_numbers(conv, values) * scale.view(-1, 1, 1))
    assert torch.allclose(conv(values), expected, rtol=1e-12)
