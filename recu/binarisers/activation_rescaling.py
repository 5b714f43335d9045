"""Rescaling of activations by their own standard deviation before the sign, in training only."""

from __future__ import annotations

import torch
from torch import Tensor

from recu.binarisers.recu_clamp import VARIANCE_EPSILON


def rescale_per_sample(activation: Tensor) -> Tensor:
    """Divide each sample by its standard deviation, sqrt(unbiased variance + 1e-5).

    The sign does not change, the window of the piecewise polynomial estimator does. The mean is not
    subtracted. The division is differentiated, through the standard deviation too, as in the authors'
    released program.

    Args:
        activation: (N, C, H, W) with C * H * W of at least 2.

    Returns:
        Rescaled activations of the same shape.
    """
    return activation / torch.sqrt(activation.var((1, 2, 3), keepdim=True) + VARIANCE_EPSILON)
