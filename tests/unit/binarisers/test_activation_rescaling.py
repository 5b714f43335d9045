"""Rescaling of each sample by its own standard deviation."""

import pytest
import torch

from recu.binarisers.activation_rescaling import rescale_per_sample


def test_each_sample_is_divided_by_its_own_deviation_and_keeps_its_mean() -> None:
    sample = torch.tensor([1.0, 3.0], dtype=torch.float64).view(1, 2, 1, 1)
    rescaled = rescale_per_sample(torch.cat([sample, 10 * sample]))
    first, second = (1 / (2 + 1e-5) ** 0.5, 10 / (200 + 1e-5) ** 0.5)
    assert rescaled.flatten().tolist() == pytest.approx([first, 3 * first, second, 3 * second], rel=1e-14)


def test_it_is_differentiated_through_the_deviation() -> None:
    activation = torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(rescale_per_sample, activation.requires_grad_())
