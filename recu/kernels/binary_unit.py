"""A binary convolution with what surrounds it in a network, BatchNorm, residual and hardtanh, as one function.

Layer by layer each of them passes over memory several times, forward and backward, and that takes as long as the
convolutions of a narrow network. Here they are a few loops. What a BatchNorm keeps for its gradient is a convolution of
signs, whole numbers, which two bytes hold exactly.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recu.binarisers.protocol import has_plain_geometry
from recu.binarisers.recu import VARIANCE_EPSILON, BinaryConv2d
from recu.kernels import sign_convolution, sign_gradients, unit_loops, winograd
from recu.kernels.binary_conv import (
    convolution_gradients,
    latent_weight_gradient,
    scales_filters,
    standardised_weight,
)
from recu.kernels.compiled import compiled
from recu.kernels.exact import is_exactly
from recu.kernels.sign_gradients import ONE, SIGNS, input_gradient, number_signs, write_columns
from recu.kernels.tensors import as_images, as_row, as_rows, compiled_for, over_samples
from recu.kernels.unit_loops import norm_gradient_loop, sign_gradient_loop

_CONVOLUTION_VALUES = 1 << 21
"""Of the activations of one gradient of a convolution, so that little memory is taken beside the whole batch's."""


def suits(conv: nn.Module, norm: nn.Module, activation: Tensor, residual: Tensor | None) -> TypeGuard[BinaryConv2d]:
    """Whether `train_unit` takes a convolution and the BatchNorm behind it: these very layers, in training, on a CPU.

    Neither layer is called, so anything on them that would notice or change a call, a subclass or a hook, rules it out.

    Args:
        conv: any convolution.
        norm: the BatchNorm behind it.
        activation: (N, I, H, W).
        residual: (N, O, H', W') or None.
    """
    if not (isinstance(conv, BinaryConv2d) and isinstance(norm, nn.BatchNorm2d) and compiled_for(activation)):
        return False
    return _has_fast_form(conv, norm) and _fits(conv, norm, activation, residual)


def train_unit(
    conv: BinaryConv2d, norm: nn.BatchNorm2d, activation: Tensor, residual: Tensor | None, *, hardtanh: bool
) -> Tensor:
    """hardtanh(norm(conv(activation)) + residual), in one pass; see `recu.nn.binary_unit`.

    Raises:
        ValueError: a channel has a single value, which no BatchNorm can normalise in training; or the residual's shape
            is not the result's.
    """
    return _BinaryUnit.apply(
        activation,
        None if residual is activation else residual,
        conv.weight,
        conv.alpha,
        conv.tau,
        norm.weight,
        norm.bias,
        _Unit(conv, norm, residual is activation, hardtanh),
    )


class _Unit(NamedTuple):
    """What the function needs besides tensors."""

    conv: BinaryConv2d
    norm: nn.BatchNorm2d
    adds_activation: bool
    hardtanh: bool


def _has_fast_form(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether the layers are these very ones, in training."""
    return (
        conv.training
        and norm.training
        and torch.is_grad_enabled()
        and is_exactly(conv, BinaryConv2d)
        and is_exactly(norm, nn.BatchNorm2d)
        and has_plain_geometry(conv)
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.num_batches_tracked is not None
    )


def _fits(conv: BinaryConv2d, norm: nn.BatchNorm2d, activation: Tensor, residual: Tensor | None) -> bool:
    """Whether all tensors are on the CPU, of one type and of shapes that fit together, and there are images at all."""
    found = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    per_channel = [values for values in found if values is not None]
    return (
        activation.numel() > 0  # statistics of no values are PyTorch's matter
        and sign_convolution.suits(activation, conv.weight, conv.padding)
        and scales_filters(conv.alpha, conv.weight)
        and len(per_channel) == len(found)
        and all(values.shape == (len(conv.weight),) for values in per_channel)
        and compiled_for(activation, *per_channel, *(() if residual is None else (residual,)))
    )


class _BinaryUnit(torch.autograd.Function):
    """Shapes as `binary_unit`."""

    @staticmethod
    def forward(
        ctx: Any,
        activation: Tensor,
        residual: Tensor | None,
        weight: Tensor,
        alpha: Tensor,
        tau: Tensor,
        gamma: Tensor,
        beta: Tensor,
        unit: _Unit,
    ) -> Tensor:
        activation = activation.contiguous(memory_format=torch.channels_last)
        standardised, std, threshold = standardised_weight(weight, tau)
        counts, mean, variance = _convolve(activation, torch.sign(standardised), unit.conv)
        filter_alpha = alpha.flatten().double()
        # What the BatchNorm normalises is the convolution times alpha.
        variance = variance * filter_alpha.square()
        _update_running_statistics(unit.norm, mean * filter_alpha, variance, counts.numel() // counts.shape[1])
        inverse_std = torch.rsqrt(variance + unit.norm.eps)
        scale = gamma.double() * inverse_std * filter_alpha
        added = activation if unit.adds_activation else residual
        shift = beta.double() - scale * mean
        output = unit_loops.normalise(counts, scale.to(weight.dtype), shift.to(weight.dtype), added, unit.hardtanh)
        ctx.save_for_backward(
            activation,
            output if unit.hardtanh else None,
            counts,
            standardised,
            std,
            alpha,
            threshold,
            gamma,
            mean,
            inverse_std,
        )
        ctx.unit, ctx.has_residual = unit, residual is not None
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        activation, output, counts, standardised, std, alpha, threshold, gamma, mean, inverse_std = ctx.saved_tensors
        unit: _Unit = ctx.unit
        # Behind the hardtanh: the gradient of the BatchNorm's result, and of what was added to it.
        grad_sum, sums, products = unit_loops.through_hardtanh(grad, output, counts)
        filter_alpha, size = alpha.flatten().double(), counts.numel() // counts.shape[1]
        centred = products - mean * sums
        grad_gamma = inverse_std * filter_alpha * centred
        # A BatchNorm undoes alpha but for its epsilon. Summed over the convolution's values instead, this would be what
        # rounding leaves of large terms that cancel.
        grad_alpha = gamma.double() * unit.norm.eps * inverse_std.pow(3) * centred
        # The gradient of BatchNorm's input is linear in its own gradient and in the counts, with these factors.
        factor = gamma.double() * inverse_std
        of_count = -factor * inverse_std * filter_alpha * grad_gamma / size
        constant = -of_count * mean - factor * sums / size
        filter_scale = alpha.unsqueeze(-1)
        grad_activation, grad_kernel = _convolution_gradients(
            _NormGradient(grad_sum, counts, factor, of_count, constant),
            activation,
            torch.sign(standardised),
            alpha,
            unit,
            of_activation=ctx.needs_input_grad[0],
        )
        return (
            grad_activation,
            grad_sum if ctx.has_residual else None,
            latent_weight_gradient(grad_kernel * filter_scale, standardised, std, threshold),
            grad_alpha.to(alpha.dtype).view_as(alpha),
            None,
            grad_gamma.to(gamma.dtype),
            sums.to(gamma.dtype),
            None,
        )


class _NormGradient(NamedTuple):
    """The gradient of a BatchNorm's input, to be computed part by part."""

    grad: Tensor
    """Of its result, (N, O, H', W')."""
    counts: Tensor
    factor: Tensor
    of_count: Tensor
    constant: Tensor
    """These three (O,), float64."""

    def write(self, part: slice, out: Tensor) -> None:
        """Write the gradient of some samples into `out` (n, O, H', W')."""
        factor, of_count, constant = (values.to(out.dtype) for values in (self.factor, self.of_count, self.constant))
        unit_loops.norm_gradient(self.grad[part], self.counts[part], factor, of_count, constant, out)


def _convolve(activation: Tensor, binary_weight: Tensor, conv: BinaryConv2d) -> tuple[Tensor, Tensor, Tensor]:
    """The convolution of signs, int16 (N, O, H', W'), with its mean and variance (O,) in float64."""
    filters = sign_convolution.pack_filters(binary_weight)
    if filters is None:
        counts, total, squares = _convolve_floats(activation, binary_weight, conv)
    else:
        images = sign_convolution.pack_images(activation, conv.padding)
        counts, total, squares = sign_convolution.convolve(images, filters, conv.stride)
    size = counts.numel() // counts.shape[1]
    if size < 2:
        raise ValueError(f"BatchNorm needs more than one value per channel in training, got {tuple(counts.shape)}")
    mean = total / size
    # Rounding must not make a variance of zero a negative one.
    return counts, mean, (squares / size - mean.square()).clamp_min_(0.0)


def _convolve_floats(activation: Tensor, binary_weight: Tensor, conv: BinaryConv2d) -> tuple[Tensor, Tensor, Tensor]:
    """As `sign_convolution.convolve`, for weights with a zero."""
    whole = F.conv2d(torch.sign(activation), binary_weight, None, conv.stride, conv.padding)
    total, squares = (values.sum((0, 2, 3), dtype=torch.float64) for values in (whole, whole.square()))
    return whole.to(torch.int16, memory_format=torch.channels_last), total, squares


def _convolution_gradients(
    norm_gradient: _NormGradient,
    activation: Tensor,
    binary_weight: Tensor,
    alpha: Tensor,
    unit: _Unit,
    *,
    of_activation: bool,
) -> tuple[Tensor | None, Tensor]:
    """Of the activation, through the rescaled sign and, where it is added too, directly; and of the scaled weight."""
    stride, padding = unit.conv.stride, unit.conv.padding
    if of_activation and sign_gradients.suits(activation, binary_weight, stride, padding):
        packed = sign_gradients.pack_weight(binary_weight, alpha)
        if packed is not None:
            return _looked_up_gradients(norm_gradient, activation, packed, adds_grad=unit.adds_activation)
    grad = norm_gradient.grad
    result = torch.empty_like(activation) if of_activation else None
    grad_kernel = torch.zeros_like(binary_weight)
    # Winograd's form goes through the batch in parts of its own.
    whole = winograd.suits(activation, binary_weight, stride, padding)
    step = len(activation) if whole else max(1, _CONVOLUTION_VALUES // activation[0].numel())
    buffer = torch.empty_like(grad[:step])
    for first in range(0, len(activation), step):
        part = slice(first, min(first + step, len(activation)))
        samples, grad_output = activation[part], buffer[: part.stop - first]
        norm_gradient.write(part, grad_output)
        grad_sign, grad_weight = convolution_gradients(
            grad_output, samples, binary_weight, alpha, stride, padding, of_input=of_activation
        )
        grad_kernel += grad_weight
        if result is not None and grad_sign is not None:
            added = grad[part] if unit.adds_activation else None
            unit_loops.sign_gradient(grad_sign, samples, added, rescale=True, out=result[part])
    return result, grad_kernel


def _looked_up_gradients(
    norm_gradient: _NormGradient, activation: Tensor, weight: sign_gradients.PackedWeight, *, adds_grad: bool
) -> tuple[Tensor, Tensor]:
    """As `_convolution_gradients`, in as few passes over memory as there can be."""
    images, grad, counts = (as_rows(each) for each in (activation, norm_gradient.grad, norm_gradient.counts))
    factors = [
        as_row(values.float(), grad)
        for values in (norm_gradient.factor, norm_gradient.of_count, norm_gradient.constant)
    ]
    result, sums = np.empty_like(images), sign_gradients.WeightSums(grad.shape[3], images.shape[3])
    step = max(1, _CONVOLUTION_VALUES // images[0].size // SIGNS) * SIGNS
    for first in range(0, len(images), step):
        part = slice(first, first + step)
        groups = -(-len(images[part]) // SIGNS)
        numbers, has_zero = np.empty((groups, *images.shape[1:]), np.int32), np.empty(groups, np.bool_)
        columns = np.empty((groups, grad.shape[1], grad.shape[3], grad.shape[2], SIGNS), np.float32)
        over_samples(
            _looked_up_part,
            groups,
            *(grad[part], counts[part], *factors),
            *(*weight, ONE),
            *(images[part], adds_grad, VARIANCE_EPSILON, result[part]),
            *(numbers, has_zero, columns),
        )
        sums.add(columns, images[part], numbers, has_zero)
    return as_images(result), sums.gradient()


@compiled
def _looked_up_part(
    first, stop, grad, counts, factor, of_count, constant, weights, alpha, one, images, adds, epsilon, out, numbers,
    has_zero, columns,
):  # fmt: skip
    """All that can be done with four images while they are in the processor's cache."""
    grad_output = np.empty((4, *grad.shape[1:]), np.float32)
    for group in range(first, stop):
        begin, end = 4 * group, min(4 * group + 4, len(images))
        count = end - begin
        norm_gradient_loop(0, count, grad[begin:end], counts[begin:end], factor, of_count, constant, grad_output)
        input_gradient(0, count, grad_output, weights, alpha, one, out[begin:end])
        sign_gradient_loop(begin, end, out, images, grad, adds, True, epsilon, out)
        number_signs(group, group + 1, images, numbers, has_zero)
        write_columns(grad_output, count, columns[group])


def _update_running_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, size: int) -> None:
    """As torch's BatchNorm does: exponential averages, of the unbiased variance."""
    count, momentum = norm.num_batches_tracked, norm.momentum
    assert count is not None and momentum is not None, "`suits` asks for them"
    count.add_(1)
    unbiased = variance * (size / (size - 1))
    for running, now in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        assert running is not None, "`suits` asks for it"
        running.mul_(1.0 - momentum).add_(now.to(running.dtype), alpha=momentum)
