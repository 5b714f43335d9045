"""The competitor's binary convolution."""

import pytest
import torch

from recu.binarisers.react import scaled_sign
from recu.nn import CompetitorBinaryConv2d


def test_weights_become_their_mean_magnitude_times_their_sign() -> None:
    weight = torch.tensor([[1.0, -3.0], [0.0, 0.5]]).view(2, 2, 1, 1)
    assert scaled_sign(weight).flatten().tolist() == [2.0, -2.0, 0.0, 0.25]


def test_the_gradient_is_clipped_and_not_scaled() -> None:
    weight = torch.tensor([0.2, -1.0, 1.5, -4.0]).view(1, 4, 1, 1).requires_grad_()
    scaled_sign(weight).backward(torch.full((1, 4, 1, 1), 5.0))
    assert weight.grad.flatten().tolist() == [5.0, 5.0, 0.0, 0.0]


def test_latent_weights_start_small_and_positive() -> None:
    weight = CompetitorBinaryConv2d(16, 16, 3).weight
    assert weight.min() >= 0.0
    assert weight.max() < 0.001
    assert weight.mean().item() == pytest.approx(0.0005, rel=0.1)


def test_activations_are_binarised_without_rescaling() -> None:
    layer = CompetitorBinaryConv2d(2, 3, 1)
    activation = torch.tensor([0.25, -3.0]).view(1, 2, 1, 1).requires_grad_()
    layer(activation).sum().backward()
    slope = scaled_sign(layer.weight).sum((0, 2, 3)) * torch.tensor([1.5, 0.0])
    assert torch.allclose(activation.grad.flatten(), slope)
