"""The fast form of the gradients of 3x3 convolutions: as good as a direct convolution's."""

import pytest
import torch
import torch.nn.functional as F

from recu.kernels import winograd
from recu.nn import BinaryConv2d

SHAPES = [(1, 32, 32, 4, 4), (3, 64, 80, 8, 4), (300, 33, 35, 4, 8), (5, 128, 64, 12, 16), (2, 512, 32, 8, 8)]


def signs(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).sign().to(dtype)
    values.flatten()[::7] = 0
    return values


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_gradients(shape, layout, dtype, tolerance) -> None:
    count, channels, outputs, height, width = shape
    torch.manual_seed(0)
    # Any positive multiple of a sign has that sign.
    activation = signs(count, channels, height, width, dtype=dtype).mul_(0.3).to(memory_format=layout)
    assert winograd.suits(activation, activation.new_empty(outputs, channels, 3, 3), (1, 1), (1, 1))
    weight = torch.randn(outputs, channels, 3, 3, dtype=dtype)
    grad = torch.randn(count, outputs, height, width, dtype=dtype).to(memory_format=layout)
    plain_activation = activation.sign().double().requires_grad_()
    plain_weight = weight.double().clone().requires_grad_()
    F.conv2d(plain_activation, plain_weight, None, 1, 1).backward(grad.double())
    grad_input, grad_weight = winograd.gradients(grad, activation, weight, of_input=True)
    nothing, same = winograd.gradients(grad, activation, weight, of_input=False)
    assert nothing is None and torch.equal(same, grad_weight)
    for found, expected in ((grad_input, plain_activation.grad), (grad_weight, plain_weight.grad)):
        assert (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize(
    ("size", "channels", "stride", "padding", "kernel"),
    [(6, 128, 1, 1, 3), (8, 16, 1, 1, 3), (8, 128, 2, 1, 3), (8, 128, 1, 0, 3), (8, 128, 1, 0, 1)],
)
def test_other_convolutions_are_left_to_the_library(size, channels, stride, padding, kernel) -> None:
    activation, weight = torch.empty(1, channels, size, size), torch.empty(128, channels, kernel, kernel)
    assert not winograd.suits(activation, weight, (stride, stride), (padding, padding))


def test_other_types_and_mixed_precision_are_left_to_the_library() -> None:
    activation, weight = torch.empty(1, 128, 8, 8), torch.empty(128, 128, 3, 3)
    assert winograd.suits(activation, weight, (1, 1), (1, 1))
    assert not winograd.suits(activation.bfloat16(), weight.bfloat16(), (1, 1), (1, 1))
    assert not winograd.suits(activation.double(), weight, (1, 1), (1, 1))
    assert not winograd.suits(activation, weight.to("meta"), (1, 1), (1, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not winograd.suits(activation, weight, (1, 1), (1, 1))


def test_a_layer_gives_the_same_bits_twice_and_in_both_modes_of_the_graph() -> None:
    layer = BinaryConv2d(128, 128, 3, padding=1).eval()
    activation = torch.randn(9, 128, 8, 8, requires_grad=True)
    grad = torch.randn(9, 128, 8, 8)
    results = []
    for _ in range(2):
        layer.zero_grad()
        activation.grad = None
        output = layer(activation)
        output.backward(grad)
        results.append((output.detach(), activation.grad, layer.weight.grad, layer.alpha.grad))
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))
    with torch.no_grad():
        assert torch.equal(layer(activation), results[0][0])
