"""Sign with a surrogate gradient: straight-through for weights, piecewise polynomial for activations, or any other.

In all of them sign(0) = 0, as in the authors' program; zero padding therefore stays zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


class _SignIdentity(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: FunctionCtx, x: Tensor) -> Tensor:
        return torch.sign(x)

    @staticmethod
    @once_differentiable
    def backward(_ctx: FunctionCtx, grad: Tensor) -> Tensor:
        return grad


class _SignPolynomial(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sign(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * polynomial_gradient(x)


class _SignWithSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return torch.sign(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None


def polynomial_gradient(x: Tensor) -> Tensor:
    """max(0, 2 - 2|x|), the derivative that stands in for that of sign (Bi-Real Net, ECCV 2018).

    Args:
        x: any shape.

    Returns:
        A tensor like `x`, values in [0, 2].
    """
    return (2.0 - 2.0 * x.abs()).clamp_min(0.0)


def sign_identity(x: Tensor) -> Tensor:
    """sign(x) whose gradient is the identity (straight-through estimator); used for weights.

    Args:
        x: any shape.

    Returns:
        A tensor like `x`, values in {-1, 0, 1}.
    """
    binary: Tensor = _SignIdentity.apply(x)
    return binary


def sign_polynomial(x: Tensor) -> Tensor:
    """sign(x) whose gradient is max(0, 2 - 2|x|); used for activations.

    Args:
        x: any shape.

    Returns:
        A tensor like `x`, values in {-1, 0, 1}.
    """
    binary: Tensor = _SignPolynomial.apply(x)
    return binary


def sign_with_gradient(x: Tensor, derivative: Callable[[Tensor], Tensor]) -> Tensor:
    """sign(x) whose gradient is any function of x.

    Args:
        x: any shape.
        derivative: what stands in for the derivative of sign, from x to values of its shape; asked only where a
            gradient may be wanted.

    Returns:
        A tensor like `x`, values in {-1, 0, 1}.
    """
    if not torch.is_grad_enabled():
        return torch.sign(x)
    binary: Tensor = _SignWithSlope.apply(x, derivative(x.detach()))
    return binary
