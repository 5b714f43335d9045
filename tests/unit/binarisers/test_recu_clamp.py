"""Weight standardisation, Q(tau) and the clamp."""

import math

import pytest
import torch

from recu.binarisers.recu_clamp import quantile_threshold, recu_clamp, standardise_weight


def _weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.3


def test_every_filter_has_mean_zero_and_the_laplacian_deviation() -> None:
    standardised = standardise_weight(_weight(5, 4, 3, 3) * torch.arange(1.0, 6.0).view(5, 1, 1, 1))
    assert standardised.mean((1, 2, 3)).abs().max() < 1e-12
    assert standardised.std((1, 2, 3)).tolist() == pytest.approx([2 * math.sqrt(2)] * 5, rel=1e-4)


def test_the_variance_is_unbiased_and_gets_the_epsilon() -> None:
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64).view(1, 2, 1, 1)
    expected = 2 * math.sqrt(2) / math.sqrt(2 + 1e-5)  # mean 2, unbiased variance 2
    assert standardise_weight(weight).flatten().tolist() == pytest.approx([-expected, expected], rel=1e-14)


def test_standardisation_is_differentiated_through_mean_and_deviation() -> None:
    assert torch.autograd.gradcheck(standardise_weight, _weight(2, 2, 2, 2).requires_grad_())


@pytest.mark.parametrize("tau", [0.6, 0.85, 0.99])
def test_threshold_uses_the_mean_over_the_whole_tensor(tau: float) -> None:
    weight = torch.tensor([[1.0, -3.0], [5.0, -7.0]], dtype=torch.float64).view(2, 2, 1, 1)
    threshold = quantile_threshold(weight, torch.tensor(tau, dtype=torch.float64))
    assert threshold.item() == pytest.approx(-4.0 * math.log(2 - 2 * tau), rel=1e-12)


def test_threshold_is_the_tau_quantile_of_a_laplacian() -> None:
    sample = torch.distributions.Laplace(0.0, 2.0).icdf(torch.linspace(0.0005, 0.9995, 1000).double())
    threshold = quantile_threshold(sample.view(1, -1, 1, 1), torch.tensor(0.9).double())
    assert (sample < threshold).double().mean().item() == pytest.approx(0.9, abs=0.002)


def test_tau_one_clamps_nothing_even_where_all_weights_are_zero() -> None:
    one = torch.tensor(1.0)
    weight = _weight(3, 2, 3, 3) * 100
    assert torch.equal(recu_clamp(weight, one), weight)
    assert torch.equal(recu_clamp(torch.zeros(1, 2, 1, 1), one), torch.zeros(1, 2, 1, 1))


def test_gradient_is_one_inside_and_zero_outside_the_clamp() -> None:
    weight = torch.tensor([0.5, -0.5, 9.0, -9.0]).view(1, 4, 1, 1).requires_grad_()
    clamped = recu_clamp(weight, torch.tensor(0.85))
    clamped.sum().backward()
    threshold = -4.75 * math.log(0.3)
    assert clamped.flatten().tolist() == pytest.approx([0.5, -0.5, threshold, -threshold], rel=1e-6)
    assert weight.grad.flatten().tolist() == [1.0, 1.0, 0.0, 0.0]
