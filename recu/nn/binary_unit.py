"""A binary convolution with what surrounds it in a network, BatchNorm, residual and hardtanh, as one function.

Layer by layer each of them passes over memory several times, forward and backward, and that takes as long as the
convolutions of a narrow network. Here a few samples at a time go through all of it while they are in the processor's
cache. What a BatchNorm keeps for its gradient is a convolution of signs, whole numbers, which two bytes hold exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from recu.nn import winograd
from recu.nn.binary_conv import (
    BinaryConv2d,
    cache_sized_parts,
    convolution_gradients,
    convolve_signs,
    latent_weight_gradient,
    standardised_weight,
    write_rescaled_sign_gradient,
)

_LARGEST_COUNT = torch.iinfo(torch.int16).max
_CONVOLUTION_VALUES = 1 << 20
"""Of the activations of one convolution: larger than the innermost cache, since a convolution has a cost per call."""


def binary_unit(
    conv: nn.Module, norm: nn.BatchNorm2d, activation: Tensor, residual: Tensor | None = None, *, hardtanh: bool = False
) -> Tensor:
    """hardtanh(norm(conv(activation)) + residual), in one pass where that is possible: ReCU's training on a CPU.

    In one pass neither layer is called, so hooks on them are not either.

    Args:
        conv: any convolution; a `BinaryConv2d` has the fast form.
        norm: the BatchNorm behind it.
        activation: (N, I, H, W).
        residual: (N, O, H', W'), or None for none; it may be the activation itself.
        hardtanh: whether the result is clipped to [-1, 1].

    Returns:
        (N, O, H', W').

    Raises:
        ValueError: a channel has a single value, which no BatchNorm can normalise in training.
    """
    if _has_fast_form(conv, norm, activation):
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
    out = norm(conv(activation))
    if residual is not None:
        out = out + residual
    # In place: neither BatchNorm nor addition needs its result again.
    return F.hardtanh(out, inplace=True) if hardtanh else out


class _Unit(NamedTuple):
    """What the function needs besides tensors."""

    conv: BinaryConv2d
    norm: nn.BatchNorm2d
    adds_activation: bool
    hardtanh: bool


def _has_fast_form(conv: nn.Module, norm: nn.BatchNorm2d, activation: Tensor) -> bool:
    return (
        isinstance(conv, BinaryConv2d)
        and conv.training
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and torch.is_grad_enabled()
        and activation.device.type == "cpu"
        and activation.dtype == conv.weight.dtype == norm.weight.dtype
        and not torch.is_autocast_enabled("cpu")
        and conv.weight[0].numel() <= _LARGEST_COUNT
    )


class _BinaryUnit(torch.autograd.Function):
    """Shapes as `binary_unit`; images are handled as rows of memory, (N * H', W' * O), channel after channel."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
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
        output = _apply(counts, scale, beta.double() - scale * mean, added, activation, unit.hardtanh)
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
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        activation, output, counts, standardised, std, alpha, threshold, gamma, mean, inverse_std = ctx.saved_tensors
        unit: _Unit = ctx.unit
        grad = grad.contiguous(memory_format=torch.channels_last)
        # Behind the hardtanh: the gradient of the BatchNorm's result, and of what was added to it.
        grad_sum, sums, products = _through_hardtanh(grad, output, counts)
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
            torch.sign(standardised) * filter_scale,
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

    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three factors, as long as an image's row."""
        width = self.counts.shape[3]
        return tuple(_row(values, width, self.grad.dtype) for values in (self.factor, self.of_count, self.constant))

    def write(self, part: slice, rows: tuple[Tensor, Tensor, Tensor], out: Tensor) -> None:
        """Write the gradient of some samples into `out` (n, O, H', W')."""
        factor, of_count, constant = rows
        result = _rows(out)
        result.copy_(_rows(self.counts[part]))
        torch.addcmul(constant, result, of_count, out=result)
        result.addcmul_(_rows(self.grad[part]), factor)


def _convolve(activation: Tensor, binary_weight: Tensor, conv: BinaryConv2d) -> tuple[Tensor, Tensor, Tensor]:
    """The convolution of signs, int16 (N, O, H', W'), with its mean and variance (O,) in float64."""
    counts = total = squares = None
    first = 0
    for whole in _whole_numbers(activation, binary_weight, conv):
        if counts is None:
            shape = (len(activation), *whole.shape[1:])
            counts = torch.empty(shape, dtype=torch.int16, memory_format=torch.channels_last)
            total, squares = (torch.zeros(len(_rows(whole)[0]), dtype=torch.float64) for _ in range(2))
        for part in cache_sized_parts(whole):
            rows = _rows(whole[part])
            _rows(counts[first + part.start : first + part.stop]).copy_(rows)
            total += rows.sum(0)
            squares += rows.square_().sum(0)
        first += len(whole)
    size = counts.numel() // counts.shape[1]
    if size < 2:
        raise ValueError(f"BatchNorm needs more than one value per channel in training, got {tuple(counts.shape)}")
    total, squares = _by_channel(total, counts.shape[1]), _by_channel(squares, counts.shape[1])
    mean = total / size
    # Sums of whole numbers are exact up to 2^24; beyond, rounding must not make a variance of zero a negative one.
    return counts, mean, (squares / size - mean.square()).clamp_min_(0.0)


def _whole_numbers(activation: Tensor, binary_weight: Tensor, conv: BinaryConv2d) -> Iterator[Tensor]:
    """The convolution of signs, some samples at a time."""
    if winograd.suits(activation.shape, binary_weight, conv.stride, conv.padding):
        # Goes through the batch in parts of its own.
        yield convolve_signs(activation, binary_weight, conv.stride, conv.padding)
        return
    for part in cache_sized_parts(activation, _CONVOLUTION_VALUES):
        yield convolve_signs(activation[part], binary_weight, conv.stride, conv.padding)


def _apply(counts: Tensor, scale: Tensor, shift: Tensor, added: Tensor | None, like: Tensor, hardtanh: bool) -> Tensor:
    """counts * scale + shift + added, clipped if wanted; of the type of `like`."""
    output = torch.empty(counts.shape, dtype=like.dtype, memory_format=torch.channels_last)
    scale_row, shift_row = (_row(values, counts.shape[3], like.dtype) for values in (scale, shift))
    if added is not None:
        added = added.contiguous(memory_format=torch.channels_last)
    for part in cache_sized_parts(output):
        rows = _rows(output[part])
        rows.copy_(_rows(counts[part]))
        torch.addcmul(shift_row, rows, scale_row, out=rows)
        if added is not None:
            rows.add_(_rows(added[part]))
        if hardtanh:
            rows.clamp_(-1.0, 1.0)
    return output


def _through_hardtanh(grad: Tensor, output: Tensor | None, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient before the hardtanh (the same without one), and its sums (O,) alone and times the counts."""
    passed = grad if output is None else torch.empty_like(grad)
    row_length = len(_rows(counts)[0])
    sums, products = (torch.zeros(row_length, dtype=torch.float64) for _ in range(2))
    for part in cache_sized_parts(grad):
        rows = _rows(passed[part])
        if output is not None:
            torch.ops.aten.hardtanh_backward.grad_input(
                _rows(grad[part]), _rows(output[part]), -1.0, 1.0, grad_input=rows
            )
        sums += rows.sum(0)
        products += _rows(counts[part]).to(grad.dtype).mul_(rows).sum(0)
    channels = counts.shape[1]
    return passed, _by_channel(sums, channels), _by_channel(products, channels)


def _convolution_gradients(
    norm_gradient: _NormGradient, activation: Tensor, scaled_weight: Tensor, unit: _Unit, *, of_activation: bool
) -> tuple[Tensor | None, Tensor]:
    """Of the activation, through the rescaled sign and, where it is added too, directly; and of the binary weight."""
    stride, padding = unit.conv.stride, unit.conv.padding
    # Winograd's form goes through the batch in parts of its own.
    whole = winograd.suits(activation.shape, scaled_weight, stride, padding)
    grad, rows = norm_gradient.grad, norm_gradient.rows()
    parts = [slice(0, len(activation))] if whole else cache_sized_parts(activation, _CONVOLUTION_VALUES)
    result = torch.empty_like(activation) if of_activation else None
    grad_kernel = torch.zeros_like(scaled_weight)
    buffer = torch.empty_like(grad[parts[0]])
    for part in parts:
        samples = activation[part]
        grad_output = buffer[: len(samples)]
        for few in cache_sized_parts(grad_output):
            norm_gradient.write(slice(part.start + few.start, part.start + few.stop), rows, grad_output[few])
        grad_sign, grad_weight = convolution_gradients(
            grad_output, samples, scaled_weight, stride, padding, of_input=of_activation
        )
        grad_kernel += grad_weight
        if of_activation:
            for few in cache_sized_parts(samples):
                write_rescaled_sign_gradient(grad_sign[few], samples[few], result[part][few])
                if unit.adds_activation:
                    _rows(result[part][few]).add_(_rows(grad[part][few]))
    return result, grad_kernel


def _update_running_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, size: int) -> None:
    """As torch's BatchNorm does: exponential averages, of the unbiased variance."""
    norm.num_batches_tracked.add_(1)
    unbiased = variance * (size / (size - 1))
    for running, now in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        running.mul_(1.0 - norm.momentum).add_(now.to(running.dtype), alpha=norm.momentum)


def _rows(images: Tensor) -> Tensor:
    """(n, C, H, W), channels_last, as (n * H, W * C): long rows, over which PyTorch vectorises well."""
    count, channels, height, width = images.shape
    return images.permute(0, 2, 3, 1).view(count * height, width * channels)


def _row(values: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Values of each channel (C,) as a row (W * C,)."""
    return values.to(dtype).repeat(width)


def _by_channel(row: Tensor, channels: int) -> Tensor:
    """Sums over the pixels of a row (W * C,): (C,)."""
    return row.view(-1, channels).sum(0)
