"""Gradients of 3x3 convolutions with a quarter of the multiplications: minimal filtering F(4x4, 3x3) on the CPU.

An image is cut into tiles of 4x4 outputs, each seen through 6x6 inputs. Input tiles and kernels are brought into a form
in which a convolution is a product of each of the 36 positions on its own; summed over the channels these are 36 matrix
products, of 36 multiplications for 16 outputs instead of 144 (Lavin and Gray, "Fast algorithms for convolutional neural
networks", CVPR 2016). The gradients are the same steps backwards.

All transforms are scaled to whole numbers here, and the scale is taken back in the middle. In float32 the gradients
carry about three times the rounding errors of those of a direct convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recu.kernels.compiled import compiled
from recu.kernels.row_transforms import Column, row_transform
from recu.kernels.tensors import as_images, as_rows, compiled_for, over_samples

_OUT = 4
"""Outputs of a tile along a side."""
_IN = 6
"""Inputs of a tile along a side: _OUT + 3 - 1."""
_POSITIONS = _IN * _IN

_KERNEL_TRANSFORM = (
    (1.0, 0.0, 0.0),
    (1.0, 1.0, 1.0),
    (1.0, -1.0, 1.0),
    (1.0, 2.0, 4.0),
    (1.0, -2.0, 4.0),
    (0.0, 0.0, 1.0),
)
_SCALE = 24.0 * 24.0
"""What a convolution is multiplied with on its way through the whole-numbered transforms."""

_FEWEST_CHANNELS = 32
"""With fewer, the transforms cost more than the multiplications they save (docs/performance.md)."""
_PART_TILES = 256
"""Tiles worked on at once: enough rows for a matrix product, few enough to stay in the processor's cache."""


def suits(activation: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether `gradients` can take these, and faster than the library does.

    It is a function of shapes, type and device alone, never of a measurement, so that equal trainings give equal bits.

    Args:
        activation: (N, I, H, W).
        weight: (O, I, kH, kW).
        stride: of the convolution.
        padding: likewise.
    """
    return (
        compiled_for(activation, weight)
        and tuple(weight.shape[2:]) == (3, 3)
        and tuple(stride) == (1, 1)
        and tuple(padding) == (1, 1)
        and all(side % _OUT == 0 for side in activation.shape[2:])
        and min(weight.shape[:2]) >= _FEWEST_CHANNELS
    )


@torch.no_grad()
def gradients(grad: Tensor, activation: Tensor, weight: Tensor, *, of_input: bool) -> tuple[Tensor | None, Tensor]:
    """The gradients of a convolution of sign(activation), stride 1, padding 1.

    Args:
        grad: of the convolution's result, (N, O, H, W).
        activation: (N, I, H, W) that `suits`, of the type of `grad`; its signs are taken here.
        weight: (O, I, 3, 3), need not be binary.
        of_input: whether the first of the results is wanted.

    Returns:
        The gradient of sign(activation), (N, I, H, W) in channels_last memory format or None, and that of the
        weights, (O, I, 3, 3).
    """
    images, grad_images = as_rows(activation), as_rows(grad)
    count, height, width, in_channels = images.shape
    out_channels = grad_images.shape[3]
    transform = weight.new_tensor(_KERNEL_TRANSFORM)
    transform = torch.kron(transform, transform)
    kernel = (transform @ weight.permute(2, 3, 0, 1).reshape(9, -1)).view(_POSITIONS, out_channels, in_channels)
    grad_kernel = weight.new_zeros(_POSITIONS, in_channels, out_channels)
    grad_input = np.empty_like(images) if of_input else None

    tiles = (height // _OUT) * (width // _OUT)
    step = max(1, min(count, _PART_TILES // tiles))  # of no image, too
    inner_room, outer_room = (
        weight.new_empty(_POSITIONS * step * tiles * channels) for channels in (in_channels, out_channels)
    )
    for first in range(0, count, step):
        part = min(step, count - first)
        inner = inner_room[: _POSITIONS * part * tiles * in_channels].view(_POSITIONS, part * tiles, in_channels)
        outer = outer_room[: _POSITIONS * part * tiles * out_channels].view(_POSITIONS, part * tiles, out_channels)
        over_samples(_transform_signs, part, images[first : first + part], inner.numpy())
        over_samples(_transform_grad, part, grad_images[first : first + part], 1.0 / _SCALE, outer.numpy())
        grad_kernel.baddbmm_(inner.transpose(1, 2), outer)
        if grad_input is not None:
            # The tiles have been used: their memory takes the gradient.
            torch.bmm(outer, kernel, out=inner)
            over_samples(_transform_back, part, inner.numpy(), grad_input[first : first + part])
    taps = transform.t() @ grad_kernel.view(_POSITIONS, -1)
    grad_weight = taps.view(3, 3, in_channels, out_channels).permute(3, 2, 0, 1)
    return (None if grad_input is None else as_images(grad_input)), grad_weight


@compiled
def _transform_signs(first, stop, images, tiles):
    """The signs of images (n, H, W, C) as tiles (36, n * H / 4 * W / 4, C)."""
    _, height, width, channels = images.shape
    zero, one = images.dtype.type(0), images.dtype.type(1)
    # Rows of an image with a pixel of padding around.
    signs = np.zeros((height + 2, (width + 2) * channels), images.dtype)
    half = np.empty((6, (width + 2) * channels), images.dtype)
    for image in range(first, stop):
        for y in range(height):
            row, sign = images[image, y].reshape(-1), signs[y + 1, channels:]
            for i in range(len(row)):
                sign[i] = (one if row[i] > zero else zero) - (one if row[i] < zero else zero)
        tile = image * (height // 4) * (width // 4)
        for y in range(0, height, 4):
            _six_to_six(signs[y : y + 6], one, half)
            for down in range(6):
                pixels = half[down].reshape(width + 2, channels)
                for x in range(0, width, 4):
                    _six_to_six(pixels[x : x + 6], one, tiles[6 * down : 6 * down + 6, tile + x // 4])
            tile += width // 4


@compiled
def _transform_grad(first, stop, grad, scale, tiles):
    """Gradients (n, H, W, C), times `scale`, as tiles like those of `_transform_signs`."""
    _, height, width, channels = grad.shape
    half = np.empty((6, width * channels), grad.dtype)
    scale, one = grad.dtype.type(scale), grad.dtype.type(1)
    for image in range(first, stop):
        tile = image * (height // 4) * (width // 4)
        rows = grad[image].reshape(height, width * channels)
        for y in range(0, height, 4):
            _four_to_six(rows[y : y + 4], scale, half)
            for down in range(6):
                pixels = half[down].reshape(width, channels)
                for x in range(0, width, 4):
                    _four_to_six(pixels[x : x + 4], one, tiles[6 * down : 6 * down + 6, tile + x // 4])
            tile += width // 4


@compiled
def _transform_back(first, stop, tiles, images):
    """The transpose of what `_transform_signs` does to signs: from tiles to images (n, H, W, C)."""
    _, height, width, channels = images.shape
    sums = np.empty((height + 2, (width + 2) * channels), images.dtype)
    half, one = np.empty((6, (width + 2) * channels), images.dtype), images.dtype.type(1)
    for image in range(first, stop):
        sums[:] = 0
        tile = image * (height // 4) * (width // 4)
        for y in range(0, height, 4):
            half[:] = 0
            for down in range(6):
                pixels = half[down].reshape(width + 2, channels)
                for x in range(0, width, 4):
                    _add_six_from_six(tiles[6 * down : 6 * down + 6, tile + x // 4], one, pixels[x : x + 6])
            _add_six_from_six(half, one, sums[y : y + 6])
            tile += width // 4
        for y in range(height):
            row, inside = images[image, y].reshape(-1), sums[y + 1, channels : (width + 1) * channels]
            for i in range(len(row)):
                row[i] = inside[i]


def _formula_of_six(a0: Column, a1: Column, a2: Column, a3: Column, a4: Column, a5: Column) -> tuple[Column, ...]:
    """The transform of inputs along one side: rows (4 0 -5 0 1 0), (0 -4 -4 1 1 0), (0 4 -4 -1 1 0), ..."""
    even, odd = a4 - 4 * a2, a3 - 4 * a1
    near, far = a4 - a2, 2 * (a3 - a1)
    return 4 * a0 - 5 * a2 + a4, even + odd, even - odd, near + far, near - far, 4 * a1 - 5 * a3 + a5


def _formula_back(*columns: Column) -> tuple[Column, ...]:
    """The transpose of `_formula_of_six`, of six columns, added to six others."""
    b0, b1, b2, b3, b4, b5, a0, a1, a2, a3, a4, a5 = columns
    even, odd = b1 + b2, b1 - b2
    near, far = b3 + b4, 2 * (b3 - b4)
    return (
        a0 + 4 * b0,
        a1 + (4 * (b5 - odd) - far),
        a2 - (5 * b0 + 4 * even + near),
        a3 + (odd + far - 5 * b5),
        a4 + (b0 + even + near),
        a5 + b5,
    )


def _formula_of_four(a0: Column, a1: Column, a2: Column, a3: Column, scale: Column) -> tuple[Column, ...]:
    """The transpose of the transform that ends in outputs, along one side, times a scale."""
    g0, g1, g2, g3 = a0 * scale, a1 * scale, a2 * scale, a3 * scale
    even, odd = -4 * (g0 + g2), -4 * (g1 + g3)
    near, far = g0 + 4 * g2, 2 * g1 + 8 * g3
    return 6 * g0, even + odd, even - odd, near + far, near - far, 24 * g3


_six_to_six = row_transform(_IN, _IN, _formula_of_six)
_add_six_from_six = row_transform(_IN, _IN, _formula_back, adds=True)
_four_to_six = row_transform(_OUT, _IN, _formula_of_four, scales=True)
