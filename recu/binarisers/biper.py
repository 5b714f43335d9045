"""BiPer (Vargas et al., "BiPer: Binary Neural Networks using a Periodic Function", CVPR 2024), in two stages.

A fork of ReCU's program: activations, rescaling and alpha are ReCU's. Weights are those of a periodic function of the
latent ones, real in stage 1 and its sign in stage 2, which starts from stage 1's weights.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.binarisers.estimators import sign_identity, sign_polynomial
from recu.binarisers.protocol import LatentWeights, LayerCost, require_plain_geometry
from recu.binarisers.real import RealConv2d
from recu.binarisers.recu import rescale_per_sample
from recu.experiment.schedules import check_epoch

FREQUENCY = 20.0
"""f of the paper's commands for stage 1; docs/deviations.md has more of it."""
UNNAMED_FREQUENCY = 30.0
"""f of the authors' program where a command names none, as theirs for stage 2."""


class PeriodicWeightConv2d(RealConv2d):
    """Stage 1: convolution of sign(activation) with sin(f w), times alpha.

    State: `weight` (O, I, kH, kW), the latent weights; `alpha` (O, 1, 1), a learnt scale per output channel, initially
    uniform in [0, 1); `f` (), a buffer, on which the weights depend in evaluation too.
    """

    f: Tensor
    frequency: ClassVar[float] = FREQUENCY

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.alpha = nn.Parameter(torch.rand(out_channels, 1, 1))
        self.register_buffer("f", torch.tensor(self.frequency))

    @classmethod
    def epoch_values(cls, epoch: int, epochs: int) -> dict[str, float]:
        """The buffer's value, the same in all epochs; see `recu.binarisers.protocol.set_epoch_values`."""
        check_epoch(epoch, epochs)
        return {"f": cls.frequency}

    def used_weight(self) -> Tensor:
        """What the activations are convolved with, (O, I, kH, kW)."""
        return periodic(self.weight, self.f)

    def forward(self, activation: Tensor) -> Tensor:
        """Convolve (N, I, H, W) to (N, O, H', W')."""
        require_plain_geometry(self)
        if self.training:
            activation = rescale_per_sample(activation)
        binary_activation = sign_polynomial(activation)
        return F.conv2d(binary_activation, self.used_weight(), None, self.stride, self.padding) * self.alpha

    def layer_cost(self) -> LayerCost:
        """32 bits a weight and a filter's alpha, and floating-point operations: sin(f w) is real."""
        return LayerCost.of_filters(self.weight, binary=False, values=(self.alpha,))


class BiPerConv2d(PeriodicWeightConv2d):
    """Stage 2: convolution of sign(activation) with sign(sin(f w)), times alpha; the state is that of stage 1.

    The gradient goes through the sign as if it were sin(f w): f cos(f w).
    """

    def used_weight(self) -> Tensor:
        """See `PeriodicWeightConv2d`."""
        return sign_identity(periodic(self.weight, self.f))

    def layer_cost(self) -> LayerCost:
        """One bit a weight and 32 a filter's alpha; f and the latent weights are for training alone."""
        return LayerCost.of_filters(self.weight, binary=True, values=(self.alpha,))

    def latent_weights(self) -> LatentWeights:
        """sin(f w), which nothing bounds; alpha."""
        weight = periodic(self.weight, self.f)
        return LatentWeights(weight, weight, None, self.alpha.flatten())


class FasterBiPerConv2d(BiPerConv2d):
    """Stage 2 with the f that the authors' program has where a command names none."""

    frequency = UNNAMED_FREQUENCY
    layer_cost, latent_weights = BiPerConv2d.layer_cost, BiPerConv2d.latent_weights


def periodic(weight: Tensor, f: Tensor) -> Tensor:
    """sin(f w) (BiPer, section 3).

    Args:
        weight: latent weights, any shape.
        f: (), radians a unit of weight.
    """
    return torch.sin(f * weight)
