"""Gradients that are looked up: as good as those of a direct convolution, for every shape they say they take."""

import pytest
import torch
import torch.nn.functional as F
from llvmlite import binding
from torch import Tensor, nn

from recu.kernels import sign_gradients
from recu.kernels.binary_conv import convolution_gradients
from recu.nn import BinaryConv2d
from recu.nn.binary_unit import binary_unit

pytestmark = pytest.mark.skipif(
    not binding.get_host_cpu_features().get("avx512f"), reason="this processor has no AVX-512, and looks nothing up"
)

SHAPES = [
    (1, 16, 4, 1, 1, 1),
    (2, 16, 16, 5, 32, 1),
    (3, 32, 36, 8, 7, 1),
    (4, 48, 64, 14, 14, 1),
    (5, 64, 20, 4, 4, 1),
    (9, 80, 32, 6, 12, 1),
    (130, 16, 8, 3, 2, 1),
    (6, 512, 260, 4, 4, 1),
    (1, 16, 4, 2, 2, 2),
    (2, 16, 16, 6, 32, 2),
    (3, 32, 36, 8, 14, 2),
    (4, 48, 64, 28, 10, 2),
    (5, 64, 20, 2, 4, 2),
    (130, 16, 8, 4, 2, 2),
    (6, 256, 516, 8, 8, 2),
]
"""Images, channels of the input and of the result, height, width, stride."""


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def binary(outputs: int, inputs: int) -> Tensor:
    return values(outputs, inputs, 3, 3, seed=1).sign()


def looked_up(
    grad: Tensor, activation: Tensor, weight: Tensor, alpha: Tensor, stride: int = 1
) -> tuple[Tensor, Tensor]:
    assert sign_gradients.suits(activation, weight, (stride, stride), (1, 1))
    packed = sign_gradients.pack_weight(weight, alpha)
    assert packed is not None
    of_input, of_weight = sign_gradients.gradients(grad, activation, packed, of_input=True)
    assert of_input is not None
    return of_input, of_weight


def direct(grad: Tensor, signs: Tensor, weight: Tensor, alpha: Tensor, stride: int = 1) -> tuple[Tensor, Tensor]:
    """In float64, of a convolution of signs with alpha times a weight."""
    signs = signs.double().requires_grad_()
    scaled = (weight.double() * alpha.double().unsqueeze(-1)).requires_grad_()
    F.conv2d(signs, scaled, None, stride, 1).backward(grad.double())
    return signs.grad, scaled.grad


def assert_close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype is torch.float32
        assert (one - other).norm() <= 2e-6 * other.norm()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("zeros", [0, 1, 50])
def test_gradients(shape, layout, zeros) -> None:
    count, inputs, outputs, height, width, stride = shape
    activation = values(count, inputs, height, width)
    # None, a single one, about half: a sign of 0 counts neither as -1 nor as 1.
    activation.flatten()[
        torch.randperm(activation.numel(), generator=torch.Generator().manual_seed(2))[
            : {0: 0, 1: 1, 50: activation.numel() // 2}[zeros]
        ]
    ] = 0
    weight, alpha = binary(outputs, inputs), values(outputs, 1, 1, seed=3)
    grad = values(count, outputs, height // stride, width // stride, seed=4)
    found = looked_up(*(each.to(memory_format=layout) for each in (grad, activation, weight)), alpha, stride)
    assert_close(found, direct(grad, activation.sign(), weight, alpha, stride))


@pytest.mark.parametrize("share", [0.5, 0.99])
@pytest.mark.parametrize("stride", [1, 2])
def test_many_zeros_are_no_less_exact_where_gradients_have_a_mean(share, stride) -> None:
    side = 16 // stride
    activation, grad, alpha = (
        values(64, 16, 16, 16),
        0.1 * values(64, 8, side, side, seed=1) + 1,
        values(8, 1, 1, seed=2),
    )
    activation[torch.rand(activation.shape, generator=torch.Generator().manual_seed(3)) < share] = 0
    expected = direct(grad, activation.sign(), binary(8, 16), alpha, stride)
    assert_close(looked_up(grad, activation, binary(8, 16), alpha, stride), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_zeros_are_no_less_exact_where_the_gradients_of_each_image_have_a_mean(stride) -> None:
    # As behind a mean over all pixels, where each has the same gradient.
    side = 40 // stride
    activation, grad = values(7, 32, 40, 40), values(7, 8, 1, 1, seed=1).expand(7, 8, side, side)
    activation[torch.rand(activation.shape, generator=torch.Generator().manual_seed(3)) < 0.3] = 0
    alpha = values(8, 1, 1, seed=2)
    expected = direct(grad, activation.sign(), binary(8, 32), alpha, stride)
    assert_close(looked_up(grad, activation, binary(8, 32), alpha, stride), expected)


def test_the_weights_of_a_channel_of_zeros_have_no_gradient() -> None:
    activation, grad = values(11, 32, 20, 20), values(11, 8, 20, 20, seed=1) + 1
    activation[:, 5] = 0
    _, of_weight = looked_up(grad, activation, binary(8, 32), values(8, 1, 1, seed=2))
    assert not of_weight[:, 5].any()


def test_the_sign_of_what_is_not_a_number_is_zero() -> None:
    activation, grad, alpha = values(3, 16, 8, 8), values(3, 8, 8, 8, seed=1), values(8, 1, 1, seed=2)
    activation[1, 3, 4, 4] = float("nan")
    expected = direct(grad, activation.sign().nan_to_num(), binary(8, 16), alpha)
    assert_close(looked_up(grad, activation, binary(8, 16), alpha), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("activation_there", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_is_not_lost(activation_there) -> None:
    activation, grad = values(5, 16, 8, 8), values(5, 8, 8, 8, seed=1)
    activation[4, 2, 3, 3] = activation_there
    grad[4, 2, 3, 3] = float("inf")
    for found in looked_up(grad, activation, binary(8, 16), values(8, 1, 1, seed=2)):
        assert not found.isfinite().all()


@pytest.mark.parametrize("stride", [1, 2])
def test_no_number_depends_on_the_number_of_threads(stride) -> None:
    activation, grad = values(21, 32, 8, 8), values(21, 36, 8 // stride, 8 // stride, seed=1)
    activation[3, 0, 0, 0] = 0
    usual, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(looked_up(grad, activation, binary(36, 32), values(36, 1, 1, seed=2), stride))
    finally:
        torch.set_num_threads(usual)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(result, results[0], strict=True))


@pytest.mark.parametrize("odd", [0.0, float("nan"), 0.5])
def test_weights_that_are_not_binary_are_left_to_others(odd) -> None:
    weight, alpha = binary(8, 16), values(8, 1, 1, seed=2)
    weight[7, 15, 2, 2] = odd
    assert sign_gradients.pack_weight(weight, alpha) is None
    activation, grad = values(4, 16, 8, 8), values(4, 8, 8, 8, seed=1)
    found = convolution_gradients(grad, activation, weight, alpha, (1, 1), (1, 1), of_input=True)
    torch.testing.assert_close(
        found, tuple(map(Tensor.float, direct(grad, activation.sign(), weight, alpha))), equal_nan=True
    )


@pytest.mark.parametrize(
    ("activation", "weight", "stride", "padding"),
    [
        ((1, 15, 8, 8), (8, 15, 3, 3), (1, 1), (1, 1)),
        ((1, 16, 8, 8), (6, 16, 3, 3), (1, 1), (1, 1)),
        ((1, 16, 8, 8), (8, 16, 1, 1), (1, 1), (0, 0)),
        ((1, 16, 8, 7), (8, 16, 3, 3), (2, 2), (1, 1)),
        ((1, 16, 8, 8), (8, 16, 3, 3), (2, 1), (1, 1)),
        ((1, 16, 9, 9), (8, 16, 3, 3), (3, 3), (1, 1)),
        ((1, 16, 8, 8), (8, 16, 3, 3), (1, 1), (0, 0)),
        ((0, 16, 8, 8), (8, 16, 3, 3), (1, 1), (1, 1)),
    ],
)
def test_other_convolutions_are_left_to_others(activation, weight, stride, padding) -> None:
    assert not sign_gradients.suits(torch.empty(activation), torch.empty(weight), stride, padding)


def test_other_types_are_left_to_others() -> None:
    activation, weight = torch.empty(1, 16, 8, 8), torch.empty(8, 16, 3, 3)
    assert sign_gradients.suits(activation, weight, (1, 1), (1, 1))
    assert not sign_gradients.suits(activation.double(), weight.double(), (1, 1), (1, 1))
    assert not sign_gradients.suits(activation, weight.to("meta"), (1, 1), (1, 1))


@pytest.mark.parametrize(("adds", "stride"), [(False, 1), (True, 1), (False, 2)])
@pytest.mark.parametrize("count", [3, 70])
def test_a_layer_with_what_surrounds_it(monkeypatch, adds, stride, count) -> None:
    torch.manual_seed(0)
    conv, norm = BinaryConv2d(32, 32, 3, stride=stride, padding=1), nn.BatchNorm2d(32)
    activation, grad = values(count, 32, 32, 32).clamp(-1, 1), values(count, 32, 32 // stride, 32 // stride, seed=1)
    activation[1, 2, 3] = 0

    def layer(dtype: torch.dtype) -> list[Tensor]:
        conv.to(dtype).zero_grad(), norm.to(dtype).zero_grad()
        given = activation.to(dtype, copy=True).requires_grad_()
        binary_unit(conv, norm, given, given if adds else None, hardtanh=True).backward(grad.to(dtype))
        return [given.grad, conv.weight.grad.clone(), conv.alpha.grad.clone(), norm.weight.grad.clone()]

    # More than one part, the last of which is not a multiple of four images.
    monkeypatch.setattr("recu.kernels.binary_unit._CONVOLUTION_VALUES", 1 << 19)
    found = layer(torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(found, layer(torch.float32), strict=True))
    for one, other in zip(found, layer(torch.float64), strict=True):
        assert (one - other).norm() <= 3e-6 * other.norm()
