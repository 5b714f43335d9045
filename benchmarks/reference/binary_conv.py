"""The binary convolution of ReCU as its formulas read; every gradient that can be is autograd's own.

Kept apart from the package on purpose: benchmarks and tests measure recu.nn.BinaryConv2d against it, so it
shares no code with it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SignIdentity(torch.autograd.Function):
    """sign, gradient 1."""

    @staticmethod
    def forward(_ctx, x: Tensor) -> Tensor:
        return torch.sign(x)

    @staticmethod
    def backward(_ctx, grad: Tensor) -> Tensor:
        return grad


class SignPolynomial(torch.autograd.Function):
    """sign, gradient max(0, 2 - 2|x|)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sign(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * torch.clamp(2 - 2 * x.abs(), min=0)


class SignClipped(torch.autograd.Function):
    """sign times a constant, gradient 1 where |w| <= 1."""

    @staticmethod
    def forward(ctx, weight: Tensor, magnitude: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return magnitude * torch.sign(weight)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return grad * (weight.abs() <= 1), None


class ReferenceBinaryConv2d(nn.Conv2d):
    """Latent weights (O, I, kH, kW), scale alpha (O, 1, 1), buffer tau ()."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.alpha = nn.Parameter(torch.rand(out_channels, 1, 1))
        self.register_buffer("tau", torch.tensor(1.0))

    def forward(self, a: Tensor) -> Tensor:
        w = self.weight
        # 1. standardise per filter
        w = w - w.mean(dim=(1, 2, 3), keepdim=True)
        w = w / torch.sqrt(w.var(dim=(1, 2, 3), keepdim=True) + 1e-5) * (2 * math.sqrt(2))
        # 2. clamp to [-Q, Q]
        q = -w.detach().abs().mean() * torch.log(2 - 2 * self.tau)
        w = torch.minimum(torch.maximum(w, -q), q)
        # 3. rescale each sample, in training only
        if self.training:
            a = a / torch.sqrt(a.var(dim=(1, 2, 3), keepdim=True) + 1e-5)
        # 4. and 5. binarise both
        binary_weight = SignIdentity.apply(w)
        binary_activation = SignPolynomial.apply(a)
        # 6. convolve and scale
        return F.conv2d(binary_activation, binary_weight, None, self.stride, self.padding) * self.alpha


class ReferenceStage1Conv2d(nn.Conv2d):
    """Stage 1 of ReCU's networks: rescaled sign activations (steps 3 and 4), real weights."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)

    def forward(self, a: Tensor) -> Tensor:
        if self.training:
            a = a / torch.sqrt(a.var(dim=(1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(SignPolynomial.apply(a), self.weight, None, self.stride, self.padding)


class ReferenceStep1Conv2d(nn.Conv2d):
    """Step 1 of the competitor: sign activations without rescaling, real weights."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)

    def forward(self, a: Tensor) -> Tensor:
        return F.conv2d(SignPolynomial.apply(a), self.weight, None, self.stride, self.padding)


class ReferenceRealConv2d(nn.Conv2d):
    """Stage 0: nothing is binary."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)


class ReferenceCompetitorConv2d(nn.Conv2d):
    """Sign activations without rescaling, weights mean|w| * sign(w)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        nn.init.uniform_(self.weight, 0.0, 0.001)

    def forward(self, a: Tensor) -> Tensor:
        magnitude = self.weight.detach().abs().mean(dim=(1, 2, 3), keepdim=True)
        binary_weight = SignClipped.apply(self.weight, magnitude)
        return F.conv2d(SignPolynomial.apply(a), binary_weight, None, self.stride, self.padding)
