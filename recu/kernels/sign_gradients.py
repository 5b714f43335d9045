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
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
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
_ZEROS = 0b1010
"""What zeros in four images count as at first: were it the same sign in all of them, what is taken back for it would be
a large sum where gradients have a mean, and leave large rounding errors."""
_NUMBER, _VALUE = ir.VectorType(ir.IntType(32), _LANES), ir.VectorType(ir.FloatType(), _LANES)


class PackedWeight(NamedTuple):
    """Binary weights as what looks up in tables of gradients."""

    numbers: np.ndarray
    """int32 (I / 16, 3, O / 32, 3, 16): of an input, eight numbers of four bits each, 1 for +1."""
    alpha: np.ndarray
    """float32 (O,)."""


def suits(activation: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether gradients can be looked up on this processor; whether a weight is zero, only `pack_weight` knows.

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
        and tuple(stride) == (1, 1)
        and tuple(padding) == (1, 1)
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
    """The gradients of a convolution of sign(activation) with alpha times a binary weight, stride 1, padding 1.

    Args:
        grad: of the convolution's result, (N, O, H, W).
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
    missing = -len(images) % SIGNS
    if missing:
        grad_images = np.pad(grad_images, ((0, missing), (0, 0), (0, 0), (0, 0)))
    sums = WeightSums(grad.shape[1], activation.shape[1])
    sums.add(grad_images, images, numbers, has_zero)
    return (None if grad_input is None else as_images(grad_input)), sums.gradient()


class WeightSums:
    """The gradient of a weight of `outputs` and `inputs`, summed over part after part of a batch."""

    def __init__(self, outputs: int, inputs: int) -> None:
        self._sums = np.zeros((outputs, inputs // _LANES, _TAPS, _LANES), np.float32)

    def add(self, grad: np.ndarray, images: np.ndarray, numbers: np.ndarray, has_zero: np.ndarray) -> None:
        """Add what some images give.

        Args:
            grad: of the convolution's result, (4 G, H, W, O), zero for images that are not there.
            images: activations, (N, H, W, I), N at most 4 G and more than 4 (G - 1).
            numbers: of them, as `number_signs` gives them, (G, H, W, I).
            has_zero: likewise, (G,).
        """
        _add_up(grad, numbers, self._sums)
        which = np.flatnonzero(has_zero)
        if not len(which):
            return
        # So far a sign of 0 counts as -1 or 1. Twice what it counts too little is the difference of a look-up with the
        # other sign in the place of each zero and one without any, for which there are sixteen more channels.
        zeros = np.full((len(which), *numbers.shape[1:3], numbers.shape[3] + _LANES), _ZEROS, np.int32)
        for bit in range(SIGNS):
            values = images[np.minimum(SIGNS * which + bit, len(images) - 1)]
            zeros[..., :-_LANES] ^= (~((values > 0) | (values < 0))).astype(np.int32) << bit
        grad = grad.reshape(-1, SIGNS, *grad.shape[1:])[which].reshape(-1, *grad.shape[1:])
        counted = np.zeros((len(self._sums), self._sums.shape[1] + 1, _TAPS, _LANES), np.float32)
        _add_up(grad, zeros, counted)
        # What is not finite shows in the loss; NumPy's warnings would say no more.
        with np.errstate(invalid="ignore", over="ignore"):
            self._sums += (counted[:, :-1] - counted[:, -1:]) / 2

    def gradient(self) -> Tensor:
        """(O, I, 3, 3)."""
        sums = torch.from_numpy(self._sums)
        return sums.transpose(2, 3).reshape(len(sums), -1, 3, 3)


def _add_up(grad: np.ndarray, numbers: np.ndarray, sums: np.ndarray) -> None:
    """Add a gradient (4 G, H, W, O) times signs (G, H, W, I) to sums (O, I / 16, 9, 16)."""
    part = max(1, _PART_PIXELS // (grad.shape[1] * grad.shape[2]))
    over_samples(_add_up_signs, len(sums), grad, numbers, part, ONE, sums)


def _writing(
    _context: Any,
    tables: Any,
    place: Any,
    step: Any,
    values: Any,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    stride: Any,
    count: Any,
) -> Any:
    """Write `count` tables, `step` numbers apart, of values that begin at four places and are `stride` apart."""
    signature = types.void(tables, place, step, values, a, b, c, d, stride, count)

    def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        tables, place, step, values, *starts, stride, count = vectors.arrays_of(target, builder, signature, arguments)
        signs = [
            ir.Constant(_VALUE, [1.0 if number >> bit & 1 else -1.0 for number in range(_LANES)])
            for bit in range(SIGNS)
        ]
        with _times(builder, count) as index:
            behind = builder.mul(index, stride)
            terms = []
            for start, sign in zip(starts, signs, strict=True):
                value = builder.load(builder.gep(values.data, [builder.add(start, behind)]))
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


def _adding_weights(pixels: int, blocks: int) -> Any:
    """A function that writes the gradients of some pixels and blocks of sixteen channels."""

    @intrinsic
    def add(
        _context: Any,
        tables: Any,
        above: Any,
        here: Any,
        below: Any,
        step: Any,
        numbers: Any,
        first: Any,
        groups: Any,
        one: Any,
        sums: Any,
        place: Any,
        channels: Any,
    ) -> Any:
        signature = types.void(tables, above, here, below, step, numbers, first, groups, one, sums, place, channels)

        def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            tables, above, here, below, step, numbers, first, groups, one, sums, place, channels = vectors.arrays_of(
                target, builder, signature, arguments
            )
            totals = _Sums(builder, pixels * blocks, one)
            kept = [[cgutils.alloca_once(builder, _NUMBER) for _ in range(3)] for _ in range(blocks)]
            eight = vectors.WORD(_WORD_NUMBERS)
            words = builder.sdiv(builder.add(groups, vectors.WORD(_WORD_NUMBERS - 1)), eight)
            # A weight's place in a filter and that of the gradient it is multiplied with mirror each other.
            for tap, row in enumerate((below, here, above)):
                with _times(builder, words) as word:
                    for block, of_block in enumerate(kept):
                        taps = builder.add(builder.mul(words, vectors.WORD(3 * block + tap)), word)
                        begin = builder.add(first, builder.mul(taps, vectors.WORD(3 * _LANES)))
                        for each, number in enumerate(of_block):
                            at = builder.add(begin, vectors.WORD(_LANES * each))
                            builder.store(vectors.load(builder, numbers, at, _NUMBER), number)
                    done = builder.mul(word, eight)
                    left = builder.sub(groups, done)
                    left = builder.select(builder.icmp_signed("<", left, eight), left, eight)
                    with _times(builder, left) as group:
                        begin = builder.add(row, builder.mul(builder.add(done, group), step))
                        for column in range(pixels + 2):
                            at = builder.add(begin, vectors.WORD(_LANES * column))
                            table = vectors.load(builder, tables, at, _VALUE)
                            for each in range(3):
                                pixel = column - 2 + each
                                if 0 <= pixel < pixels:
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


_add_weights_4_by_1, _add_weights_4_by_2 = _adding_weights(4, 1), _adding_weights(4, 2)
_add_weights_8_by_1, _add_weights_8_by_2 = _adding_weights(8, 1), _adding_weights(8, 2)


def _adding_signs(blocks: int) -> Any:
    """A function that adds to the nine gradients of one output and some blocks of sixteen channels."""

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
            pixel, table = (cgutils.alloca_once_value(builder, start) for start in (first, vectors.WORD(0)))
            with _times(builder, images):
                with _times(builder, height):
                    with _times(builder, width):
                        here = _counted(builder, pixel, channels)
                        begin = _counted(builder, table, vectors.WORD(_LANES))
                        signs = [
                            vectors.load(builder, numbers, builder.add(here, vectors.WORD(_LANES * block)), _NUMBER)
                            for block in range(blocks)
                        ]
                        for tap in range(_TAPS):
                            down, right = divmod(_TAPS - 1 - tap, 3)
                            at = builder.add(begin, builder.mul(row, vectors.WORD(down)))
                            found = vectors.load(builder, tables, builder.add(at, vectors.WORD(_LANES * right)), _VALUE)
                            for block, number in enumerate(signs):
                                totals.look_up(_TAPS * block + tap, found, number)
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


_add_signs_1, _add_signs_2 = _adding_signs(1), _adding_signs(2)


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


@compiled
def input_gradient(first, stop, grad, numbers, alpha, one, out):
    """Write the gradient of signs (N, H, W, I) from that of a convolution (N, H, W, O) times alpha, and weights."""
    _, height, width, outputs = grad.shape
    inputs, groups = out.shape[3], outputs // 4
    # Pixels come in blocks of four or eight; those beyond an image's width are not kept.
    wide = (width + 3) // 4 * 4
    step = 16 * (wide + 2)
    # The tables of three rows of the gradient, with a pixel of padding around, in turns.
    size = groups * step
    room = np.zeros(3 * size + 16, np.float32)
    tables = room[-(room.ctypes.data // 4) % 16 :]
    scaled, sums = np.empty(width * outputs, np.float32), np.empty(wide * inputs, np.float32)
    words, of_block = numbers.reshape(-1), numbers.size // (inputs // 16)
    for image in range(first, stop):
        tables[2 * size : 3 * size] = 0
        for y in range(-1, height):
            here, below, above = y % 3 * size, (y + 1) % 3 * size, (y + 2) % 3 * size
            if y + 1 < height:
                for x in range(width):
                    pixel, result = grad[image, y + 1, x], scaled[x * outputs : (x + 1) * outputs]
                    for o in range(outputs):
                        result[o] = pixel[o] * alpha[o]
                for x in range(width):
                    a = x * outputs
                    _write_tables(tables, below + 16 * (x + 1), step, scaled, a, a + 1, a + 2, a + 3, 4, groups)
            else:
                tables[below : below + size] = 0
            if y < 0:
                continue
            for x in range(0, wide, 8):
                up, level, down = above + 16 * x, here + 16 * x, below + 16 * x
                for block in range(0, inputs // 16, 2):
                    start, place, pair = block * of_block, x * inputs + 16 * block, block + 1 < inputs // 16
                    if x + 8 <= wide:
                        if pair:
                            _add_weights_8_by_2(
                                tables, up, level, down, step, words, start, groups, one, sums, place, inputs
                            )
                        else:
                            _add_weights_8_by_1(
                                tables, up, level, down, step, words, start, groups, one, sums, place, inputs
                            )
                    elif pair:
                        _add_weights_4_by_2(
                            tables, up, level, down, step, words, start, groups, one, sums, place, inputs
                        )
                    else:
                        _add_weights_4_by_1(
                            tables, up, level, down, step, words, start, groups, one, sums, place, inputs
                        )
            out[image, y].reshape(-1)[:] = sums[: width * inputs]


@compiled
def number_signs(first, stop, images, numbers, has_zero):
    """The signs of four images (N, H, W, I) each as numbers (N / 4, H, W, I), with 1 for a positive value.

    Zeros are as in `_ZEROS`. For images that are not there, whose gradients are zero, the last one is taken.
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
                out[i] = one ^ _ZEROS
                zeros |= (one | other) ^ 15
        has_zero[group] = zeros != 0


@compiled
def _add_up_signs(first, stop, grad, numbers, part, one, sums):
    """Gradients (4 N, H, W, O) of some outputs times signs (N, H, W, I), added to sums (O, I / 16, 9, 16)."""
    _, height, width, outputs = grad.shape
    count, _, _, inputs = numbers.shape
    size = (height + 2) * (width + 2) * 16
    room = np.zeros(part * size + 16, np.float32)
    tables = room[-(room.ctypes.data // 4) % 16 :]
    values, signs, totals = grad.reshape(-1), numbers.reshape(-1), sums.reshape(-1)
    image = height * width * outputs
    for begin in range(0, count, part):
        groups = min(part, count - begin)
        for o in range(first, stop):
            for group in range(groups):
                for y in range(height):
                    a = (4 * (begin + group) * height + y) * width * outputs + o
                    place = group * size + ((y + 1) * (width + 2) + 1) * 16
                    _write_tables(tables, place, 16, values, a, a + image, a + 2 * image, a + 3 * image, outputs, width)
            for block in range(0, inputs // 16, 2):
                start = begin * height * width * inputs + 16 * block
                place = (o * (inputs // 16) + block) * 144
                if block + 1 < inputs // 16:
                    _add_signs_2(tables, groups, height, width, signs, start, inputs, one, totals, place)
                else:
                    _add_signs_1(tables, groups, height, width, signs, start, inputs, one, totals, place)
