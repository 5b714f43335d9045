"""Each loop of a unit against the operations it stands for; the unit as a whole is tested in test_binary_unit.py."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recu.binarisers.estimators import sign_polynomial
from recu.binarisers.recu import rescale_per_sample
from recu.kernels import unit_loops

SHAPE = (5, 6, 4, 7)
TYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])


def images(seed: int, dtype: torch.dtype) -> Tensor:
    values = torch.randn(*SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return values.contiguous(memory_format=torch.channels_last)


def whole_numbers(seed: int) -> Tensor:
    return images(seed, torch.float64).mul(40).round().to(torch.int16)


def per_channel(seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(SHAPE[1], generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool((found - expected).norm() <= tolerance * expected.norm())


@TYPES
@pytest.mark.parametrize("hardtanh", [False, True])
@pytest.mark.parametrize("adds", [False, True])
def test_normalise(dtype, tolerance, hardtanh, adds) -> None:
    counts, scale, shift = whole_numbers(1), per_channel(2, dtype) / 20, per_channel(3, dtype)
    added = images(4, dtype) if adds else None
    expected = counts.to(dtype) * scale.view(-1, 1, 1) + shift.view(-1, 1, 1) + (added if adds else 0)
    expected = F.hardtanh(expected) if hardtanh else expected
    found = unit_loops.normalise(counts, scale, shift, added, hardtanh)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert close(found, expected, tolerance)


@TYPES
@pytest.mark.parametrize("hardtanh", [False, True])
def test_through_hardtanh(dtype, tolerance, hardtanh) -> None:
    grad, counts, before = images(1, dtype), whole_numbers(2), images(3, dtype).requires_grad_()
    output = F.hardtanh(before)
    expected = torch.autograd.grad(output, before, grad)[0] if hardtanh else grad
    passed, sums, products = unit_loops.through_hardtanh(grad, output if hardtanh else None, counts)
    assert torch.equal(passed, expected)
    assert close(sums, expected.double().sum((0, 2, 3)), tolerance)
    assert close(products, (expected.double() * counts).sum((0, 2, 3)), tolerance)


@TYPES
def test_norm_gradient(dtype, tolerance) -> None:
    grad, counts, out = images(1, dtype), whole_numbers(2), images(3, dtype)
    factors = [per_channel(seed, dtype) for seed in (4, 5, 6)]
    factor, of_count, constant = (values.view(-1, 1, 1) for values in factors)
    unit_loops.norm_gradient(grad, counts, *factors, out)
    assert close(out, grad * factor + counts * of_count + constant, tolerance)


@TYPES
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("adds", [False, True])
def test_sign_gradient(dtype, tolerance, rescale, adds) -> None:
    grad, activation, added = images(1, dtype), images(2, dtype).requires_grad_(), images(3, dtype)
    result = sign_polynomial(rescale_per_sample(activation) if rescale else activation)
    expected = torch.autograd.grad(result, activation, grad)[0] + (added if adds else 0)
    out = torch.empty_like(grad)
    unit_loops.sign_gradient(grad, activation, added if adds else None, rescale=rescale, out=out)
    assert close(out, expected, tolerance)


def test_what_is_not_a_number_is_passed_on() -> None:
    counts, scale, shift = whole_numbers(1), per_channel(2, torch.float32), per_channel(3, torch.float32)
    shift[2] = torch.nan
    assert unit_loops.normalise(counts, scale, shift, None, True)[:, 2].isnan().all()
    activation, out = images(1, torch.float32), images(2, torch.float32)
    activation[3, 0, 0, 0] = torch.nan
    unit_loops.sign_gradient(images(3, torch.float32), activation, None, rescale=True, out=out)
    assert out[3].isnan().any() and out[2].isfinite().all()


@TYPES
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("threshold", [0.7, torch.inf])
def test_latent_gradient(dtype, tolerance, layout, threshold) -> None:
    # A weight's gradient in one memory format, the weight in another.
    grad, weight, scale = images(1, dtype), images(2, dtype).to(memory_format=layout), per_channel(3, dtype)[:5]
    inside = grad * (weight.abs() <= threshold)
    product = (inside * weight).sum((1, 2, 3), keepdim=True) * 0.3
    expected = (inside - inside.mean((1, 2, 3), keepdim=True) - weight * product) * scale.view(-1, 1, 1, 1)
    bound = torch.tensor(threshold, dtype=dtype)
    found = unit_loops.latent_gradient(grad, weight, bound, scale.view(-1, 1, 1, 1), 0.3)
    assert close(found, expected, tolerance)


def test_a_latent_gradient_that_is_not_a_number_stays_so_beyond_the_threshold_too() -> None:
    grad, weight, scale = images(1, torch.float64), images(2, torch.float64), torch.ones(5, dtype=torch.float64)
    weight[2, 0, 0, 0], grad[2, 0, 0, 0] = 3.0, torch.nan
    found = unit_loops.latent_gradient(grad, weight, torch.tensor(1.0, dtype=torch.float64), scale, 0.3)
    assert found[2].isnan().all() and found[1].isfinite().all()
