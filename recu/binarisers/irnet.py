"""IR-Net (Qin et al., "Forward and Backward Information Retention for Accurate Binary Neural Networks", CVPR 2020).

Weights are balanced and standardised before their sign is taken; the gradient of both signs is that of k tanh(t x),
which is close to the identity early in training and close to a step late.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recu.binarisers.estimators import sign_with_gradient
from recu.binarisers.protocol import LatentWeights, LayerCost, require_plain_geometry, require_variance
from recu.binarisers.real import RealConv2d
from recu.experiment.schedules import check_epoch

_PER_FILTER = (1, 2, 3)


class IRNetConv2d(RealConv2d):
    """Convolution of sign(activation) with sign(standardised weight), times a power of two per filter.

    State: `weight` (O, I, kH, kW), the latent weights; `t` (), a buffer set once an epoch, initially that of epoch 0.

    Raises:
        ValueError: a filter has a single weight, so that it has no unbiased deviation.
    """

    t: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        require_variance(self.weight)
        self.register_buffer("t", torch.tensor(t_at(0, 1)))

    @staticmethod
    def epoch_values(epoch: int, epochs: int) -> dict[str, float]:
        """The buffer's value, see `recu.binarisers.protocol.set_epoch_values`."""
        return {"t": t_at(epoch, epochs)}

    def forward(self, activation: Tensor) -> Tensor:
        """Convolve (N, I, H, W) to (N, O, H', W')."""
        require_plain_geometry(self)
        weight = balanced_weight(self.weight)
        binary_weight, binary_activation = (
            sign_with_gradient(x, lambda x: tanh_gradient(x, self.t)) for x in (weight, activation)
        )
        whole = F.conv2d(binary_activation, binary_weight, None, self.stride, self.padding)
        return whole * power_of_two_scale(weight).view(-1, 1, 1)

    def layer_cost(self) -> LayerCost:
        """One bit a weight and 32 for each filter's scale, which cannot be derived from signs."""
        return LayerCost.of_filters(self.weight, binary=True, derived_values=self.out_channels)

    def latent_weights(self) -> LatentWeights:
        """Standardised weights, which nothing bounds; the power of two of each filter."""
        weight = balanced_weight(self.weight)
        return LatentWeights(weight, weight, None, power_of_two_scale(weight))


def balanced_weight(weight: Tensor) -> Tensor:
    """(w - mean) / std per output filter, std unbiased and without epsilon (IR-Net, section 3.2).

    Args:
        weight: latent weights (O, I, kH, kW).

    Returns:
        The same shape, differentiable through mean and deviation; NaN in a filter of equal weights.
    """
    return (weight - weight.mean(_PER_FILTER, keepdim=True)) / weight.std(_PER_FILTER, keepdim=True)


def power_of_two_scale(balanced: Tensor) -> Tensor:
    """2^round(log2(mean|w'|)) per filter, (O,): a shift in hardware (IR-Net, section 3.2). Constant for the gradient.

    Args:
        balanced: standardised weights (O, I, kH, kW).
    """
    return torch.exp2(torch.round(torch.log2(balanced.detach().abs().mean(_PER_FILTER))))


def tanh_gradient(x: Tensor, t: Tensor) -> Tensor:
    """k t (1 - tanh(t x)^2), the derivative of k tanh(t x), with k = max(1/t, 1) (IR-Net, section 3.3).

    Args:
        x: any shape.
        t: (), above 0.
    """
    return torch.reciprocal(t).clamp_min(1.0) * t * (1.0 - torch.tanh(t * x).square())


def t_at(epoch: int, epochs: int) -> float:
    """t(e) = 10^(-3 + 4 e / E): from 0.001 to (nearly) 10 (IR-Net, section 3.3).

    Args:
        epoch: e, counted from 0.
        epochs: E.

    Raises:
        ConfigError: `epoch` is outside 0..epochs.
    """
    check_epoch(epoch, epochs)
    return float(10.0 ** (-3.0 + 4.0 * epoch / epochs))
