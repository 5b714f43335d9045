"""The two sign functions and their stand-in gradients."""

import pytest
import torch

from recu.binarisers.estimators import polynomial_gradient, sign_identity, sign_polynomial

POINTS = [-2.0, -1.0, -0.25, 0.0, 0.5, 0.9, 1.0, 3.0]


@pytest.mark.parametrize("sign", [sign_identity, sign_polynomial])
def test_sign_of_zero_is_zero(sign) -> None:
    assert sign(torch.tensor([-0.3, -0.0, 0.0, 7.0])).tolist() == [-1.0, 0.0, 0.0, 1.0]


def test_straight_through_gradient_is_the_incoming_one() -> None:
    x = torch.tensor(POINTS, requires_grad=True)
    incoming = torch.arange(8.0)
    sign_identity(x).backward(incoming)
    assert torch.equal(x.grad, incoming)


def test_polynomial_gradient_follows_its_formula() -> None:
    x = torch.tensor(POINTS, requires_grad=True)
    incoming = torch.arange(1.0, 9.0)
    sign_polynomial(x).backward(incoming)
    expected = [g * max(0.0, 2 - 2 * abs(value)) for g, value in zip(incoming.tolist(), POINTS, strict=True)]
    assert x.grad.tolist() == pytest.approx(expected)


def test_polynomial_gradient_is_the_derivative_of_the_bi_real_polynomial() -> None:
    def polynomial(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x.abs() < 1, 2 * x - x * x.abs(), torch.sign(x))

    x = torch.linspace(-1.95, 1.95, 40, dtype=torch.float64)
    step = 1e-6
    numeric = (polynomial(x + step) - polynomial(x - step)) / (2 * step)
    assert torch.allclose(polynomial_gradient(x), numeric, atol=1e-5)
