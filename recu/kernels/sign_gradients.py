"""Gradients of 3x3 convolutions of signs with binary weights, looked up sixteen at a time (AVX-512).

In each of the two gradients one factor is a sign: that of the activation is a sum of gradients times binary weights,
that of the weights a sum of gradients times the activations' signs. Four gradients can be added and subtracted in
sixteen ways, whose results fill a register; the signs of four weights, or of a channel in four images, are a number
below 16. So one instruction looks up, for sixteen channels at once, what would take four multiplications and additions
each, and another adds it up.

Sums are taken in float32, as a direct convolution takes them: those of an activation's gradient one after the other,
those of a weight's over part after part of the batch. No result depends on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable
from torch import Tensor

from recu.kernels import vectors
from recu.kernels.compiled import compiled
from recu.kernels.tensors import as_images, as_rows, compiled_for, over_samples

_LANES = 16
"""Channels of the layer's input that are worked on at once, and entries of a table."""
SIGNS = 4
"""In a number that looks up in a table."""
_WORD_NUMBERS = 8
"""Such numbers in 32 bits."""
_TAPS = 9
_PART_PIXELS = 256
"""Positions of four images each, whose products are added up in registers before they are added to the others."""
ONE = np.float32(1)
"""For loops, which must not know it, or no multiplication with it would be left."""
_ZEROS, _OTHER_ZEROS = 0b1010, 0b0101
"""What zeros in four images count as at first, in two rows and the next two in turns (the taps of stride 2 see every
other row): were it the same sign in all images, or in all rows, what is taken back for it would be a large sum where
gradients have a mean, over all images or in each, and leave large rounding errors."""
_NUMBER, _VALUE = ir.VectorType(ir.IntType(32), _LANES), ir.VectorType(ir.FloatType(), _LANES)


class PackedWeight(NamedTuple):
    """Binary weights as what looks up in tables of gradients."""

    numbers: np.ndarray
    """int32 (I / 16, 3, O / 32, 3, 16): of an input, eight numbers of four bits each, 1 for +1."""
    alpha: np.ndarray
    """float32 (O,)."""


def suits(activation: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether gradients can be looked up on this processor; whether a weight is zero, only `pack_weight` knows.

    Strides are 1, or 2 of images whose sides are even.

    Args:
        activation: (N, I, H, W).
        weight: (O, I, kH, kW).
        stride: of the convolution.
        padding: likewise.
    """
    return (
        bool(binding.get_host_cpu_features().get("avx512f"))
        and compiled_for(activation, weight)
        and activation.dtype is torch.float32
        and tuple(weight.shape[2:]) == (3, 3)
        and tuple(padding) == (1, 1)
        and (
            tuple(stride) == (1, 1) or (tuple(stride) == (2, 2) and not any(side % 2 for side in activation.shape[2:]))
        )
        and weight.shape[1] % _LANES == 0
        and weight.shape[0] % SIGNS == 0
        and activation.numel() > 0
    )


def pack_weight(binary_weight: Tensor, alpha: Tensor) -> PackedWeight | None:
    """Binary weights (O, I, 3, 3) and alpha (O, 1, 1); None where a weight is zero or not a number."""
    outputs, inputs = binary_weight.shape[:2]
    rows = binary_weight.detach().permute(0, 2, 3, 1).contiguous().numpy()
    words = np.zeros((-(-outputs // (SIGNS * _WORD_NUMBERS)), 3, 3, inputs), np.int32)
    binary = np.empty(len(words), np.bool_)
    over_samples(_number_weights, len(words), rows, words, binary)
    numbers = words.reshape(-1, 3, 3, inputs // _LANES, _LANES).transpose(3, 1, 0, 2, 4)
    alpha = alpha.detach().flatten()
    return PackedWeight(np.ascontiguousarray(numbers), alpha.numpy()) if binary.all() else None


@torch.no_grad()
def gradients(
    grad: Tensor, activation: Tensor, weight: PackedWeight, *, of_input: bool
) -> tuple[Tensor | None, Tensor]:
    """The gradients of a convolution of sign(activation) with alpha times a binary weight, of padding 1.

    Args:
        grad: of the convolution's result, (N, O, H', W'): H' is H for stride 1 and H / 2 for stride 2.
        activation: (N, I, H, W) that `suits`, of the type of `grad`; its signs are taken here, that of NaN as 0.
        weight: of O outputs and I inputs.
        of_input: whether the first of the results is wanted.

    Returns:
        The gradient of sign(activation), (N, I, H, W) in channels_last memory format or None, and that of alpha times
        the binary weight, (O, I, 3, 3).
    """
    images, grad_images = as_rows(activation), as_rows(grad)
    grad_input = None
    if of_input:
        grad_input = np.empty_like(images)
        over_samples(input_gradient, len(images), grad_images, *weight, ONE, grad_input)
    numbers = np.empty((-(-len(images) // SIGNS), *images.shape[1:]), np.int32)
    has_zero = np.empty(len(numbers), np.bool_)
    over_samples(number_signs, len(numbers), images, numbers, has_zero)
    height, width, outputs = grad_images.shape[1:]
    columns = np.empty((len(numbers), height, outputs, width, SIGNS), np.float32)
    over_samples(_in_columns, len(numbers), grad_images, columns)
    sums = WeightSums(outputs, activation.shape[1])
    sums.add(columns, images, numbers, has_zero)
    return (None if grad_input is None else as_images(grad_input)), sums.gradient()


class WeightSums:
    """The gradient of a weight of `outputs` and `inputs`, summed over part after part of a batch."""

    def __init__(self, outputs: int, inputs: int) -> None:
        self._sums = np.zeros((outputs, inputs // _LANES, _TAPS, _LANES), np.float32)

    def add(self, columns: np.ndarray, images: np.ndarray, numbers: np.ndarray, has_zero: np.ndarray) -> None:
        """Add what some images give.

        Args:
            columns: gradients of the convolution's result as `write_columns` arranges them, (G, H', O, W', 4).
            images: activations, (N, H, W, I), N at most 4 G and more than 4 (G - 1).
            numbers: of them, as `number_signs` gives them, (G, H, W, I).
            has_zero: likewise, (G,).
        """
        _add_up(columns, numbers, self._sums)
        which = np.flatnonzero(has_zero)
        if not len(which):
            return
        # So far a sign of 0 counts as -1 or 1. Twice what it counts too little is the difference of a look-up with the
        # other sign in the place of each zero and one without any, for which there are sixteen more channels.
        zeros = np.empty((len(which), *numbers.shape[1:3], numbers.shape[3] + _LANES), np.int32)
        zeros[:] = np.where(np.arange(zeros.shape[1]) & 2, _OTHER_ZEROS, _ZEROS)[:, None, None]
        for bit in range(SIGNS):
            values = images[np.minimum(SIGNS * which + bit, len(images) - 1)]
            zeros[..., :-_LANES] ^= (~((values > 0) | (values < 0))).astype(np.int32) << bit
        counted = np.zeros((len(self._sums), self._sums.shape[1] + 1, _TAPS, _LANES), np.float32)
        _add_up(columns[which], zeros, counted)
        # What is not finite shows in the loss; NumPy's warnings would say no more.
        with np.errstate(invalid="ignore", over="ignore"):
            self._sums += (counted[:, :-1] - counted[:, -1:]) / 2

    def gradient(self) -> Tensor:
        """(O, I, 3, 3), channels_last."""
        outputs, blocks, _, lanes = self._sums.shape
        gradient = np.empty((outputs, 3, 3, blocks * lanes), np.float32)
        over_samples(_in_filters, outputs, self._sums, gradient)
        return as_images(gradient)


def _add_up(columns: np.ndarray, numbers: np.ndarray, sums: np.ndarray) -> None:
    """Add gradients (G, H', O, W', 4) times signs (G, H, W, I) to sums (O, I / 16, 9, 16)."""
    part = max(1, _PART_PIXELS // (columns.shape[1] * columns.shape[3]))
    over_samples(_add_up_signs, len(sums), columns, numbers, part, ONE, sums)


def _writing(_context: Any, tables: Any, place: Any, step: Any, values: Any, first: Any, count: Any) -> Any:
    """Write `count` tables, `step` numbers apart, of four values each, which lie one behind the other."""
    signature = types.void(tables, place, step, values, first, count)

    def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        tables, place, step, values, first, count = vectors.arrays_of(target, builder, signature, arguments)
        signs = [
            ir.Constant(_VALUE, [1.0 if number >> bit & 1 else -1.0 for number in range(_LANES)])
            for bit in range(SIGNS)
        ]
        with _times(builder, count) as index:
            begin = builder.add(first, builder.mul(index, vectors.WORD(SIGNS)))
            terms = []
            for bit, sign in enumerate(signs):
                value = builder.load(builder.gep(values.data, [builder.add(begin, vectors.WORD(bit))]))
                terms.append(builder.fmul(vectors.in_all_lanes(builder, value, _VALUE), sign))
            table = builder.fadd(builder.fadd(terms[0], terms[1]), builder.fadd(terms[2], terms[3]))
            vectors.store(builder, table, tables, builder.add(place, builder.mul(index, step)))
        return target.get_dummy_value()

    return signature, generate


_write_tables: Any = intrinsic(_writing)


class _Sums:
    """Sums of a block, which stay in registers while they are added to.

    Additions and multiplications are made by different parts of a processor. So every other sum is added by a fused
    multiplication with 1, which gives the same bits.
    """

    def __init__(self, builder: ir.IRBuilder, count: int, one: ir.Value) -> None:
        self._builder = builder
        self._sums = [cgutils.alloca_once(builder, _VALUE) for _ in range(count)]
        self._one = vectors.in_all_lanes(builder, one, _VALUE)
        for each in self._sums:
            builder.store(ir.Constant(_VALUE, [0.0] * _LANES), each)

    def look_up(self, place: int, table: ir.Value, numbers: ir.Value) -> None:
        """Add what sixteen numbers, of which four bits count, find in a table."""
        builder, total = self._builder, self.value(place)
        found = vectors.call(builder, "llvm.x86.avx512.permvar.sf.512", _VALUE, table, numbers)
        if place % 2:
            added = vectors.call(builder, "llvm.fma.v16f32", _VALUE, found, self._one, total)
        else:
            added = builder.fadd(total, found)
        builder.store(added, self._sums[place])

    def value(self, place: int) -> ir.Value:
        """One of the sums."""
        return self._builder.load(self._sums[place])


def _transposing(_context: Any, values: Any, first: Any, apart: Any, columns: Any, place: Any, step: Any) -> Any:
    """Write sixteen channels of four images, `apart` from each other, as fours that are `step` apart."""
    signature = types.void(values, first, apart, columns, place, step)

    def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        values, first, apart, columns, place, step = vectors.arrays_of(target, builder, signature, arguments)
        images = [
            vectors.load(builder, values, builder.add(first, builder.mul(apart, vectors.WORD(image))), _VALUE)
            for image in range(SIGNS)
        ]
        # Within lanes of four, as the processor's instructions do: twos of two images each, then fours.
        low, high, first_twos, second_twos = (
            [4 * lane + each for lane in range(4) for each in order]
            for order in ((0, 16, 1, 17), (2, 18, 3, 19), (0, 1, 16, 17), (2, 3, 18, 19))
        )
        fours = []
        for half in (low, high):
            first_two = vectors.shuffled(builder, images[0], images[1], half)
            last_two = vectors.shuffled(builder, images[2], images[3], half)
            fours += [vectors.shuffled(builder, first_two, last_two, order) for order in (first_twos, second_twos)]
        for channel in range(_LANES):
            of_lanes, lane = fours[channel % 4], channel // 4
            four = vectors.shuffled(builder, of_lanes, of_lanes, range(4 * lane, 4 * lane + 4))
            vectors.store(builder, four, columns, builder.add(place, builder.mul(step, vectors.WORD(channel))))
        return target.get_dummy_value()

    return signature, generate


_transpose: Any = intrinsic(_transposing)


def _adding_weights(pixels: int, blocks: int, stride: int) -> Any:
    """A function that writes the gradients of some pixels and blocks of sixteen channels."""
    # A filter's columns mirror those of the gradients they are multiplied with.
    columns = [
        [(pixel, each) for pixel in range(pixels) for each in range(3) if pixel + 1 - each == (column - 1) * stride]
        for column in range(pixels // stride + 2)
    ]

    @intrinsic
    def add(
        _context: Any,
        tables: Any,
        rows: Any,
        taps: Any,
        count: Any,
        behind: Any,
        step: Any,
        numbers: Any,
        first: Any,
        groups: Any,
        one: Any,
        sums: Any,
        place: Any,
        channels: Any,
    ) -> Any:
        signature = types.void(
            tables, rows, taps, count, behind, step, numbers, first, groups, one, sums, place, channels
        )

        def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            tables, rows, taps, count, behind, step, numbers, first, groups, one, sums, place, channels = (
                vectors.arrays_of(target, builder, signature, arguments)
            )
            totals = _Sums(builder, pixels * blocks, one)
            kept = [[cgutils.alloca_once(builder, _NUMBER) for _ in range(3)] for _ in range(blocks)]
            eight = vectors.WORD(_WORD_NUMBERS)
            words = builder.sdiv(builder.add(groups, vectors.WORD(_WORD_NUMBERS - 1)), eight)
            with _times(builder, count) as which, _times(builder, words) as word:
                row = builder.add(builder.load(builder.gep(rows.data, [which])), behind)
                tap = builder.load(builder.gep(taps.data, [which]))
                for block, of_block in enumerate(kept):
                    place_of_tap = builder.mul(words, builder.add(tap, vectors.WORD(3 * block)))
                    begin = builder.mul(builder.add(place_of_tap, word), vectors.WORD(3 * _LANES))
                    for each, number in enumerate(of_block):
                        at = builder.add(builder.add(first, begin), vectors.WORD(_LANES * each))
                        builder.store(vectors.load(builder, numbers, at, _NUMBER), number)
                done = builder.mul(word, eight)
                left = builder.sub(groups, done)
                left = builder.select(builder.icmp_signed("<", left, eight), left, eight)
                with _times(builder, left) as group:
                    begin = builder.add(row, builder.mul(builder.add(done, group), step))
                    for column, found_by in enumerate(columns):
                        if found_by:
                            at = builder.add(begin, vectors.WORD(_LANES * column))
                            table = vectors.load(builder, tables, at, _VALUE)
                        for pixel, each in found_by:
                            for block, of_block in enumerate(kept):
                                totals.look_up(blocks * pixel + block, table, builder.load(of_block[each]))
                    for number in (number for of_block in kept for number in of_block):
                        shifted = builder.lshr(builder.load(number), ir.Constant(_NUMBER, [SIGNS] * _LANES))
                        builder.store(shifted, number)
            for pixel in range(pixels):
                begin = builder.add(place, builder.mul(channels, vectors.WORD(pixel)))
                for block in range(blocks):
                    at = builder.add(begin, vectors.WORD(_LANES * block))
                    vectors.store(builder, totals.value(blocks * pixel + block), sums, at)
            return target.get_dummy_value()

        return signature, generate

    return add


_add_weights_4_by_1, _add_weights_4_by_2 = _adding_weights(4, 1, 1), _adding_weights(4, 2, 1)
_add_weights_8_by_1, _add_weights_8_by_2 = _adding_weights(8, 1, 1), _adding_weights(8, 2, 1)
_add_weights_of_stride_2_by_1, _add_weights_of_stride_2_by_2 = _adding_weights(8, 1, 2), _adding_weights(8, 2, 2)


def _adding_signs(blocks: int, stride: int) -> Any:
    """A function that adds to the nine gradients of one output and some blocks of sixteen channels."""
    # Along one side: a sign's place, the tap that lies on it and the place of its gradient in tables with padding.
    side = [
        (place, tap, (place + 1 - tap) // stride + 1)
        for place in range(stride)
        for tap in range(3)
        if (place + 1 - tap) % stride == 0
    ]

    @intrinsic
    def add(
        _context: Any,
        tables: Any,
        images: Any,
        height: Any,
        width: Any,
        numbers: Any,
        first: Any,
        channels: Any,
        one: Any,
        sums: Any,
        place: Any,
    ) -> Any:
        signature = types.void(tables, images, height, width, numbers, first, channels, one, sums, place)

        def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            tables, images, height, width, numbers, first, channels, one, sums, place = vectors.arrays_of(
                target, builder, signature, arguments
            )
            totals = _Sums(builder, _TAPS * blocks, one)
            row = builder.mul(builder.add(width, vectors.WORD(2)), vectors.WORD(_LANES))
            line = builder.mul(width, vectors.WORD(stride))
            pixel, table = (cgutils.alloca_once_value(builder, start) for start in (first, vectors.WORD(0)))
            with _times(builder, images):
                with _times(builder, height):
                    with _times(builder, width):
                        here = _counted(builder, pixel, builder.mul(channels, vectors.WORD(stride)))
                        begin = _counted(builder, table, vectors.WORD(_LANES))
                        signs: dict[tuple[int, int], list[ir.Value]] = {}
                        for (y, down, row_of_table), (x, right, column_of_table) in product(side, side):
                            if (y, x) not in signs:
                                behind = builder.mul(
                                    channels, builder.add(builder.mul(line, vectors.WORD(y)), vectors.WORD(x))
                                )
                                signs[y, x] = [
                                    vectors.load(
                                        builder,
                                        numbers,
                                        builder.add(builder.add(here, behind), vectors.WORD(_LANES * block)),
                                        _NUMBER,
                                    )
                                    for block in range(blocks)
                                ]
                            at = builder.add(begin, builder.mul(row, vectors.WORD(row_of_table)))
                            found = vectors.load(
                                builder, tables, builder.add(at, vectors.WORD(_LANES * column_of_table)), _VALUE
                            )
                            for block, number in enumerate(signs[y, x]):
                                totals.look_up(_TAPS * block + 3 * down + right, found, number)
                    _counted(builder, pixel, builder.mul(channels, builder.mul(line, vectors.WORD(stride - 1))))
                    _counted(builder, table, vectors.WORD(2 * _LANES))
                _counted(builder, table, builder.mul(row, vectors.WORD(2)))
            for each in range(_TAPS * blocks):
                at = builder.add(place, vectors.WORD(_LANES * each))
                vectors.store(
                    builder, builder.fadd(vectors.load(builder, sums, at, _VALUE), totals.value(each)), sums, at
                )
            return target.get_dummy_value()

        return signature, generate

    return add


_add_signs_by_1, _add_signs_by_2 = _adding_signs(1, 1), _adding_signs(2, 1)
_add_signs_of_stride_2_by_1, _add_signs_of_stride_2_by_2 = _adding_signs(1, 2), _adding_signs(2, 2)


@contextmanager
def _times(builder: ir.IRBuilder, count: ir.Value) -> Iterator[ir.Value]:
    with cgutils.for_range(builder, count, intp=vectors.WORD) as loop:
        yield loop.index


def _counted(builder: ir.IRBuilder, kept: ir.Value, step: ir.Value) -> ir.Value:
    """The number that is kept there, to which `step` is added for the next time."""
    value = builder.load(kept)
    builder.store(builder.add(value, step), kept)
    return value


@compiled
def _number_weights(first, stop, weight, words, binary):
    """Weights (O, 3, 3, I), a bit each, as words (O / 32, 3, 3, I); for each word whether all are -1 or 1."""
    for word in range(first, stop):
        others = 0
        for bit in range(min(32, len(weight) - 32 * word)):
            row, out = weight[32 * word + bit].reshape(-1), words[word].reshape(-1)
            for i in range(len(row)):
                out[i] |= np.int32(row[i] > 0) << np.int32(bit)
                others += (row[i] != 1) & (row[i] != -1)
        binary[word] = others == 0


@register_jitable(inline="always")
def _add_weights(pixels, pair, stride, arguments):
    """The function of `_adding_weights` that suits; inlined, since a call would take as long as a few pixels do."""
    if stride == 2 and pair:
        _add_weights_of_stride_2_by_2(*arguments)
    elif stride == 2:
        _add_weights_of_stride_2_by_1(*arguments)
    elif pixels == 8 and pair:
        _add_weights_8_by_2(*arguments)
    elif pixels == 8:
        _add_weights_8_by_1(*arguments)
    elif pair:
        _add_weights_4_by_2(*arguments)
    else:
        _add_weights_4_by_1(*arguments)


@compiled
def input_gradient(first, stop, grad, numbers, alpha, one, out):
    """Write the gradient of signs (N, H, W, I) from that of a convolution (N, H', W', O) times alpha, and weights."""
    _, height, width, outputs = grad.shape
    inputs, groups, stride = out.shape[3], outputs // 4, out.shape[1] // height
    # Pixels come in blocks of four or eight; those beyond an image's width are not kept.
    wide = (width + 3) // 4 * 4
    step = 16 * (wide + 2)
    # The tables of three rows of the gradient, with a pixel of padding around, in turns.
    size = groups * step
    room = np.zeros(3 * size + 16, np.float32)
    tables = room[-(room.ctypes.data // 4) % 16 :]
    rows, taps = np.empty(3, np.int64), np.empty(3, np.int64)
    scaled, factors = np.empty(width * outputs, np.float32), np.empty(width * outputs, np.float32)
    for i in range(len(factors)):
        factors[i] = alpha[i % outputs]
    sums = np.empty(stride * wide * inputs, np.float32)
    words, of_block = numbers.reshape(-1), numbers.size // (inputs // 16)
    for image in range(first, stop):
        tables[2 * size : 3 * size] = 0
        for y in range(height + 1):
            below = y % 3 * size
            if y < height:
                row = grad[image, y].reshape(-1)
                for i in range(len(row)):
                    scaled[i] = row[i] * factors[i]
                for x in range(width):
                    _write_tables(tables, below + 16 * (x + 1), step, scaled, x * outputs, groups)
            else:
                tables[below : below + size] = 0
            # Rows of the signs that need no further row of the gradient.
            for line in range(max(0, stride * (y - 1)), stride * y):
                count = 0
                for tap in range(3):
                    if (line + 1 - tap) % stride == 0:
                        rows[count], taps[count] = (line + 1 - tap) // stride % 3 * size, tap
                        count += 1
                for block in range(0, inputs // 16, 2):
                    start, pair, x = block * of_block, block + 1 < inputs // 16, 0
                    while x < wide:
                        # As many pixels of the gradient as there are eight of the signs of.
                        pixels = min(8 // stride, wide - x)
                        place = stride * x * inputs + 16 * block
                        of_pixels = (
                            tables,
                            rows,
                            taps,
                            count,
                            16 * x,
                            step,
                            words,
                            start,
                            groups,
                            one,
                            sums,
                            place,
                            inputs,
                        )
                        _add_weights(pixels, pair, stride, of_pixels)
                        x += pixels
                result = out[image, line].reshape(-1)
                for i in range(len(result)):
                    result[i] = sums[i]


@compiled
def number_signs(first, stop, images, numbers, has_zero):
    """The signs of four images (N, H, W, I) each as numbers (N / 4, H, W, I), with 1 for a positive value.

    Zeros are as in `_ZEROS` and `_OTHER_ZEROS`. For images that are not there, whose gradients are zero, the last one
    is taken.
    """
    last = len(images) - 1
    for group in range(first, stop):
        zeros = 0
        for y in range(numbers.shape[1]):
            out = numbers[group, y].reshape(-1)
            a, b = images[min(4 * group, last), y].reshape(-1), images[min(4 * group + 1, last), y].reshape(-1)
            c, d = images[min(4 * group + 2, last), y].reshape(-1), images[min(4 * group + 3, last), y].reshape(-1)
            for i in range(len(out)):
                one = (a[i] > 0) | (b[i] < 0) << 1 | (c[i] > 0) << 2 | (d[i] < 0) << 3
                other = (a[i] < 0) | (b[i] > 0) << 1 | (c[i] < 0) << 2 | (d[i] > 0) << 3
                out[i] = other ^ _OTHER_ZEROS if y & 2 else one ^ _ZEROS
                zeros |= (one | other) ^ 15
        has_zero[group] = zeros != 0


@compiled
def write_columns(grad, images, columns):
    """Write gradients of four images (4, H, W, O), of which some may not be there, as columns (H, O, W, 4)."""
    height, outputs, width, _ = columns.shape
    values, out, apart = grad.reshape(-1), columns.reshape(-1), height * width * outputs
    whole = outputs // 16 * 16 if images == 4 else 0
    for y in range(height):
        for x in range(width):
            first, place = (y * width + x) * outputs, 4 * (y * outputs * width + x)
            for o in range(0, whole, 16):
                _transpose(values, first + o, apart, out, place + 4 * width * o, 4 * width)
            for o in range(whole, outputs):
                for image in range(4):
                    value = values[image * apart + first + o] if image < images else np.float32(0)
                    out[place + 4 * width * o + image] = value


@compiled
def _in_columns(first, stop, grad, columns):
    """Gradients of images (N, H, W, O) as columns (N / 4, H, O, W, 4)."""
    for group in range(first, stop):
        begin, end = 4 * group, min(4 * group + 4, len(grad))
        write_columns(grad[begin:end], end - begin, columns[group])


@register_jitable(inline="always")
def _add_signs(pair, stride, arguments):
    """The function of `_adding_signs` that suits."""
    if stride == 2 and pair:
        _add_signs_of_stride_2_by_2(*arguments)
    elif stride == 2:
        _add_signs_of_stride_2_by_1(*arguments)
    elif pair:
        _add_signs_by_2(*arguments)
    else:
        _add_signs_by_1(*arguments)


@compiled
def _add_up_signs(first, stop, columns, numbers, part, one, sums):
    """Gradients (G, H', O, W', 4) of some outputs times signs (G, H, W, I), added to sums (O, I / 16, 9, 16)."""
    _, height, outputs, width, _ = columns.shape
    count, image_height, image_width, inputs = numbers.shape
    stride = image_height // height
    size = (height + 2) * (width + 2) * 16
    room = np.zeros(part * size + 16, np.float32)
    tables = room[-(room.ctypes.data // 4) % 16 :]
    values, signs, totals = columns.reshape(-1), numbers.reshape(-1), sums.reshape(-1)
    for begin in range(0, count, part):
        groups = min(part, count - begin)
        for o in range(first, stop):
            for group in range(groups):
                for y in range(height):
                    a = (((begin + group) * height + y) * outputs + o) * width * 4
                    place = group * size + ((y + 1) * (width + 2) + 1) * 16
                    _write_tables(tables, place, 16, values, a, width)
            for block in range(0, inputs // 16, 2):
                start = begin * image_height * image_width * inputs + 16 * block
                place = (o * (inputs // 16) + block) * 144
                of_block = (tables, groups, height, width, signs, start, inputs, one, totals, place)
                _add_signs(block + 1 < inputs // 16, stride, of_block)


@compiled
def _in_filters(first, stop, sums, filters):
    """Sums (O, I / 16, 9, 16) as filters (O, 3, 3, I)."""
    inputs = filters.shape[3]
    for o in range(first, stop):
        values, result = sums[o].reshape(-1), filters[o].reshape(-1)
        for block in range(0, inputs, 16):
            for tap in range(9):
                for i in range(16):
                    result[tap * inputs + block + i] = values[9 * block + 16 * tap + i]
