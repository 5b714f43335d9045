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


def layer(channels: int, outputs: int, kernel: int, stride: int, **options: bool) -> InferenceConv2d:
    torch.manual_seed(0)
    weight = torch.randn(outputs, channels, kernel, kernel).sign()
    weight.flatten()[::13] = 0
    scale, shift = torch.randn(outputs).double(), torch.randn(outputs).double()
    padding = kernel // 2
    return InferenceConv2d(weight, scale, shift, stride=(stride, stride), padding=(padding, padding), **options)


def expected(conv: InferenceConv2d, values: torch.Tensor) -> torch.Tensor:
    whole = F.conv2d(values.sign().double(), conv.weight.double(), None, conv.stride, conv.padding)
    return whole * conv.scale.double().view(-1, 1, 1) + conv.shift.double().view(-1, 1, 1)


SHAPES = [(16, 16, 3, 1, 8), (16, 32, 3, 2, 8), (5, 7, 1, 2, 9), (3, 130, 3, 1, 5), (256, 256, 3, 1, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_scaled_and_shifted_convolution(shape) -> None:
    channels, outputs, kernel, stride, size = shape
    conv, values = layer(channels, outputs, kernel, stride), activation(channels, size)
    result = expected(conv, values)
    for given in (values, values.contiguous(), sign_bytes(values)):
        found = conv(given)
        assert found.dtype == torch.float32
        assert torch.allclose(found.double(), result, rtol=1e-5, atol=1e-4)
    # Other sizes go through what was prepared for the first.
    other = activation(channels, size + 4, count=2)
    assert torch.allclose(conv(other).double(), expected(conv, other), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_hardtanh_and_signs(shape) -> None:
    channels, outputs, kernel, stride, size = shape
    values = activation(channels, size)
    clipping = layer(channels, outputs, kernel, stride, clip=True)
    result = expected(clipping, values)
    assert torch.allclose(clipping(values).double(), result.clamp(-1, 1), rtol=1e-5, atol=1e-4)
    for clip in (False, True):
        signs = layer(channels, outputs, kernel, stride, clip=clip, only_signs=True)(values)
        signs = signs.int() - 1 if signs.dtype == torch.uint8 else signs.sign().int()
        assert torch.equal(signs, result.sign().int())


@torch.inference_mode()
def test_a_layer_takes_the_bytes_of_another() -> None:
    first, second = layer(16, 16, 3, 1, only_signs=True), layer(16, 8, 3, 1)
    values = activation(16, 8)
    assert torch.allclose(
        second(first(values)).double(), expected(second, expected(first, values)), rtol=1e-5, atol=1e-4
    )
    doubled = InferenceConv2d(second.weight.double(), second.scale, second.shift, stride=(1, 1), padding=(1, 1))
    assert torch.allclose(doubled(first(values)), expected(second, expected(first, values)), rtol=1e-5)


def test_bytes_of_signs() -> None:
    values = torch.tensor([-3.0, -0.0, 0.0, 1e-30, 2.0, float("inf"), float("-inf")]).view(1, 1, 1, -1)
    assert sign_bytes(values).flatten().tolist() == [0, 1, 1, 2, 2, 2, 0]
