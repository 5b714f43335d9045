"""Each operation in NumPy gives what PyTorch gives."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recu.runtime import operations
from recu.runtime.operations import fused_multiply_add

ODD = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45, 3e38, 1.0, -1.0, 0.3], np.float32)


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def as_torch(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def as_numpy(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).numpy()


def equal(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def nearest(value: Fraction) -> np.float32:
    """A fraction rounded to float32, ties to even, by looking at the neighbours."""
    near = np.float32(float(value))
    candidates = [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
    return min(candidates, key=lambda each: (abs(Fraction(float(each)) - value), each.view(np.int32) & 1))


@pytest.mark.parametrize("exponent", [0, -70])
def test_a_fused_multiply_add_rounds_once(exponent):
    generator = np.random.default_rng(0)
    x, factor, term = (generator.standard_normal(4000).astype(np.float32) for _ in range(3))
    # At -70 products and sums lie below float32's normal range.
    x, factor = x * np.float32(2.0**exponent), factor * np.float32(2.0**exponent)
    term *= np.float32(2.0) ** generator.integers(2 * exponent - 8 if exponent else -40, 2 * exponent + 8, 4000)
    found = fused_multiply_add(x, factor, term)
    fractions = ([Fraction(float(each)) for each in values] for values in (x, factor, term))
    equal(found, np.array([nearest(a * b + c) for a, b, c in zip(*fractions, strict=True)]))


def test_a_sum_that_float64_would_round_to_the_middle_of_two_numbers():
    # x * factor = 1 + 2^-24 (a tie of float32), the term breaks it, and float64 cannot hold the three together.
    x, factor = np.float32([1 + 2**-12]), np.float32([1 - 2**-12 + 2**-24])
    product = Fraction(float(x[0])) * Fraction(float(factor[0]))
    for term in (2.0**-70, -(2.0**-70), 2.0**-24 + 2.0**-46, 2.0**-24):
        term = np.float32([term])
        found = fused_multiply_add(x, factor, term)
        assert found[0] == nearest(product + Fraction(float(term[0])))
    x, factor = np.float32([1 + 2**-23]), np.float32([1])
    for term in (np.float32([2.0**-24 + 2.0**-47]), np.float32([2.0**-24]), np.float32([2.0**-24 - 2.0**-48])):
        assert fused_multiply_add(x, factor, term)[0] == nearest(Fraction(float(x[0])) + Fraction(float(term[0])))


def test_what_is_not_finite_stays_so():
    for factor in (np.float32(2), np.float32(-0.5)):
        with np.errstate(invalid="ignore", over="ignore"):
            expected = (ODD.astype(np.float64) * factor + 1.0).astype(np.float32)
        np.testing.assert_array_equal(fused_multiply_add(ODD, np.full_like(ODD, factor), np.ones_like(ODD)), expected)


def test_the_sign_of_zero_and_of_what_is_not_a_number_is_zero():
    equal(operations.sign()(ODD), torch.sign(torch.from_numpy(ODD)).nan_to_num(0.0).numpy())


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("taps", [1, 3, 5])
def test_a_binary_convolution(taps, padding, stride):
    x = images(2, 9, 8, 5)
    x[0, :2, :2] = 0
    x[1, 3, 3, :2] = np.nan
    weight = np.random.default_rng(1).integers(-1, 2, (7, taps, taps, 5)).astype(np.int8)
    whole = F.conv2d(
        as_torch(operations.sign()(x)), torch.from_numpy(weight).permute(0, 3, 1, 2).float(), None, stride, padding
    )
    pairs = {"weight": weight, "stride": (stride, stride), "padding": (padding, padding)}
    scale = images(7, seed=2)
    equal(operations.binary(**pairs, scale=scale)(x), as_numpy(whole * torch.from_numpy(scale).view(-1, 1, 1)))
    threshold = np.arange(-3, 4, dtype=np.int32)
    above = as_numpy(whole) > threshold
    equal(operations.binary(**pairs, threshold=threshold)(x), np.where(above, np.float32(1), np.float32(-1)))


@pytest.mark.parametrize("hardtanh", [False, True])
@pytest.mark.parametrize("adds", [False, True])
def test_what_follows_a_binary_convolution(adds, hardtanh):
    x, weight = images(3, 8, 8, 16), np.where(images(16, 3, 3, 16) > 0, np.int8(1), np.int8(-1))
    norm = torch.nn.BatchNorm2d(16).eval()
    for number, values in enumerate(norm.state_dict().values()):
        if values.ndim:
            values.copy_(torch.rand(16, generator=torch.Generator().manual_seed(number)) + 0.1)
    scale = torch.rand(16, 1, 1, generator=torch.Generator().manual_seed(9))
    out = norm(
        F.conv2d(torch.sign(as_torch(x)), torch.from_numpy(weight).permute(0, 3, 1, 2).float(), padding=1) * scale
    )
    out = out + as_torch(x) if adds else out
    out = F.hardtanh(out) if hardtanh else out
    from recu.kernels.inference_norm import FixedNorm2d

    factor, shift = (values.numpy() for values in FixedNorm2d(norm).factor_and_shift())
    apply = operations.binary(
        weight=weight,
        stride=(1, 1),
        padding=(1, 1),
        scale=scale.numpy().reshape(-1),
        factor=factor,
        shift=shift,
        hardtanh=hardtanh,
    )
    equal(apply(x, *([x] if adds else [])), as_numpy(out.detach()))


@pytest.mark.parametrize(("stride", "padding", "biased"), [(1, 1, False), (2, 3, True), (3, 0, True)])
def test_a_convolution_with_real_weights_is_the_exact_sum_rounded(stride, padding, biased):
    x, weight, shift = images(2, 11, 10, 3), images(6, 5, 5, 3, seed=1), images(6, seed=2) if biased else None
    apply = operations.convolution(weight=weight, stride=(stride, stride), padding=(padding, padding), bias=shift)
    expected = F.conv2d(
        as_torch(x).double(),
        torch.from_numpy(weight).permute(0, 3, 1, 2).double(),
        None if shift is None else torch.from_numpy(shift).double(),
        stride,
        padding,
    )
    np.testing.assert_allclose(apply(x), as_numpy(expected), rtol=2**-23, atol=1e-30)
    # Whatever stands beside an image in a batch.
    equal(apply(x)[:1], apply(x[:1]))


def test_rows_and_means_are_exact_sums_rounded():
    x, weight, shift = images(3, 50), images(7, 50, seed=1), images(7, seed=2)
    exact = x.astype(np.float64) @ weight.T.astype(np.float64) + shift
    np.testing.assert_allclose(operations.linear(weight=weight, bias=shift)(x), exact, rtol=2**-22)
    pixels = images(3, 7, 6, 5)
    np.testing.assert_allclose(
        operations.mean()(pixels)[:, 0, 0], pixels.astype(np.float64).mean((1, 2)), rtol=2**-22, atol=1e-30
    )


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1), (1, 6)])
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (2, 1), (3, 2), (1, 1)])
def test_average_pooling_as_pytorch_does_it(window, stride, size):
    if min(size) < window and max(size) >= window and window == 3:
        pytest.skip("PyTorch refuses a window larger than the image")
    x = images(2, *size, 6)
    try:
        expected = F.avg_pool2d(as_torch(x), window, stride, ceil_mode=True)
    except RuntimeError:
        pytest.skip("PyTorch refuses it")
    equal(operations.average_pool(window=(window, window), stride=(stride, stride))(x), as_numpy(expected))


def test_average_pooling_of_all_of_an_image():
    x = images(2, 4, 3, 6)
    equal(operations.average_pool(window=None)(x), as_numpy(F.avg_pool2d(as_torch(x), (4, 3))))


@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
def test_max_pooling(window, stride, padding):
    x = -np.abs(images(2, 9, 8, 4))
    expected = F.max_pool2d(as_torch(x), window, stride, padding)
    apply = operations.max_pool(window=(window, window), stride=(stride, stride), padding=(padding, padding))
    equal(apply(x), as_numpy(expected))


def test_what_works_on_each_number():
    x, row = images(2, 5, 4, 6), images(6, seed=1)
    x.reshape(-1)[:2] = 0.0, -0.0
    t, r = as_torch(x), torch.from_numpy(row)
    equal(operations.prelu(slope=row)(x), as_numpy(F.prelu(t, r)))
    equal(operations.relu()(x), as_numpy(F.relu(t)))
    equal(operations.bias(shift=row)(x), as_numpy(t + r.view(-1, 1, 1)))
    equal(operations.scale(factor=row)(x), as_numpy(t * r.view(-1, 1, 1)))
    equal(operations.hardtanh(low=-0.5, high=0.25)(x), as_numpy(F.hardtanh(t, -0.5, 0.25)))
    equal(operations.add()(x, x), as_numpy(t + t))
    equal(operations.subsample(step=2)(x), as_numpy(t[:, :, ::2, ::2]))
    equal(operations.pad_channels(before=1, after=2)(x), as_numpy(F.pad(t, (0, 0, 0, 0, 1, 2))))
    equal(operations.flatten()(x), t.flatten(1).numpy())
    equal(operations.flatten()(row[None]), row[None])
