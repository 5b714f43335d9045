"""Convolutions with real weights: same shapes and same key `weight` as the binary ones they stand in for."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from recu.binarisers.estimators import sign_polynomial
from recu.binarisers.protocol import LayerCost, require_plain_geometry
from recu.binarisers.recu import rescale_per_sample


class RealConv2d(nn.Conv2d):
    """Full-precision convolution without bias (stage 0); key `weight` (O, I, kH, kW).

    Args:
        in_channels: I.
        out_channels: O.
        kernel_size: kH = kW.
        stride: of the convolution.
        padding: zeros on each side.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)

    def layer_cost(self) -> LayerCost:
        """32 bits a weight, and floating-point operations: binary activations alone save none of them."""
        return LayerCost.of_filters(self.weight, binary=False)


class SignActivationConv2d(RealConv2d):
    """Binary activations, real weights, no rescaling of activations (stage 1 of the competitor)."""

    layer_cost = RealConv2d.layer_cost

    def forward(self, activation: Tensor) -> Tensor:
        """Convolve (N, I, H, W) to (N, O, H', W')."""
        require_plain_geometry(self)
        return F.conv2d(sign_polynomial(activation), self.weight, None, self.stride, self.padding)


class RescaledSignActivationConv2d(RealConv2d):
    """Binary activations, rescaled while training, and real weights (stage 1 of the ReCU families)."""

    layer_cost = RealConv2d.layer_cost

    def forward(self, activation: Tensor) -> Tensor:
        """Convolve (N, I, H, W) to (N, O, H', W')."""
        require_plain_geometry(self)
        if self.training:
            activation = rescale_per_sample(activation)
        return F.conv2d(sign_polynomial(activation), self.weight, None, self.stride, self.padding)
