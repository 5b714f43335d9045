"""Convolutions of signs, on arrays of NumPy: four signs a byte, products looked up (`recu.kernels.sign_lookup`).

On a processor that counts bits in vectors, pixels of a multiple of 64 channels are planes of bits instead, in as much
room, and products are counted (`recu.kernels.sign_planes`). Here both are called codes.

The result is the whole number that a convolution of floats gives, for every shape; the sign of zero and of what is not
a number is 0 as in PyTorch. Filters with a zero are refused. Nothing here needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from recu.kernels.aligned import aligned_empty
from recu.kernels.compiled import compiled, fused_multiply_add, in_threads
from recu.kernels.sign_lanes import (
    GATHER,
    LANES,
    compare_to_codes,
    compare_to_planes,
    finish_lanes,
    finish_lanes_with,
    finish_to_codes,
    finish_to_codes_with,
    finish_to_planes,
    finish_to_planes_with,
    pack_codes,
    pack_planes,
)
from recu.kernels.sign_lookup import GROUP, RUN, SIGNS, SPARE_STARTS, ZEROS, count, products
from recu.kernels.sign_planes import BYTES, filters_in_planes, in_planes, signs_of

LARGEST_COUNT = int(np.iinfo(np.int16).max)
"""Weights of a filter at most: results are kept in two bytes."""
_POSITIONS = 128
"""Of a result that are worked on at once, about, so that they stay in the cache."""


class FilterCodes(NamedTuple):
    """Binary weights (O, I, kH, kW), four a number: bit i is 1 where the i-th of them is +1. Or for planes."""

    numbers: np.ndarray
    """uint8 (kH * kW * K, O'): K numbers for the channels of a pixel, O' the next multiple of 16."""
    taps: tuple[int, int]
    """kH and kW."""
    channels: int
    """I."""
    filters: int
    """O."""


class SignCodes(NamedTuple):
    """Signs of images (N, I, H, W), four a code. Or planes."""

    codes: np.ndarray
    """uint8 (N, H + 2 * padding, W + 2 * padding, K)."""
    padding: tuple[int, int]
    """Rows above and below, columns left and right, all of signs 0."""
    channels: int
    """I."""


class Affine(NamedTuple):
    """What becomes of a convolution: convolution * scale * factor + shift, all (O,) and of the type of the result."""

    scale: np.ndarray
    factor: np.ndarray
    """Multiplied and the shift added with one rounding, as PyTorch's BatchNorm does."""
    shift: np.ndarray


def pack_filters(weight: np.ndarray) -> FilterCodes | None:
    """Binary weights (O, I, kH, kW) in numbers of four; None where one of them is zero or not a number."""
    filters, channels, *taps = weight.shape
    depth, wide = _depth(channels), -(-filters // GROUP) * GROUP
    rows = taps[0] * taps[1] * depth
    numbers = aligned_empty(rows * wide, np.uint8).reshape(rows, wide)
    if in_planes(channels):
        if not filters_in_planes(weight, numbers):
            return None
    else:
        if not ((weight > 0) | (weight < 0)).all():
            return None
        bits = np.zeros((*taps, depth * SIGNS, wide), np.uint8)
        bits[:, :, :channels, :filters] = weight.transpose(2, 3, 1, 0) > 0
        numbers[:] = np.packbits(bits.reshape(-1, SIGNS, wide), axis=1, bitorder="little")[:, 0]
    return FilterCodes(numbers, (taps[0], taps[1]), channels, filters)


def pack_images(values: np.ndarray, padding: tuple[int, int], threads: int) -> SignCodes:
    """The signs of images (N, H, W, C), in one piece, as codes."""
    images, height, width, channels = values.shape
    codes = empty_codes(images, (height, width), channels, padding)
    in_threads(_pack_images, threads, images, values, codes, *padding)
    return SignCodes(codes, padding, channels)


def empty_codes(images: int, size: tuple[int, int], channels: int, padding: tuple[int, int]) -> np.ndarray:
    """Room for codes, of which the padding is to be written too: uint8 (N, H + 2 * padding, W + 2 * padding, K)."""
    height, width = (side + 2 * zeros for side, zeros in zip(size, padding, strict=True))
    return np.empty((images, height, width, _depth(channels)), np.uint8)


def unpack_images(images: SignCodes) -> np.ndarray:
    """The signs (N, H, W, C) as int8, without padding."""
    if in_planes(images.channels):
        return signs_of(_inside(images))
    codes = _inside(images)[..., None] // 2 // 3 ** np.arange(SIGNS) % 3
    return codes.astype(np.int8).reshape(*codes.shape[:3], -1)[..., : images.channels] - np.int8(1)


def with_padding(images: SignCodes, padding: tuple[int, int]) -> SignCodes:
    """The same images with another padding, so that layers of different padding can take them."""
    if padding == images.padding:
        return images
    inside, (down, across) = _inside(images), padding
    codes = empty_codes(len(inside), inside.shape[1:3], images.channels, padding)
    codes[:] = 0 if in_planes(images.channels) else ZEROS
    codes[:, down : down + inside.shape[1], across : across + inside.shape[2]] = inside
    return images._replace(codes=codes, padding=padding)


def result_size(images: SignCodes, filters: FilterCodes, stride: tuple[int, int]) -> tuple[int, int]:
    """(H', W') of a convolution."""
    sides = images.codes.shape[1:3]
    height, width = ((side - tap) // step + 1 for side, tap, step in zip(sides, filters.taps, stride, strict=True))
    return height, width


def convolve(
    images: SignCodes, filters: FilterCodes, stride: tuple[int, int], threads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The convolution of signs, padded as the images are, and what a BatchNorm wants to know of it.

    Returns:
        The convolution, int16 (N, H', W', O); its sum and the sum of its squares over each image's pixels, int64
        (N, O).
    """
    geometry = Geometry.of(images, filters, stride)
    number = len(images.codes)
    counts = np.empty((number, *geometry.size, filters.filters), np.int16)
    sums, squares = (np.empty((number, filters.filters), np.int64) for _ in range(2))
    largest = filters.channels * filters.taps[0] * filters.taps[1]
    in_threads(_convolve, threads, number, images.codes, filters.numbers, geometry, largest, counts, sums, squares)
    return counts, sums, squares


def convolve_to_values(
    images: SignCodes,
    filters: FilterCodes,
    stride: tuple[int, int],
    affine: Affine,
    threads: int,
    *,
    residual: np.ndarray | None = None,
    hardtanh: bool = False,
    in_place: bool = False,
) -> np.ndarray:
    """hardtanh(affine(convolution) + residual), each part finished while it is in the cache.

    Args:
        images: signs of images.
        filters: binary weights.
        stride: of the convolution.
        affine: scale and BatchNorm.
        threads: at most.
        residual: (N, H', W', O) in one piece, or None for none.
        hardtanh: whether the result is clipped to [-1, 1].
        in_place: whether the result may take the residual's memory.

    Returns:
        (N, H', W', O), of the type of the scale.
    """
    geometry = Geometry.of(images, filters, stride)
    shape = (len(images.codes), *geometry.size, filters.filters)
    out = residual if in_place and residual is not None else np.empty(shape, affine.scale.dtype)
    tiled = Affine(*(np.tile(values, geometry.size[1]) for values in affine))
    added, bound = (out if residual is None else residual), out.dtype.type(1.0 if hardtanh else np.inf)
    operands = (images.codes, filters.numbers, geometry, tiled, added, residual is not None, bound)
    in_threads(_convolve_to_values, threads, shape[0], *operands, out)
    return out


def convolve_to_signs(
    images: SignCodes,
    filters: FilterCodes,
    stride: tuple[int, int],
    direction: np.ndarray,
    threshold: np.ndarray,
    threads: int,
) -> SignCodes:
    """The signs +1 where convolution * direction > threshold, both int32 (O,), and else -1; without padding."""
    geometry = Geometry.of(images, filters, stride)
    codes = empty_codes(len(images.codes), geometry.size, filters.filters, (0, 0))
    tiled = (np.tile(values, geometry.size[1]) for values in bounds_of(direction, threshold))
    operands = (images.codes, filters.numbers, geometry, *tiled, filters.filters)
    in_threads(_convolve_to_signs, threads, len(codes), *operands, codes)
    return SignCodes(codes, (0, 0), filters.filters)


def normalise(
    values: np.ndarray,
    factor: np.ndarray,
    shift: np.ndarray,
    threads: int,
    *,
    hardtanh: bool = False,
) -> None:
    """Write hardtanh(values * factor + shift), a BatchNorm, over values (N, H, W, C) in one piece.

    Args:
        values: overwritten.
        factor: (C,), of the type of the values.
        shift: likewise.
        threads: at most.
        hardtanh: whether the result is clipped to [-1, 1].
    """
    tiled = (np.tile(each, values.shape[2]) for each in (factor, shift))
    bound = values.dtype.type(1.0 if hardtanh else np.inf)
    in_threads(_normalise, threads, len(values), values, *tiled, bound)


def bounds_of(direction: np.ndarray, threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as int16: a threshold beyond what a sum reaches is none or all, as it was."""
    limits = np.iinfo(np.int16)
    return direction.astype(np.int16), np.clip(threshold, limits.min, limits.max).astype(np.int16)


class Geometry(NamedTuple):
    """Where filters lie on the codes of an image; the rows of a result are worked on some at a time."""

    starts: np.ndarray
    """Where the patches of so many rows begin, from that of the first, int64 (rows * W',)."""
    offsets: np.ndarray
    """Where the codes of a patch lie, int64 (kH * kW * K,)."""
    run: int
    """How many of these lie one behind the other, at least; `sign_planes.BYTES` where they are planes."""
    rows: int
    row_step: int
    """Codes from a row of the result to the next."""
    size: tuple[int, int]
    """(H', W')."""
    table: np.ndarray
    """Of products, flat."""

    @classmethod
    def of(cls, images: SignCodes, filters: FilterCodes, stride: tuple[int, int]) -> Geometry:
        """Of a convolution of these."""
        depth = images.codes.shape[3]
        run = BYTES if in_planes(images.channels) else RUN if depth % RUN == 0 else 1
        size = result_size(images, filters, stride)
        return _geometry(images.codes.shape[2], depth, run, filters.taps, tuple(stride), size)


@cache
def _geometry(
    width: int, depth: int, run: int, taps: tuple[int, int], stride: tuple[int, int], size: tuple[int, int]
) -> Geometry:
    rows = _rows_at_once(*size)
    starts = _grid((rows, size[1]), (stride[0] * width * depth, stride[1] * depth))
    offsets = _grid((*taps, depth), (width * depth, depth, 1))
    for array in (starts, offsets):
        array.setflags(write=False)
    return Geometry(starts, offsets, run, rows, stride[0] * width * depth, size, products().reshape(-1))


def _rows_at_once(height: int, width: int) -> int:
    """As many as make about `_POSITIONS`, all parts of a result about alike."""
    parts = -(-height // max(1, _POSITIONS // width))
    return -(-height // parts)


def _grid(counts: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    """Places of a grid in memory, the last axis fastest."""
    axes = np.ix_(*(np.arange(number) * step for number, step in zip(counts, steps, strict=True)))
    return sum(axes, np.zeros((), np.int64)).reshape(-1)


def _inside(images: SignCodes) -> np.ndarray:
    (down, across), (height, width) = images.padding, images.codes.shape[1:3]
    return images.codes[:, down : height - down, across : width - across]


def _depth(channels: int) -> int:
    return -(-channels // SIGNS)


@compiled
def _write_padding(codes, channels, down, across, first, last):
    """The zeros around rows of one image's codes (H + 2 * down, W + 2 * across, K), above the first and below all."""
    (height, width, _), zeros = codes.shape, 0 if in_planes(channels) else ZEROS
    if first == 0:
        codes[:down] = zeros
    if last == height - 2 * down:
        codes[height - down :] = zeros
    for y in range(down + first, down + last):
        codes[y, :across] = zeros
        codes[y, width - across :] = zeros


@compiled
def _pack_row(values, channels, signs, codes):
    """Write the codes (W * K,) of a row of pixels (W * C,); `signs` is room, (W * K * 4,), 1 beyond the channels."""
    if in_planes(channels):
        for i in range(0, len(values), LANES):
            pack_planes(values, i, codes)
        return
    if len(codes) * SIGNS == len(values) and len(values) % LANES == 0:
        for i in range(0, len(values), LANES):
            pack_codes(values, i, codes)
        return
    pixels = len(values) // channels
    wide = len(signs) // pixels
    for x in range(pixels):
        for c in range(channels):
            value = values[x * channels + c]
            signs[x * wide + c] = 1 + (value > 0) - (value < 0)
    _gather(signs, codes)


@compiled
def _gather(signs, codes):
    """Four signs plus 1, a byte each, to a code."""
    fours = signs.view(np.uint32)
    for i in range(len(codes)):
        codes[i] = (fours[i] * np.uint32(GATHER)) >> np.uint32(24)


@compiled
def pack_image(values, signs, codes, down, across, first, last):
    """Rows of one image's `pack_images`: values (H, W, C); signs: room, W * K * 4 bytes 1; codes: with the padding."""
    _write_padding(codes, values.shape[2], down, across, first, last)
    for y in range(first, last):
        inside = codes[down + y, across : across + values.shape[1]].reshape(-1)
        _pack_row(values[y].reshape(-1), values.shape[2], signs, inside)


@compiled
def normalise_image(values, factor, shift, bound):
    """One image's `normalise`: factor and shift of a row of pixels."""
    for y in range(len(values)):
        row = values[y].reshape(-1)
        for i in range(len(row)):
            # In this form what is not a number stays so.
            value = fused_multiply_add(row[i], factor[i], shift[i])
            value = -bound if value < -bound else value
            row[i] = bound if value > bound else value


@compiled
def _pack_images(first, stop, values, codes, down, across):
    signs = np.ones(values.shape[2] * codes.shape[3] * SIGNS, np.uint8)
    for image in range(first, stop):
        pack_image(values[image], signs, codes[image], down, across, 0, values.shape[1])


@compiled
def _normalise(first, stop, values, factor, shift, bound):
    for image in range(first, stop):
        normalise_image(values[image], factor, shift, bound)


@compiled
def _count_rows(place, top, rows, codes, numbers, geometry, sums):
    """Sums (rows * W' + SPARE_STARTS, O') of rows from `top` on of an image whose codes begin at `place`."""
    positions = rows * geometry.size[1]
    # A block may reach beyond the last patch: over that one again, not over those of rows that an image may not have.
    starts = np.empty(positions + SPARE_STARTS, np.int64)
    starts[:positions] = geometry.starts[:positions]
    starts[positions:] = geometry.starts[positions - 1]
    count(
        codes,
        place + top * geometry.row_step,
        starts,
        positions,
        geometry.offsets,
        geometry.run,
        numbers,
        geometry.table,
        sums,
    )


@compiled
def _row_of(sums, row, width, dense):
    """The sums of a row of pixels in one piece, (W' * O,); `dense` is room for it where O is no multiple of 16."""
    whole = sums[row * width : (row + 1) * width]
    if len(dense) == whole.size:
        return whole.reshape(-1)
    filters = len(dense) // width
    for x in range(width):
        for o in range(filters):
            dense[x * filters + o] = whole[x, o]
    return dense


@compiled
def _sum_image(counts, largest, total, squares):
    """Write sum and sum of squares of one image's convolution (H', W', O) over its pixels, int64 (O,)."""
    height, width, out_channels = counts.shape
    values, length = counts.reshape(-1), width * out_channels
    row_total, row_squares = np.empty((width, out_channels), np.int32), np.empty((width, out_channels), np.int32)
    totals, all_squares = row_total.reshape(-1), row_squares.reshape(-1)
    # As many rows as four bytes hold the sum of for sure: sums of eight take twice as long.
    step = (2**31 - 1) // (largest * largest)
    total[:] = 0
    squares[:] = 0
    for first in range(0, height, step):
        totals[:] = 0
        all_squares[:] = 0
        for y in range(first, min(first + step, height)):
            row = values[y * length : (y + 1) * length]
            for i in range(length):
                value = np.int32(row[i])
                totals[i] += value
                all_squares[i] += value * value
        for x in range(width):
            for o in range(out_channels):
                total[o] += row_total[x, o]
                squares[o] += row_squares[x, o]


@compiled
def _convolve(first, stop, codes, numbers, geometry, largest, counts, sums, squares):
    _, height, width, filters = counts.shape
    room, dense = (
        np.empty((len(geometry.starts) + SPARE_STARTS, numbers.shape[1]), np.int16),
        np.empty(width * filters, np.int16),
    )
    for image in range(first, stop):
        for y in range(0, height, geometry.rows):
            # The last rows are done together with some before them, so that there are always as many.
            top = min(y, height - geometry.rows)
            _count_rows(image * codes[0].size, top, geometry.rows, codes.reshape(-1), numbers, geometry, room)
            for row in range(y - top, geometry.rows):
                found, result = _row_of(room, row, width, dense), counts[image, top + row].reshape(-1)
                for i in range(len(result)):
                    result[i] = found[i]
        _sum_image(counts[image], largest, sums[image], squares[image])


@compiled
def _finish_row(counts, filters, scale, factor, shift, added, adds, bound, out, signs, codes):
    """Write a row of values (W * O,), which may lie where `added` does, and its codes, or none if there is no room."""
    done = 0
    if len(codes) == 0:
        done = len(out) - len(out) % LANES
        if adds:
            for i in range(0, done, LANES):
                finish_lanes_with(counts, scale, factor, shift, added, bound, i, out, codes)
        else:
            for i in range(0, done, LANES):
                finish_lanes(counts, scale, factor, shift, added, bound, i, out, codes)
    elif in_planes(filters):
        done = len(out)
        if adds:
            for i in range(0, done, LANES):
                finish_to_planes_with(counts, scale, factor, shift, added, bound, i, out, codes)
        else:
            for i in range(0, done, LANES):
                finish_to_planes(counts, scale, factor, shift, added, bound, i, out, codes)
    elif len(codes) * SIGNS == len(out) and len(out) % LANES == 0:
        done = len(out)
        if adds:
            for i in range(0, done, LANES):
                finish_to_codes_with(counts, scale, factor, shift, added, bound, i, out, codes)
        else:
            for i in range(0, done, LANES):
                finish_to_codes(counts, scale, factor, shift, added, bound, i, out, codes)
    if done == len(out):
        return
    for i in range(done, len(out)):
        value = fused_multiply_add(out.dtype.type(counts[i]) * scale[i], factor[i], shift[i])
        value = value + added[i] if adds else value
        # In this form what is not a number stays so.
        value = -bound if value < -bound else value
        out[i] = bound if value > bound else value
    if len(codes):
        _pack_row(out, filters, signs, codes)


@compiled
def rooms(geometry, numbers, filters, depth):
    """What the next two functions need: room for sums, for those of a row in one piece, and for its signs."""
    width = geometry.size[1]
    sums, dense = (
        np.empty((len(geometry.starts) + SPARE_STARTS, numbers.shape[1]), np.int16),
        np.empty(width * filters, np.int16),
    )
    return sums, dense, np.ones(width * depth * SIGNS, np.uint8)


@compiled
def image_to_values(
    place, codes, numbers, geometry, affine, added, adds, bound, out, out_codes, down, across, room, first, last
):
    """Rows of one image's `convolve_to_values`, from the first to before the last.

    codes: flat, the image's begin at `place`; affine: scale, factor and shift of a row of pixels, (W' * O,); added and
    out: (H', W', O); out_codes: (H' + 2 * down, W' + 2 * across, K), or (0, 0, 0) for none; room: of `rooms`.
    """
    width, (scale, factor, shift), (sums, dense, signs) = geometry.size[1], affine, room
    filters, rows = out.shape[2], min(geometry.rows, last - first)
    if len(out_codes):
        _write_padding(out_codes, filters, down, across, first, last)
    for y in range(first, last, rows):
        # The last rows are done together with some before them, so that there are always as many.
        top = min(y, last - rows)
        _count_rows(place, top, rows, codes, numbers, geometry, sums)
        for row in range(y - top, rows):
            counts, result = _row_of(sums, row, width, dense), out[top + row].reshape(-1)
            inside = signs[:0]
            if len(out_codes):
                inside = out_codes[down + top + row, across : across + width].reshape(-1)
            more = added[top + row].reshape(-1)
            _finish_row(counts, filters, scale, factor, shift, more, adds, bound, result, signs, inside)


@compiled
def image_to_signs(
    place, codes, numbers, geometry, direction, threshold, filters, out_codes, down, across, room, first, last
):
    """Rows of one image's `convolve_to_signs`; as `image_to_values`, direction and threshold int16 (W' * O,)."""
    width, (sums, dense, signs) = geometry.size[1], room
    wide, rows = out_codes.shape[2] * SIGNS, min(geometry.rows, last - first)
    _write_padding(out_codes, filters, down, across, first, last)
    for y in range(first, last, rows):
        top = min(y, last - rows)
        _count_rows(place, top, rows, codes, numbers, geometry, sums)
        for row in range(y - top, rows):
            counts = _row_of(sums, row, width, dense)
            inside = out_codes[down + top + row, across : across + width].reshape(-1)
            if in_planes(filters):
                for i in range(0, len(counts), LANES):
                    compare_to_planes(counts, direction, threshold, i, inside)
            elif wide == filters and len(counts) % LANES == 0:
                for i in range(0, len(counts), LANES):
                    compare_to_codes(counts, direction, threshold, i, inside)
            else:
                for i in range(len(counts)):
                    above = np.int32(counts[i]) * direction[i] > threshold[i]
                    signs[i // filters * wide + i % filters] = 2 * above
                _gather(signs, inside)


@compiled
def _convolve_to_values(first, stop, codes, numbers, geometry, affine, added, adds, bound, out):
    room, flat, size = rooms(geometry, numbers, out.shape[3], 0), codes.reshape(-1), codes[0].size
    none, height = np.empty((0, 0, 0), np.uint8), out.shape[1]
    for image in range(first, stop):
        more, result, place = added[image], out[image], image * size
        image_to_values(place, flat, numbers, geometry, affine, more, adds, bound, result, none, 0, 0, room, 0, height)


@compiled
def _convolve_to_signs(first, stop, codes, numbers, geometry, direction, threshold, filters, out):
    room, flat, size = rooms(geometry, numbers, filters, out.shape[3]), codes.reshape(-1), codes[0].size
    for image in range(first, stop):
        signs, place = out[image], image * size
        image_to_signs(
            place, flat, numbers, geometry, direction, threshold, filters, signs, 0, 0, room, 0, out.shape[1]
        )
