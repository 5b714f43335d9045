"""ReSTE (Wu et al., "Estimator Meets Equilibrium Perspective: A Rectified Straight Through Estimator for Binary Neural
Networks Training", ICCV 2023).

The gradient of both signs is that of sign(x) |x|^(1/o), the identity at o = 1 and closer to a step as o grows.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recu.binarisers.estimators import sign_with_gradient
from recu.binarisers.protocol import LatentWeights, LayerCost, require_plain_geometry
from recu.binarisers.real import RealConv2d
from recu.experiment.schedules import check_epoch

O_END = 3.0
"""What o approaches at the end of training."""
WINDOW = 1.5
"""t of the paper: beyond it no gradient passes."""
LINEAR = 0.1
"""m of the paper: below it the slope is that of the chord, since the power's is infinite at 0."""


class ReSTEConv2d(RealConv2d):
    """Convolution of sign(activation) with sign(weight), times mean|w| of the whole tensor.

    State: `weight` (O, I, kH, kW), the latent weights; `o` (), a buffer set once an epoch, initially 1.
    """

    o: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.register_buffer("o", torch.tensor(o_at(0, 1)))

    @staticmethod
    def epoch_values(epoch: int, epochs: int) -> dict[str, float]:
        """The buffer's value, see `recu.binarisers.protocol.set_epoch_values`."""
        return {"o": o_at(epoch, epochs)}

    def forward(self, activation: Tensor) -> Tensor:
        """Convolve (N, I, H, W) to (N, O, H', W'); the mean takes part in the gradient of the weights."""
        require_plain_geometry(self)
        binary_weight, binary_activation = (
            sign_with_gradient(x, lambda x: power_gradient(x, self.o)) for x in (self.weight, activation)
        )
        whole = F.conv2d(binary_activation, binary_weight, None, self.stride, self.padding)
        return whole * self.weight.abs().mean()

    def layer_cost(self) -> LayerCost:
        """One bit a weight and 32 for the layer's mean|w|, which cannot be derived from signs."""
        return LayerCost.of_filters(self.weight, binary=True, derived_values=1)

    def latent_weights(self) -> LatentWeights:
        """The weights themselves, bounded where their gradient ends; mean|w| of the layer."""
        bound, scale = self.weight.new_tensor(WINDOW), self.weight.abs().mean().expand(self.out_channels)
        return LatentWeights(self.weight, self.weight.clamp(-WINDOW, WINDOW), bound, scale)


def power_gradient(x: Tensor, o: Tensor) -> Tensor:
    """(1/o) |x|^((1-o)/o), bounded: 0 where |x| > 1.5, and 0.1^(1/o) / 0.1 where |x| <= 0.1 (ReSTE, section 3.3).

    Args:
        x: any shape.
        o: (), at least 1.
    """
    magnitude = x.abs()
    power = magnitude.clamp_min(LINEAR).pow((1.0 - o) / o) / o
    slope = torch.where(magnitude <= LINEAR, LINEAR ** (1.0 / o) / LINEAR, power)
    return torch.where(magnitude > WINDOW, torch.zeros_like(slope), slope)


def o_at(epoch: int, epochs: int) -> float:
    """o(e) = 1 + (1 - cos(pi e / (2 E))) (o_end - 1), o_end = 3: it grows slowly at first (ReSTE's program).

    Args:
        epoch: e, counted from 0.
        epochs: E.

    Raises:
        ConfigError: `epoch` is outside 0..epochs.
    """
    check_epoch(epoch, epochs)
    return 1.0 + (1.0 - math.cos(math.pi * epoch / (2.0 * epochs))) * (O_END - 1.0)
