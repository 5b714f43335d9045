"""The binary convolution of the competitor in the comparison table, ReActNet (Bi-Real based)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from recu.binarisers.estimators import sign_polynomial
from recu.binarisers.protocol import LatentWeights, LayerCost, require_plain_geometry
from recu.binarisers.real import RealConv2d


class _ScaledSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return weight.abs().mean((1, 2, 3), keepdim=True) * torch.sign(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        window: Tensor = weight.abs() <= 1.0
        return grad * window


def scaled_sign(weight: Tensor) -> Tensor:
    """mean|w| * sign(w) per output filter; straight-through gradient, zero where |w| > 1.

    mean|w| is a constant for the gradient and does not scale it either.

    Args:
        weight: latent weights (O, I, kH, kW).

    Returns:
        Binary weights of the same shape, one magnitude per output filter.
    """
    binary: Tensor = _ScaledSign.apply(weight)
    return binary


class CompetitorBinaryConv2d(RealConv2d):
    """Binary activations without rescaling, binary weights scaled by mean|w|; key `weight` (O, I, kH, kW).

    Latent weights start uniform in [0, 0.001): step 2 of the recipe loads those of step 1 over them.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        nn.init.uniform_(self.weight, 0.0, 0.001)

    def forward(self, activation: Tensor) -> Tensor:
        """Convolve (N, I, H, W) to (N, O, H', W')."""
        require_plain_geometry(self)
        if not torch.is_grad_enabled():
            # Whole numbers first, which are exact, and then their magnitude.
            magnitude = self.weight.abs().mean((1, 2, 3)).view(-1, 1, 1)
            whole = F.conv2d(torch.sign(activation), torch.sign(self.weight), None, self.stride, self.padding)
            return whole.mul_(magnitude)
        return F.conv2d(sign_polynomial(activation), scaled_sign(self.weight), None, self.stride, self.padding)

    def layer_cost(self) -> LayerCost:
        """One bit a weight and 32 for each filter's mean|w|, which cannot be derived from signs."""
        return LayerCost.of_filters(self.weight, binary=True, derived_values=self.out_channels)

    def latent_weights(self) -> LatentWeights:
        """The weights themselves, bounded where their gradient ends, at 1; mean|w| of each filter."""
        bound = self.weight.new_ones(())
        return LatentWeights(self.weight, self.weight.clamp(-1.0, 1.0), bound, self.weight.abs().mean((1, 2, 3)))
