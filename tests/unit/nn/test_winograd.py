"""The fast form of 3x3 convolutions: exact on signs, gradients as good as a direct convolution's."""

import math

import pytest
import torch
import torch.nn.functional as F

from recu.nn import BinaryConv2d, winograd

SHAPES = [(1, 128, 128, 4, 4), (3, 128, 160, 8, 4), (70, 128, 128, 4, 8), (5, 256, 128, 12, 16), (2, 512, 128, 8, 8)]


def signs(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).sign().to(dtype)
    values.flatten()[::7] = 0
    return values


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolution_of_signs_is_exact(shape, layout) -> None:
    count, channels, outputs, height, width = shape
    activation = signs(count, channels, height, width).to(memory_format=layout)
    weight = signs(outputs, channels, 3, 3)
    assert winograd.suits(activation.shape, weight, (1, 1), (1, 1))
    # Any positive multiple of a sign has that sign.
    found = winograd.convolve_signs(activation * 0.3, winograd.transform_kernel(weight))
    assert torch.equal(found, F.conv2d(activation.double(), weight.double(), None, 1, 1).float())


@pytest.mark.parametrize("row", range(6))
@pytest.mark.parametrize("column", range(6))
def test_signs_that_make_a_transformed_value_largest_are_exact(row, column) -> None:
    """All 512 channels pull one position of the transform as far as it goes."""
    inputs = torch.tensor(winograd._INPUT_TRANSFORM).sign()
    kernels = torch.tensor(winograd._KERNEL_TRANSFORM).sign()
    activation = torch.ones(1, 512, 8, 8)
    activation[:, :, 1:7, 1:7] = torch.outer(inputs[row], inputs[column])
    kernel = torch.where(kernels == 0, torch.ones(()), kernels)
    weight = torch.outer(kernel[row], kernel[column]).expand(128, 512, 3, 3)
    found = winograd.convolve_signs(activation, winograd.transform_kernel(weight))
    assert torch.equal(found, F.conv2d(activation.double(), weight.double(), None, 1, 1).float())


def test_error_of_the_way_out_stays_below_half_a_unit() -> None:
    """The bound of docs/performance.md: five roundings of each pass, every term as large as it can be."""
    largest_input = torch.tensor(winograd._INPUT_TRANSFORM).abs().sum(1).double()
    largest_kernel = torch.tensor(winograd._KERNEL_TRANSFORM).abs().sum(1).double()
    outputs = torch.tensor(winograd._OUTPUT_TRANSFORM).abs().double()
    product = largest_input * largest_kernel
    assert product.max() ** 2 * winograd._MOST_CHANNELS < 2**24

    def roundings(terms: torch.Tensor) -> float:
        """Of adding up the terms largest first, the order that rounds most; a sum below 2^24 is exact."""
        sums = terms.sort(descending=True).values.cumsum(0).tolist()
        return sum(2.0 ** (math.floor(math.log2(total)) - 24) for total in sums if total > 2**24)

    for across in outputs:
        first = [roundings(across * product * size * winograd._MOST_CHANNELS) for size in product.tolist()]
        totals = (across * product).sum() * product * winograd._MOST_CHANNELS
        for down in outputs:
            error = (down * torch.tensor(first, dtype=torch.float64)).sum().item() + roundings(down * totals)
            assert error / winograd._SCALE < 0.5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_gradients(shape, dtype, tolerance) -> None:
    count, channels, outputs, height, width = shape
    torch.manual_seed(0)
    activation = signs(count, channels, height, width, dtype=dtype)
    weight = torch.randn(outputs, channels, 3, 3, dtype=dtype)
    grad = torch.randn(count, outputs, height, width, dtype=dtype)
    plain_activation = activation.double().clone().requires_grad_()
    plain_weight = weight.double().clone().requires_grad_()
    F.conv2d(plain_activation, plain_weight, None, 1, 1).backward(grad.double())
    kernel = winograd.transform_kernel(weight)
    grad_input, grad_weight = winograd.gradients(grad, activation, kernel, of_input=True)
    nothing, same = winograd.gradients(grad, activation, kernel, of_input=False)
    assert nothing is None and torch.equal(same, grad_weight)
    for found, expected in ((grad_input, plain_activation.grad), (grad_weight, plain_weight.grad)):
        assert (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize(
    ("size", "channels", "stride", "padding", "kernel"),
    [(6, 128, 1, 1, 3), (8, 64, 1, 1, 3), (8, 128, 2, 1, 3), (8, 128, 1, 0, 3), (8, 128, 1, 0, 1), (4, 544, 1, 1, 3)],
)
def test_other_convolutions_are_left_to_the_library(size, channels, stride, padding, kernel) -> None:
    activation, weight = torch.empty(1, channels, size, size), torch.empty(128, channels, kernel, kernel)
    assert not winograd.suits(activation.shape, weight, (stride, stride), (padding, padding))


def test_other_types_and_mixed_precision_are_left_to_the_library() -> None:
    activation, weight = torch.empty(1, 128, 8, 8), torch.empty(128, 128, 3, 3)
    assert winograd.suits(activation.shape, weight, (1, 1), (1, 1))
    assert not winograd.suits(activation.shape, weight.bfloat16(), (1, 1), (1, 1))
    assert not winograd.suits(activation.shape, weight.to("meta"), (1, 1), (1, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not winograd.suits(activation.shape, weight, (1, 1), (1, 1))


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
