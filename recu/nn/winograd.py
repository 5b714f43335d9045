"""3x3 convolutions with a quarter of the multiplications: minimal filtering F(4x4, 3x3) on the CPU.

An image is cut into tiles of 4x4 outputs, each seen through 6x6 inputs. Input tiles and kernels are brought into a form
in which a convolution is a product of each of the 36 positions on its own; summed over the channels these are 36 matrix
products, of 36 multiplications for 16 outputs instead of 144 (Lavin and Gray, "Fast algorithms for convolutional neural
networks", CVPR 2016).

All three transforms are scaled to whole numbers here, and the scale is taken back at the end. On signs every product
and every sum of the matrix products is then a whole number below 2^24, which float32 holds exactly, and the rounding
errors of the way out add up to less than half a unit (docs/performance.md has the bound), so that the nearest whole
number is the convolution itself. Gradients are real numbers; theirs carry ordinary rounding errors, about three times
those of a direct convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_OUT = 4
"""Outputs of a tile along a side."""
_IN = 6
"""Inputs of a tile along a side: _OUT + 3 - 1."""

_INPUT_TRANSFORM = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
_KERNEL_TRANSFORM = (
    (1.0, 0.0, 0.0),
    (1.0, 1.0, 1.0),
    (1.0, -1.0, 1.0),
    (1.0, 2.0, 4.0),
    (1.0, -2.0, 4.0),
    (0.0, 0.0, 1.0),
)
_OUTPUT_TRANSFORM = (
    (6.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, -4.0, 4.0, 2.0, -2.0, 0.0),
    (0.0, -4.0, -4.0, 4.0, 4.0, 0.0),
    (0.0, -4.0, 4.0, 8.0, -8.0, 24.0),
)
_SCALE = 24.0 * 24.0
"""What a convolution is multiplied with on its way through the whole-numbered transforms."""

_FEWEST_CHANNELS = 128
"""With fewer, the transforms cost more than the multiplications they save (docs/performance.md)."""
_MOST_CHANNELS = 512
"""Input channels up to which the error of the way out is proved to be below half a unit."""
_TILES = 256
_TILE_VALUES = 1 << 16
"""Tiles worked on at once: enough rows for a matrix product, few enough to stay in the processor's cache."""


def suits(shape: Sequence[int], weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether the functions below can convolve these, and faster than a direct convolution.

    It is a function of shapes, type and device alone, never of a measurement, so that equal trainings give equal bits.

    Args:
        shape: of the activation, (N, I, H, W).
        weight: (O, I, kH, kW).
        stride: of the convolution.
        padding: likewise.
    """
    out_channels, in_channels = weight.shape[:2]
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and tuple(weight.shape[2:]) == (3, 3)
        and tuple(stride) == (1, 1)
        and tuple(padding) == (1, 1)
        and all(side % _OUT == 0 for side in shape[2:])
        and min(in_channels, out_channels) >= _FEWEST_CHANNELS
        and in_channels <= _MOST_CHANNELS
    )


def transform_kernel(weight: Tensor) -> Tensor:
    """Weights (O, I, 3, 3) in the form that the convolution multiplies with: (6, 6, I, O)."""
    transform = _kernel_matrix(weight)
    out_channels, in_channels = weight.shape[:2]
    taps = weight.permute(2, 3, 1, 0).reshape(9, in_channels * out_channels)
    return (transform @ taps).view(_IN, _IN, in_channels, out_channels)


@torch.no_grad()
def convolve_signs(activation: Tensor, kernel: Tensor) -> Tensor:
    """The convolution of sign(activation) with binary weights, stride 1, padding 1: exact whole numbers.

    Args:
        activation: (N, I, H, W) that `suits`; its signs are taken here.
        kernel: `transform_kernel` of weights in {-1, 0, 1}.

    Returns:
        (N, O, H, W) in channels_last memory format.
    """
    images = _channels_last(activation)
    count, height, width, _ = images.shape
    out_channels = kernel.shape[-1]
    (rows_in, rows_out), (columns_in, columns_out) = _side(height, kernel), _side(width, kernel)
    output = images.new_empty(count, height, width, out_channels)
    for part in _parts(count, height * width, kernel):
        tiles = _by_position(_transform(rows_in, columns_in, torch.sign(images[part])))
        product = tiles.new_empty(*tiles.shape[:-1], out_channels)
        for row, column, tile in _products(tiles):
            torch.mm(tiles[:, row, tile, column], kernel[row, column], out=product[:, row, tile, column])
        torch.round(_transform(rows_out, columns_out, _as_images(product, part)).div_(_SCALE), out=output[part])
    return output.permute(0, 3, 1, 2)


@torch.no_grad()
def gradients(grad: Tensor, activation: Tensor, kernel: Tensor, *, of_input: bool) -> tuple[Tensor | None, Tensor]:
    """The gradients of a convolution of sign(activation), stride 1, padding 1.

    Args:
        grad: of the convolution's result, (N, O, H, W).
        activation: (N, I, H, W); its signs are taken here.
        kernel: `transform_kernel` of the weights, which need not be binary.
        of_input: whether the first of the results is wanted.

    Returns:
        The gradient of sign(activation), (N, I, H, W) in channels_last memory format or None, and that of the
        weights, (O, I, 3, 3).
    """
    images, grad_images = _channels_last(activation), _channels_last(grad)
    count, height, width, in_channels = images.shape
    (rows_in, rows_out), (columns_in, columns_out) = _side(height, kernel), _side(width, kernel)
    rows_grad, columns_grad = rows_out.t() / _SCALE, columns_out.t()
    grad_kernel = torch.zeros_like(kernel)
    grad_input = torch.empty_like(images) if of_input else None
    for part in _parts(count, height * width, kernel):
        tiles = _by_position(_transform(rows_in, columns_in, torch.sign(images[part])))
        grad_tiles = _by_position(_transform(rows_grad, columns_grad, grad_images[part]))
        for row, column, tile in _products(tiles):
            inner, outer = tiles[:, row, tile, column], grad_tiles[:, row, tile, column]
            grad_kernel[row, column].addmm_(inner.t(), outer)
            if of_input:
                # The tile has been used: its memory takes the gradient.
                torch.mm(outer, kernel[row, column].t(), out=inner)
        if grad_input is not None:
            grad_input[part] = _transform(rows_in.t(), columns_in.t(), _as_images(tiles, part))
    taps = _kernel_matrix(kernel).t() @ grad_kernel.view(_IN * _IN, -1)
    grad_weight = taps.view(3, 3, in_channels, -1).permute(3, 2, 0, 1)
    return (None if grad_input is None else grad_input.permute(0, 3, 1, 2)), grad_weight


def _channels_last(images: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H, W, C), contiguous."""
    return images.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)


def _kernel_matrix(like: Tensor) -> Tensor:
    """(36, 9): both directions of the kernel's transform at once."""
    transform = like.new_tensor(_KERNEL_TRANSFORM)
    return torch.kron(transform, transform)


def _side(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The transforms of a whole side of `size` pixels: of inputs, (6 T, size), and of products, (size, 6 T)."""
    tiles = size // _OUT
    inputs = like.new_zeros(_IN * tiles, size + 2)
    transform = like.new_tensor(_INPUT_TRANSFORM)
    for tile in range(tiles):
        inputs[_IN * tile : _IN * (tile + 1), _OUT * tile : _OUT * tile + _IN] = transform
    # Without the columns of the padding: what they would be multiplied with is zero.
    return inputs[:, 1:-1].contiguous(), torch.kron(
        torch.eye(tiles, dtype=like.dtype), like.new_tensor(_OUTPUT_TRANSFORM)
    )


def _parts(count: int, pixels: int, kernel: Tensor) -> list[slice]:
    """Ranges of images to be worked on one after another."""
    tiles = max(_TILES, _TILE_VALUES // max(kernel.shape[2:]))
    step = max(1, tiles * _OUT * _OUT // pixels)
    return [slice(first, min(first + step, count)) for first in range(0, count, step)]


def _transform(rows: Tensor, columns: Tensor, images: Tensor) -> Tensor:
    """rows (H', H) and columns (W', W) applied to the sides of images (N, H, W, C): (N, H', W', C)."""
    count, height, width, channels = images.shape
    across = torch.matmul(columns, images.reshape(count * height, width, channels))
    down = torch.matmul(rows, across.view(count, height, -1))
    return down.view(count, rows.shape[0], columns.shape[0], channels)


def _by_position(transformed: Tensor) -> Tensor:
    """(N, 6 T, 6 U, C) as (N T, 6, U, 6, C): rows of tiles, position down, tile across, position across, channel."""
    count, height, width, channels = transformed.shape
    return transformed.view(count * (height // _IN), _IN, width // _IN, _IN, channels)


def _as_images(tiles: Tensor, part: slice) -> Tensor:
    """The inverse of `_by_position`."""
    count = part.stop - part.start
    return tiles.view(count, -1, tiles.shape[2] * _IN, tiles.shape[-1])


def _products(tiles: Tensor) -> list[tuple[int, int, int]]:
    """(position down, position across, tile across) of every matrix product.

    Tiles across are apart because only the other rows of a position lie at equal distances in memory, which is what a
    matrix product can read without a copy.
    """
    return [(row, column, tile) for row in range(_IN) for column in range(_IN) for tile in range(tiles.shape[2])]
