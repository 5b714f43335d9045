"""The rectified clamp unit: weight standardisation, the quantile Q(tau) and the clamp (ReCU, ICCV 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# The standard deviation of a Laplacian distribution with the paper's b* = 2 (ReCU, ICCV 2021).
LAPLACIAN_STD = 2.0 * math.sqrt(2.0)

# Added to the variance, not to the standard deviation, of weights and of activations.
VARIANCE_EPSILON = 1e-5


def standardise_weight(weight: Tensor) -> Tensor:
    """Bring every output filter to mean 0 and standard deviation 2*sqrt(2).

    Args:
        weight: latent weights (O, I, kH, kW); I * kH * kW must be at least 2 for the unbiased variance.

    Returns:
        Standardised weights (O, I, kH, kW), differentiable through the mean and the standard deviation.
    """
    per_filter = (1, 2, 3)
    centred = weight - weight.mean(per_filter, keepdim=True)
    std = torch.sqrt(weight.var(per_filter, keepdim=True) + VARIANCE_EPSILON)
    return centred / std * LAPLACIAN_STD


def quantile_threshold(standardised: Tensor, tau: Tensor) -> Tensor:
    """Q(tau) = -m * ln(2 - 2*tau), the tau quantile of a Laplacian of mean absolute value m.

    m is taken over the WHOLE tensor although standardisation is per filter: this follows the released program
    rather than the paper's text.

    Args:
        standardised: standardised weights (O, I, kH, kW).
        tau: scalar tensor in (0.5, 1]; at 1 the threshold is infinite and nothing is clamped.

    Returns:
        Scalar tensor, a constant for the gradient. It stays on the device: nothing is read back to the host.
    """
    m = standardised.detach().abs().mean()
    threshold = -m * torch.log(2.0 - 2.0 * tau)
    # 0 * infinity is not a number: a tensor of equal weights (m = 0) must not poison the network at tau = 1.
    return torch.where(tau >= 1.0, torch.full_like(threshold, math.inf), threshold)


def recu_clamp(standardised: Tensor, tau: Tensor) -> Tensor:
    """Clamp standardised weights to [-Q(tau), Q(tau)] (ReCU, ICCV 2021).

    Args:
        standardised: standardised weights (O, I, kH, kW).
        tau: scalar tensor in (0.5, 1].

    Returns:
        Clamped weights of the same shape; the gradient is zero where a weight was clamped.
    """
    threshold = quantile_threshold(standardised, tau)
    return torch.clamp(standardised, -threshold, threshold)
