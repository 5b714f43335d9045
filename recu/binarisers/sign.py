"""Plain sign with a clipped straight-through estimator: the baseline that the methods beside it name.

Straight-through: Hubara et al., "Binarized Neural Networks", NeurIPS 2016. Scale: Rastegari et al., XNOR-Net, ECCV
2016.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from recu.binarisers.estimators import sign_with_gradient
from recu.binarisers.protocol import LatentWeights, LayerCost, require_plain_geometry
from recu.binarisers.real import RealConv2d


class SignConv2d(RealConv2d):
    """Convolution of sign(activation) with sign(weight), times mean|w| of each filter; key `weight` (O, I, kH, kW)."""

    def forward(self, activation: Tensor) -> Tensor:
        """Convolve (N, I, H, W) to (N, O, H', W'); the mean multiplies the gradient and has none of its own."""
        require_plain_geometry(self)
        binary_weight, binary_activation = (sign_with_gradient(x, clipped_gradient) for x in (self.weight, activation))
        whole = F.conv2d(binary_activation, binary_weight, None, self.stride, self.padding)
        return whole * self.weight.detach().abs().mean((1, 2, 3)).view(-1, 1, 1)

    def layer_cost(self) -> LayerCost:
        """One bit a weight and 32 for each filter's mean|w|, which cannot be derived from signs."""
        return LayerCost.of_filters(self.weight, binary=True, derived_values=self.out_channels)

    def latent_weights(self) -> LatentWeights:
        """The weights themselves, bounded where their gradient ends, at 1; mean|w| of each filter."""
        bound = self.weight.new_ones(())
        return LatentWeights(self.weight, self.weight.clamp(-1.0, 1.0), bound, self.weight.abs().mean((1, 2, 3)))


def clipped_gradient(x: Tensor) -> Tensor:
    """1 where |x| <= 1, else 0; any shape."""
    return (x.abs() <= 1.0).to(x.dtype)
