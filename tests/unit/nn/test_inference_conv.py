"""Every kernel of the convolution for evaluation gives the same exact whole numbers."""

import pytest
import torch
import torch.nn.functional as F

from recu.nn.inference_conv import InferenceConv2d, sign_bytes


def activation(channels: int, size: int, count: int = 3) -> torch.Tensor:
    values = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(size))
    values.flatten()[::11] = 0
    values.flatten()[1::97] = 1e-20
    return values.contiguous(memory_format=torch.channels_last)


def layer(channels: int, outputs: int, kernel: int, stride: int, *, only_signs: bool = False) -> InferenceConv2d:
    torch.manual_seed(0)
    weight = torch.randn(outputs, channels, kernel, kernel).sign()
    weight.flatten()[::13] = 0
    scale, shift = torch.randn(outputs), None
    if only_signs:
        scale = scale.sign()
        shift = torch.randint(-9, 9, (outputs,)) / 2
    padding = kernel // 2
    return InferenceConv2d(weight, scale, sign_shift=shift, stride=(stride, stride), padding=(padding, padding))


def whole_numbers(conv: InferenceConv2d, values: torch.Tensor) -> torch.Tensor:
    return F.conv2d(values.sign().double(), conv.weight.double(), None, conv.stride, conv.padding)


def expected(conv: InferenceConv2d, values: torch.Tensor) -> torch.Tensor:
    """With one rounding, as whole numbers times a scale have."""
    return whole_numbers(conv, values).float() * conv.scale.view(-1, 1, 1)


SHAPES = [(16, 16, 3, 1, 8), (16, 32, 3, 2, 8), (5, 7, 1, 2, 9), (3, 130, 3, 1, 5), (256, 256, 3, 1, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_scaled_convolution_is_exact(shape) -> None:
    channels, outputs, kernel, stride, size = shape
    conv, values = layer(channels, outputs, kernel, stride), activation(channels, size)
    for given in (values, values.contiguous(), sign_bytes(values)):
        assert torch.equal(conv(given), expected(conv, values))
    # Other sizes go through what was prepared for the first.
    other = activation(channels, size + 4, count=2)
    assert torch.equal(conv(other), expected(conv, other))
    doubled = InferenceConv2d(conv.weight.double(), conv.scale.double(), stride=conv.stride, padding=conv.padding)
    assert torch.equal(doubled(sign_bytes(values)).float(), expected(conv, values))


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_signs_of_shifted_convolutions_are_exact(shape) -> None:
    channels, outputs, kernel, stride, size = shape
    conv, values = layer(channels, outputs, kernel, stride, only_signs=True), activation(channels, size)
    result = whole_numbers(conv, values) * conv.scale.view(-1, 1, 1) + conv.sign_shift.view(-1, 1, 1)
    assert (result == 0).any()
    signs = conv(values)
    signs = signs.int() - 1 if signs.dtype == torch.uint8 else signs.sign().int()
    assert torch.equal(signs, result.sign().int())


@pytest.mark.parametrize("channels", [16, 256])
@torch.inference_mode()
def test_a_layer_takes_what_another_gives(channels) -> None:
    first, second = layer(16, channels, 3, 1, only_signs=True), layer(channels, 8, 3, 1)
    values = activation(16, 8)
    signs = whole_numbers(first, values) * first.scale.view(-1, 1, 1) + first.sign_shift.view(-1, 1, 1)
    assert torch.equal(second(first(values)), expected(second, signs))


def test_bytes_of_signs() -> None:
    values = torch.tensor([-3.0, -0.0, 0.0, 1e-30, 2.0, float("inf"), float("-inf")]).view(1, 1, 1, -1)
    assert sign_bytes(values).flatten().tolist() == [0, 1, 1, 2, 2, 2, 0]
