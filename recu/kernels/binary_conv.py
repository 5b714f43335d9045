"""ReCU's binary convolution as one autograd function with a backward pass written by hand, on any device.

It gives the numbers of `recu.binarisers.recu.BinaryConv2d.forward`, but keeps one tensor of the activation's size where
autograd keeps five, and computes in the forward pass only what its value needs: neither clamping nor rescaling ever
changes a sign.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from recu.binarisers.estimators import polynomial_gradient
from recu.binarisers.recu import LAPLACIAN_STD, VARIANCE_EPSILON, BinaryConv2d, centre_weight, quantile_threshold
from recu.kernels import sign_convolution, sign_gradients, unit_loops, winograd
from recu.kernels.tensors import compiled_for

_PER_FILTER = (1, 2, 3)
_PER_SAMPLE = (1, 2, 3)


def convolve(conv: BinaryConv2d, activation: Tensor) -> Tensor:
    """What a layer that is exactly a `BinaryConv2d` gives: (N, I, H, W) to (N, O, H', W')."""
    if not torch.is_grad_enabled():
        return scaled_convolution(
            activation, torch.sign(centre_weight(conv.weight)), conv.alpha, conv.stride, conv.padding
        )
    return _BinaryConvolution.apply(
        activation, conv.weight, conv.alpha, conv.tau, conv.stride, conv.padding, conv.training
    )


class _BinaryConvolution(torch.autograd.Function):
    """Steps 1 to 6 of the method, for an activation (N, I, H, W) and latent weights (O, I, kH, kW)."""

    @staticmethod
    def forward(
        ctx: Any,
        activation: Tensor,
        weight: Tensor,
        alpha: Tensor,
        tau: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        rescale: bool,
    ) -> Tensor:
        standardised, std, threshold = standardised_weight(weight, tau)
        ctx.save_for_backward(activation, standardised, std, alpha, threshold)
        ctx.stride, ctx.padding, ctx.rescale = stride, padding, rescale
        return scaled_convolution(activation, torch.sign(standardised), alpha, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        activation, standardised, std, alpha, threshold = ctx.saved_tensors
        # With alpha folded into the weight, the result of the convolution before alpha need not be kept:
        # alpha's gradient follows from that of the weight.
        grad_input, grad_kernel = convolution_gradients(
            grad,
            activation,
            torch.sign(standardised),
            alpha,
            ctx.stride,
            ctx.padding,
            of_input=ctx.needs_input_grad[0],
        )
        grad_kernel = grad_kernel.to(standardised.dtype)
        grad_alpha = (grad_kernel * torch.sign(standardised)).sum(_PER_FILTER).view_as(alpha)
        grad_weight = latent_weight_gradient(grad_kernel * alpha.unsqueeze(-1), standardised, std, threshold)
        grad_activation = None
        if grad_input is not None:
            grad_input = grad_input.to(activation.dtype)
            grad_activation = sign_gradient(grad_input, activation, rescale=ctx.rescale)
        return grad_activation, grad_weight, grad_alpha, None, None, None, None


def standardised_weight(weight: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Steps 1 and 2 of the method: what the binary weight is the sign of, and what its gradient needs.

    Args:
        weight: latent weights (O, I, kH, kW).
        tau: ().

    Returns:
        Standardised weights (O, I, kH, kW), not clamped, which no sign depends on; standard deviations of the filters
        (O, 1, 1, 1); Q(tau), ().
    """
    centred = centre_weight(weight)
    # Several times faster on a CPU than torch.var and as exact, since the mean is already taken off.
    variance = centred.square().sum(_PER_FILTER, keepdim=True) / (weight[0].numel() - 1)
    std = torch.sqrt(variance + VARIANCE_EPSILON)
    standardised = centred / std * LAPLACIAN_STD
    return standardised, std, quantile_threshold(standardised, tau)


def scaled_convolution(
    activation: Tensor,
    binary_weight: Tensor,
    alpha: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """The convolution of sign(activation) with binary weights, a whole number, times alpha (O, 1, 1)."""
    if sign_convolution.suits(activation, binary_weight, padding) and scales_filters(alpha, binary_weight):
        filters = sign_convolution.pack_filters(binary_weight)
        if filters is not None:
            images = sign_convolution.pack_images(activation, padding)
            return sign_convolution.convolve_to_values(images, filters, stride, alpha.detach().flatten())
    # alpha comes after the convolution although folding it into the weight would save a pass: sums of signs
    # are exact in fp32 and TF32, and rounded once, above 256, in bf16.
    return F.conv2d(torch.sign(activation), binary_weight, None, stride, padding).mul_(alpha)


def scales_filters(alpha: Tensor, weight: Tensor) -> bool:
    """Whether alpha is (O, 1, 1) and of the type of the weights (O, I, kH, kW), so that loops can take it."""
    return alpha.shape == (len(weight), 1, 1) and compiled_for(alpha, weight)


def convolution_gradients(
    grad: Tensor,
    activation: Tensor,
    binary_weight: Tensor,
    alpha: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    *,
    of_input: bool,
) -> tuple[Tensor | None, Tensor]:
    """Of the convolution of sign(activation) with alpha times the binary weight.

    Args:
        grad: of the result, (N, O, H', W').
        activation: (N, I, H, W).
        binary_weight: (O, I, kH, kW).
        alpha: (O, 1, 1).
        stride: of the convolution.
        padding: likewise.
        of_input: whether the first of the results is wanted.

    Returns:
        The gradient of the sign, (N, I, H, W) or None, and that of the scaled weight.
    """
    # After mixed precision the two may be of different types.
    by_loops = compiled_for(grad, activation)
    if (
        by_loops
        and scales_filters(alpha, binary_weight)
        and sign_gradients.suits(activation, binary_weight, stride, padding)
    ):
        packed = sign_gradients.pack_weight(binary_weight, alpha)
        if packed is not None:
            return sign_gradients.gradients(grad, activation, packed, of_input=of_input)
    scaled_weight = binary_weight * alpha.unsqueeze(-1)
    if by_loops and winograd.suits(activation, scaled_weight, stride, padding):
        return winograd.gradients(grad, activation, scaled_weight, of_input=of_input)
    grad_input, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad,
        torch.sign(activation).to(grad.dtype),
        scaled_weight.to(grad.dtype),
        None,
        stride,
        padding,
        (1, 1),
        False,
        (0, 0),
        1,
        (of_input, True, False),
    )
    return grad_input, grad_weight


def latent_weight_gradient(grad: Tensor, standardised: Tensor, std: Tensor, threshold: Tensor) -> Tensor:
    """From the gradient of the binary weight to that of the latent one: identity, clamp, standardisation.

    With w' = k (w - mean) / std over the n weights of a filter and g the gradient of w' inside the clamp:
    dL/dw = k / std * (g - mean(g) - w' * sum(g w') / (k^2 (n - 1))).

    Args:
        grad: of the binary weight, (O, I, kH, kW).
        standardised: as `standardised_weight` gives it, like the next two.
        std: standard deviations.
        threshold: Q(tau).
    """
    scale, factor = LAPLACIAN_STD / std, 1.0 / (LAPLACIAN_STD**2 * (standardised[0].numel() - 1))
    if compiled_for(grad, standardised, std, threshold):
        return unit_loops.latent_gradient(grad, standardised, threshold, scale, factor)
    grad = grad * (standardised.abs() <= threshold)
    projection = (grad * standardised).sum(_PER_FILTER, keepdim=True) * factor
    grad = grad - grad.mean(_PER_FILTER, keepdim=True)
    return grad.addcmul_(standardised, projection, value=-1.0).mul_(scale)


def sign_gradient(grad: Tensor, activation: Tensor, *, rescale: bool) -> Tensor:
    """The gradient through sign(a / s), s the sample's standard deviation over its n values or, without rescaling, 1.

    With g = grad * max(0, 2 - 2|a / s|) / s: dL/da = g - (a - mean(a)) * sum(g a) / (s^2 (n - 1)); the second
    term is the gradient through s.

    Args:
        grad: of the sign, (N, C, H, W).
        activation: like `grad`.
        rescale: see above.
    """
    if compiled_for(grad, activation):
        result = torch.empty_like(activation, memory_format=torch.channels_last)
        unit_loops.sign_gradient(grad, activation, None, rescale=rescale, out=result)
        return result
    if not rescale:
        return polynomial_gradient(activation).mul_(grad)
    degrees_of_freedom = activation.shape[1:].numel() - 1
    centred = activation - activation.mean(_PER_SAMPLE, keepdim=True)
    variance = centred.square().sum(_PER_SAMPLE, keepdim=True) / degrees_of_freedom
    inverse_variance = torch.reciprocal(variance + VARIANCE_EPSILON)
    g = activation.abs().mul_(-2.0 * inverse_variance).add_(2.0 * inverse_variance.sqrt())
    g.clamp_min_(0.0).mul_(grad)
    through_std = (g * activation).sum(_PER_SAMPLE, keepdim=True) * inverse_variance / degrees_of_freedom
    return g.addcmul_(centred, through_std, value=-1.0)
