"""Convolutions of signs on bits: a product of two signs is an exclusive or, a sum of products a count of bits.

A filter of n weights and the patch it sees are two rows of n bits, and their product is n - 2 * (bits that differ): the
whole number that a convolution of floats gives, for every shape. Sign 0, which a bit cannot be, needs care:

- outside of the image (padding) the bits are 0, which counts as -1; what that adds is known from the filters alone and
  is taken off again;
- a zero in an image counts as -1 too, and so does what is not a number, whose sign is 0 in PyTorch; where one was found
  the filters are added once more;
- filters with a zero are refused, and left to the library's convolution.

Words of 16, 32 or 64 bits, whichever the channels of a pixel fill best, are compared with those of all filters at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from recu.kernels.compiled import as_images, as_row, as_rows, compiled, compiled_for, fused_multiply_add, over_samples

LARGEST_COUNT = int(np.iinfo(np.int16).max)
"""Weights of a filter at most: results are kept in two bytes."""
_WORDS = (np.uint16, np.uint32, np.uint64)
_LANES = 16
"""Values whose signs are packed at once."""
_LANES_IN_ORDER = sys.byteorder == "little"
"""Whether the first sixteen bits of a word come first in memory."""
_NO_VALUES = np.empty((0, 0, 0, 0), np.float32)


class FilterBits(NamedTuple):
    """Binary weights (O, I, kH, kW) as bits: 1 for +1, 0 for -1."""

    words: np.ndarray
    """(kH, kW * K, O), unsigned; K words for the channels of a pixel."""
    positive: np.ndarray
    """Number of positive weights, int64 (kH, kW, O)."""
    channels: int
    """I."""


class SignBits(NamedTuple):
    """Signs of images (N, I, H, W) as bits: 1 where a value is positive."""

    words: np.ndarray
    """(N, H + 2 * padding, W + 2 * padding, K), unsigned."""
    padding: tuple[int, int]
    """Rows above and below, columns left and right, all of bits 0."""
    values: np.ndarray
    """(N, H, W, I), what the signs are of; empty where no sign is 0."""
    signless: np.ndarray
    """How many values of each image are zero or not a number, int64 (N,)."""


def suits(activation: Tensor, weight: Tensor, padding: Sequence[int] = (0, 0)) -> bool:
    """Whether signs can be convolved as bits; whether a weight is zero, only `pack_filters` knows.

    Where shapes do not fit together they cannot: the library's convolution says so, a loop would not notice.

    Args:
        activation: (N, I, H, W).
        weight: (O, I, kH, kW).
        padding: zeros above and below, left and right.
    """
    return (
        compiled_for(activation, weight)
        and activation.dim() == weight.dim() == 4
        and activation.shape[1] == weight.shape[1]
        and can_filter(activation.shape[2:], weight.shape[2:], padding)
        and weight[0].numel() <= LARGEST_COUNT
    )


def can_filter(sides: Sequence[int], taps: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether filters of `taps` lie inside of images of `sides` with padding around, all (height, width)."""
    return all(zeros >= 0 and side + 2 * zeros >= tap for side, tap, zeros in zip(sides, taps, padding, strict=True))


def pack_filters(binary_weight: Tensor) -> FilterBits | None:
    """Binary weights (O, I, kH, kW), float32 or float64, as bits; None where one of them is zero or not a number."""
    signs = binary_weight.detach().permute(2, 3, 1, 0).contiguous().numpy()
    height, width, channels, out_channels = signs.shape
    word = _word(channels)
    words = np.zeros((height, width, -(-channels // _bits(word)), out_channels), word)
    positive = np.zeros((height, width, out_channels), np.int64)
    if _pack_filters(signs, words, positive):
        return None
    return FilterBits(words.reshape(height, -1, out_channels), positive, channels)


def pack_images(activation: Tensor, padding: tuple[int, int]) -> SignBits:
    """The signs of images (N, I, H, W), float32 or float64, as bits."""
    values = as_rows(activation)
    count, height, width, channels = values.shape
    word = _word(channels)
    down, across = padding
    words = np.empty((count, height + 2 * down, width + 2 * across, -(-channels // _bits(word))), word)
    signless = np.empty(count, np.int64)
    over_samples(_pack_images, count, values, words, down, across, signless)
    return SignBits(words, padding, values, signless)


def unpack_images(images: SignBits, channels: int, dtype: torch.dtype) -> Tensor:
    """Images without a sign 0 as a tensor (N, C, H, W) of 1 and -1."""
    (down, across), (height, width) = images.padding, images.words.shape[1:3]
    inside = np.ascontiguousarray(images.words[:, down : height - down, across : width - across])
    little_endian = inside.astype(inside.dtype.newbyteorder("<"), copy=False).view(np.uint8)
    bits = np.unpackbits(little_endian, axis=-1, count=channels, bitorder="little")
    return as_images(bits).to(dtype).mul_(2).sub_(1)


def with_padding(images: SignBits, padding: tuple[int, int]) -> SignBits:
    """The same images with another padding, so that layers of different padding can take them."""
    if padding == images.padding:
        return images
    (old_down, old_across), (down, across) = images.padding, padding
    count, height, width, depth = images.words.shape
    height, width = height - 2 * old_down, width - 2 * old_across
    words = np.zeros((count, height + 2 * down, width + 2 * across, depth), images.words.dtype)
    inside = images.words[:, old_down : old_down + height, old_across : old_across + width]
    words[:, down : down + height, across : across + width] = inside
    return images._replace(words=words, padding=padding)


def result_shape(images: SignBits, filters: FilterBits, stride: tuple[int, int]) -> tuple[int, int, int, int]:
    """(N, O, H', W') of a convolution."""
    count, *sides, _ = images.words.shape
    taps = filters.positive.shape[:2]
    height, width = ((side - tap) // step + 1 for side, tap, step in zip(sides, taps, stride, strict=True))
    return count, filters.positive.shape[2], height, width


def convolve(images: SignBits, filters: FilterBits, stride: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """The convolution of signs, padded as the images are, and what a BatchNorm wants to know of it.

    Args:
        images: of N signs a channel and pixel.
        filters: the binary weights.
        stride: of the convolution.

    Returns:
        The convolution, int16 (N, O, H', W') in channels_last memory format; its sum and the sum of its squares over
        all images and pixels, float64 (O,).
    """
    geometry = _Geometry.of(images, filters, stride)
    count, out_channels = len(images.words), filters.words.shape[-1]
    counts = np.empty((count, *geometry.result_size(out_channels)), np.int16)
    sums, squares = (np.empty((count, out_channels), np.int64) for _ in range(2))
    over_samples(_convolve, count, images, filters.words, geometry, counts, sums, squares)
    return as_images(counts), *(torch.from_numpy(values).sum(0).double() for values in (sums, squares))


def convolve_to_values(
    images: SignBits,
    filters: FilterBits,
    stride: tuple[int, int],
    scale: Tensor,
    *,
    norm: tuple[Tensor, Tensor] | None = None,
    residual: Tensor | None = None,
    hardtanh: bool = False,
    in_place: bool = False,
) -> Tensor:
    """hardtanh(convolution * scale * factor + shift + residual), each image finished while it is in the cache.

    Args:
        images: signs of images.
        filters: binary weights.
        stride: of the convolution.
        scale: (O,).
        norm: factor and shift of a BatchNorm, both (O,), multiplied and added with one rounding as PyTorch does; None
            for no BatchNorm.
        residual: (N, O, H', W') or None for none.
        hardtanh: whether the result is clipped to [-1, 1].
        in_place: whether the result may take the residual's memory, which may be that of what the images are signs of.

    Returns:
        (N, O, H', W') in channels_last memory format, of the type of `scale`.
    """
    geometry = _Geometry.of(images, filters, stride)
    added = None if residual is None else as_rows(residual)
    if added is not None and in_place:
        out = added
    else:
        out = np.empty((len(images.words), *geometry.result_size(len(scale))), scale.numpy().dtype)
    factor, shift = norm or (torch.ones_like(scale), torch.zeros_like(scale))
    per_channel = (as_row(values, out) for values in (scale, factor, shift))
    more, bound = (out if added is None else added), out.dtype.type(1.0 if hardtanh else np.inf)
    operands = (images, filters.words, geometry)
    over_samples(_convolve_to_values, len(out), *operands, *per_channel, more, added is not None, bound, out)
    return as_images(out)


def convolve_to_signs(
    images: SignBits, filters: FilterBits, stride: tuple[int, int], direction: Tensor, threshold: Tensor
) -> SignBits:
    """The bits of convolution * direction > threshold, both int32 (O,); without padding."""
    geometry = _Geometry.of(images, filters, stride)
    count, out_channels = len(images.words), filters.words.shape[-1]
    word = _word(out_channels)
    height, width, _ = geometry.result_size(out_channels)
    words = np.empty((count, height, width, -(-out_channels // _bits(word))), word)
    bounds = (direction.numpy(), threshold.numpy())
    over_samples(_convolve_to_signs, count, images, filters.words, geometry, *bounds, words)
    return SignBits(words, (0, 0), _NO_VALUES, np.zeros(count, np.int64))


class _Geometry(NamedTuple):
    """Where filters lie on images, and what a convolution is from which twice the differing bits are taken."""

    base: np.ndarray
    """int32 (classes, W' * O): the same in all rows whose filters leave the image alike."""
    rows: np.ndarray
    """Class of each row of the result, int64 (H',)."""
    stride: tuple[int, int]
    filter_size: int
    """Weights of a filter, the largest magnitude of a result."""

    @classmethod
    def of(cls, images: SignBits, filters: FilterBits, stride: tuple[int, int]) -> _Geometry:
        (rows_inside, rows), (columns_inside, columns) = (
            _classes(images.words.shape[1 + axis], filters.positive.shape[axis], stride[axis], images.padding[axis])
            for axis in range(2)
        )
        inside = rows_inside[:, None, :, None] & columns_inside[None, :, None, :]
        # Inside of the image a weight gives 1 less twice the difference; outside, where all bits are 0, twice the
        # difference is taken off that was never there: 1 for a positive weight.
        base = inside.sum((2, 3))[..., None] * filters.channels + 2 * np.tensordot(~inside, filters.positive, 2)
        base = base.astype(np.int32)[:, columns].reshape(len(base), -1)
        return cls(base, rows, stride, filters.channels * inside[0, 0].size)

    def result_size(self, out_channels: int) -> tuple[int, int, int]:
        """(H', W', O)."""
        return len(self.rows), self.base.shape[1] // out_channels, out_channels


@cache
def _classes(size: int, taps: int, stride: int, padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one side: which taps of a filter are inside of the image, bool (classes, taps), and each result's class."""
    starts = np.arange(0, size - taps + 1, stride)
    positions = starts[:, None] + np.arange(taps)
    inside = (positions >= padding) & (positions < size - padding)
    classes, of_result = np.unique(inside, axis=0, return_inverse=True)
    of_result = of_result.reshape(-1)
    for array in (classes, of_result):
        array.setflags(write=False)
    return classes, of_result


def _word(channels: int) -> type[np.unsignedinteger]:
    return next((word for word in _WORDS if channels <= _bits(word)), _WORDS[-1])


def _bits(word: type[np.unsignedinteger]) -> int:
    return 8 * np.dtype(word).itemsize


@intrinsic
def _popcount(_context: Any, word: Any) -> Any:
    """Number of bits 1 of an unsigned integer, of its type."""
    return word(word), lambda _target, builder, _signature, arguments: builder.ctpop(arguments[0])


@intrinsic
def _signs_of_lanes(_context: Any, values: Any, first: Any) -> Any:
    """Of values[first : first + 16] as two uint16: which are positive, and which are zero or not a number."""
    result = types.UniTuple(types.uint16, 2)

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = target.make_array(values)(target, builder, arguments[0])
        scalar, integral = target.get_data_type(values.dtype), isinstance(values.dtype, types.Integer)
        vector = ir.VectorType(scalar, _LANES)
        place = builder.gep(array.data, [arguments[1]])
        lanes = builder.load(builder.bitcast(place, vector.as_pointer()), align=values.dtype.bitwidth // 8)
        zero = ir.Constant(vector, [0] * _LANES)
        if integral:
            compared = builder.icmp_signed(">", lanes, zero), builder.icmp_signed("==", lanes, zero)
        else:
            compared = builder.fcmp_ordered(">", lanes, zero), builder.fcmp_unordered("==", lanes, zero)
        bits = [builder.bitcast(lane, ir.IntType(_LANES)) for lane in compared]
        return target.make_tuple(builder, signature.return_type, bits)

    return result(values, first), generate


@compiled
def _pack_filters(signs, words, positive):
    """Returns how many weights are neither 1 nor -1; signs (kH, kW, I, O)."""
    height, width, channels, out_channels = signs.shape
    bits = words.itemsize * 8
    signless = 0
    for tap_down in range(height):
        for tap_across in range(width):
            for channel in range(channels):
                word, place = channel // bits, words.dtype.type(channel % bits)
                for out in range(out_channels):
                    sign = signs[tap_down, tap_across, channel, out]
                    bit = words.dtype.type(sign > 0)
                    words[tap_down, tap_across, word, out] |= bit << place
                    positive[tap_down, tap_across, out] += bit
                    signless += not (sign > 0 or sign < 0)
    return signless


@compiled
def _pack_row(values, words):
    """Pack the signs of values (C,) into words (K,); returns how many values are zero or not a number."""
    bits, channels = words.itemsize * 8, len(values)
    of_word = words.dtype.type
    none = 0
    for k in range(len(words)):
        word, place = of_word(0), 0
        value, last = k * bits, min((k + 1) * bits, channels)
        while value + _LANES <= last:
            positive, signless = _signs_of_lanes(values, value)
            word |= of_word(positive) << of_word(place)
            none += _popcount(signless)
            value, place = value + _LANES, place + _LANES
        while value < last:
            word |= of_word(values[value] > 0) << of_word(place)
            none += not (values[value] > 0 or values[value] < 0)
            value, place = value + 1, place + 1
        words[k] = word
    return none


@compiled
def _pack_images(first, stop, values, words, down, across, signless):
    height, width, channels = values.shape[1:]
    # Then lanes fill words without a gap, and a row of pixels is one row of lanes.
    whole = _LANES_IN_ORDER and channels == words.shape[3] * words.itemsize * 8
    for image in range(first, stop):
        none = 0
        words[image] = 0
        for y in range(height):
            inside = words[image, down + y, across : across + width]
            if whole:
                lanes, row = inside.reshape(-1).view(np.uint16), values[image, y].reshape(-1)
                for i in range(len(lanes)):
                    positive, without = _signs_of_lanes(row, i * _LANES)
                    lanes[i] = positive
                    none += _popcount(without)
            else:
                for x in range(width):
                    none += _pack_row(values[image, y, x], inside[x])
        signless[image] = none


@compiled
def _convolve_image(image, images, filters, geometry, out, differences):
    """Write one image's convolution, int16 (H', W', O); `differences` (W', O) is room, of the words' type."""
    height = len(out)
    taps_down, run, _ = filters.shape
    along = taps_down == run == 3 and geometry.stride[1] == 1
    for y in range(height):
        top = y * geometry.stride[0]
        if along:
            _count_along_row(images.words[image, top : top + 3], filters, differences)
        else:
            _count_by_pixel(images.words[image, top : top + taps_down], filters, geometry.stride[1], differences)
        base, row, difference = geometry.base[geometry.rows[y]], out[y].reshape(-1), differences.reshape(-1)
        for i in range(len(row)):
            row[i] = base[i] - 2 * np.int32(difference[i])
    if images.signless[image]:
        _add_filters_at_zeros(image, images, filters, geometry, out)


@compiled
def _count_by_pixel(words, filters, stride, differences):
    """Bits in which every filter differs from what it sees, pixel by pixel: many filters are compared at once.

    Args:
        words: (kH, W, K), the rows of an image that the filters lie on.
        filters: (kH, kW * K, O).
        stride: between pixels.
        differences: (W', O), to be written.
    """
    run, depth = filters.shape[1], words.shape[2]
    for x in range(len(differences)):
        pixel = differences[x]
        pixel[:] = 0
        for tap in range(len(words)):
            seen = words[tap].reshape(-1)[x * stride * depth :]
            # By threes, so that the counts are loaded and stored less often.
            r = 0
            while r + 3 <= run:
                a0, a1, a2 = seen[r], seen[r + 1], seen[r + 2]
                f0, f1, f2 = filters[tap, r], filters[tap, r + 1], filters[tap, r + 2]
                for o in range(len(pixel)):
                    pixel[o] += _popcount(a0 ^ f0[o]) + _popcount(a1 ^ f1[o]) + _popcount(a2 ^ f2[o])
                r += 3
            while r < run:
                a0, f0 = seen[r], filters[tap, r]
                for o in range(len(pixel)):
                    pixel[o] += _popcount(a0 ^ f0[o])
                r += 1


@compiled
def _count_along_row(words, filters, differences):
    """As `_count_by_pixel` for 3x3 filters of one word a pixel and stride 1: many pixels are compared at once."""
    width, out_channels = differences.shape
    a, b, c = words[0].reshape(-1), words[1].reshape(-1), words[2].reshape(-1)
    counts = np.empty(width, words.dtype)
    for o in range(out_channels):
        a0, a1, a2 = filters[0, 0, o], filters[0, 1, o], filters[0, 2, o]
        b0, b1, b2 = filters[1, 0, o], filters[1, 1, o], filters[1, 2, o]
        c0, c1, c2 = filters[2, 0, o], filters[2, 1, o], filters[2, 2, o]
        for x in range(width):
            counts[x] = (
                _popcount(a[x] ^ a0)
                + _popcount(a[x + 1] ^ a1)
                + _popcount(a[x + 2] ^ a2)
                + _popcount(b[x] ^ b0)
                + _popcount(b[x + 1] ^ b1)
                + _popcount(b[x + 2] ^ b2)
                + _popcount(c[x] ^ c0)
                + _popcount(c[x + 1] ^ c1)
                + _popcount(c[x + 2] ^ c2)
            )
        for x in range(width):
            differences[x, o] = counts[x]


@compiled
def _add_filters_at_zeros(image, images, filters, geometry, out):
    """A zero counted as -1, so each filter that saw one is short of its weight there."""
    height, width, out_channels = out.shape
    taps_down, run, _ = filters.shape
    depth, bits = images.words.shape[3], images.words.itemsize * 8
    taps_across = run // depth
    stride_down, stride_across = geometry.stride
    values = images.values[image]
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            for channel in range(values.shape[2]):
                if not (values[y, x, channel] > 0 or values[y, x, channel] < 0):
                    word, place = channel // bits, channel % bits
                    for tap_down in range(taps_down):
                        row = y + images.padding[0] - tap_down
                        if row % stride_down or not 0 <= row // stride_down < height:
                            continue
                        for tap_across in range(taps_across):
                            column = x + images.padding[1] - tap_across
                            if column % stride_across or not 0 <= column // stride_across < width:
                                continue
                            seen = filters[tap_down, tap_across * depth + word]
                            pixel = out[row // stride_down, column // stride_across]
                            for o in range(out_channels):
                                pixel[o] += 2 * np.int64((seen[o] >> place) & 1) - 1


@compiled
def _sum_image(counts, largest, total, squares):
    """Write sum and sum of squares of one image's convolution (H', W', O) over its pixels, int64 (O,)."""
    height, width, out_channels = counts.shape
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
            row = counts[y].reshape(-1)
            for i in range(len(row)):
                value = np.int32(row[i])
                totals[i] += value
                all_squares[i] += value * value
        for x in range(width):
            for o in range(out_channels):
                total[o] += row_total[x, o]
                squares[o] += row_squares[x, o]


@compiled
def _convolve(first, stop, images, filters, geometry, counts, sums, squares):
    differences = np.empty(counts.shape[2:], filters.dtype)
    for image in range(first, stop):
        _convolve_image(image, images, filters, geometry, counts[image], differences)
        _sum_image(counts[image], geometry.filter_size, sums[image], squares[image])


@compiled
def _convolve_to_values(first, stop, images, filters, geometry, scale, factor, shift, added, adds, bound, out):
    differences = np.empty(out.shape[2:], filters.dtype)
    counts = np.empty(out.shape[1:], np.int16)
    row = np.empty(len(scale), out.dtype)
    for image in range(first, stop):
        _convolve_image(image, images, filters, geometry, counts, differences)
        for y in range(len(counts)):
            count, result, more = counts[y].reshape(-1), out[image, y].reshape(-1), added[image, y].reshape(-1)
            if adds:
                for i in range(len(row)):
                    value = fused_multiply_add(out.dtype.type(count[i]) * scale[i], factor[i], shift[i]) + more[i]
                    # In this form what is not a number stays so.
                    value = -bound if value < -bound else value
                    row[i] = bound if value > bound else value
            else:
                for i in range(len(row)):
                    value = fused_multiply_add(out.dtype.type(count[i]) * scale[i], factor[i], shift[i])
                    value = -bound if value < -bound else value
                    row[i] = bound if value > bound else value
            # Apart, since the result may lie where the residual was.
            for i in range(len(row)):
                result[i] = row[i]


@compiled
def _convolve_to_signs(first, stop, images, filters, geometry, direction, threshold, words):
    height, width, _ = words.shape[1:]
    out_channels = filters.shape[2]
    differences = np.empty((width, out_channels), filters.dtype)
    counts = np.empty((height, width, out_channels), np.int16)
    above = np.empty(out_channels, np.int32)
    for image in range(first, stop):
        _convolve_image(image, images, filters, geometry, counts, differences)
        for y in range(height):
            for x in range(width):
                for o in range(out_channels):
                    above[o] = np.int32(counts[y, x, o]) * direction[o] - threshold[o]
                _pack_row(above, words[image, y, x])
