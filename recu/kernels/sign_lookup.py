"""Sums of products of signs, looked up: a byte shuffle takes the products of four signs with four weights at once.

The signs of four channels, each -1, 0 or 1, are one of 81 codes; four binary weights are one of 16. A table holds the
sum of the four products for each pair, sixteen bytes a code. These sixteen fit a register, and the processor's byte
shuffle (SSSE3 and AVX2 `pshufb`, NEON `tbl`) looks up in it for 16 or 32 filters in one step. Counting the differing
bits of 256 products takes about eight steps; here a shuffle and an addition do 128. And the sign 0, of padding, of an
exact zero and of what is not a number, is a code as any other and costs nothing.

A code is kept as twice its number, which a byte holds and an address takes times eight.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable

from recu.kernels.aligned import aligned_empty
from recu.kernels.sign_planes import BYTES, count_in_planes, has_bit_counts

SIGNS = 4
"""In a code, and weights in the number that looks up in it."""
PLACES = (2, 6, 18, 54)
"""What the sign of each place adds to a code, times the sign plus 1."""
ZEROS = sum(PLACES)
"""The code of four signs 0."""
GROUP = 16
"""Filters come in groups of so many."""
SPARE_STARTS = 7
"""A block of positions may reach so many beyond those asked for."""
RUN = 4
"""Codes that are read at once, where so many lie one behind the other."""
_BYTES = 28
"""Sums of four products that are added up in a byte, which holds the sum of 31 for sure: a multiple of RUN."""

Form = Literal["avx2", "ssse3", "neon", "portable"]


@cache
def products() -> np.ndarray:
    """The sum of products for each code and each four weights, int8 (81, 16); bit i of a number is 1 for weight +1."""
    numbers = np.arange(3**SIGNS)[:, None] // 3 ** np.arange(SIGNS) % 3 - 1
    weights = (np.arange(1 << SIGNS)[:, None] >> np.arange(SIGNS) & 1) * 2 - 1
    table = aligned_empty(len(numbers) * len(weights), np.int8).reshape(len(numbers), len(weights))
    table[:] = numbers @ weights.T
    table.setflags(write=False)
    return table


@cache
def best_form() -> Form:
    """The fastest form for the processor at hand."""
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return "neon"
    features = binding.get_host_cpu_features()
    if features.get("avx2"):
        return "avx2"
    return "ssse3" if features.get("ssse3") else "portable"


def count(
    codes: np.ndarray,
    first: int,
    starts: np.ndarray,
    positions: int,
    offsets: np.ndarray,
    run: int,
    numbers: np.ndarray,
    table: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Sum the products of signs and weights up; within a compiled loop in the best form for the processor.

    Args:
        codes: of images, uint8 (any,).
        first: where the patch of the first position begins.
        starts: where the others' begin, from there, int64 (positions + SPARE_STARTS,).
        positions: how many are wanted.
        offsets: where the codes of a patch lie, from its begin, int64 (K,).
        run: how many codes lie one behind the other, RUN or anything else for 1; `sign_planes.BYTES` for planes in the
            place of codes, and of weights.
        numbers: weights, four a number, uint8 (K, O), O a multiple of GROUP.
        table: `products()`, flat.
        sums: int16 (positions + SPARE_STARTS, O), to be written.
    """
    count_one_by_one(codes, first, starts, positions, offsets, run, numbers, table, sums)


@overload(count)
def _count(codes, first, starts, positions, offsets, run, numbers, table, sums):  # noqa: ARG001
    return {
        "avx2": _count_by_planes_or_lanes if has_bit_counts() else count_by_32_lanes,
        "ssse3": count_by_16_lanes,
        "neon": count_by_16_lanes,
        "portable": count_one_by_one,
    }[best_form()]


def _adding(pixels: int, vectors: int, lanes: int, *, pairs: bool = False) -> Any:
    """A function that sums up for a block of positions and filters, with all of its sums in registers.

    Args:
        pixels: positions of a block, or pairs of them.
        vectors: of filters.
        lanes: bytes of a vector, 16 or 32.
        pairs: whether the upper half of a vector is for a second position, where there is one group of filters only.
    """

    @intrinsic
    def add(
        _context: Any, codes: Any, first: Any, starts: Any, offsets: Any, run: Any, weights: Any, table: Any, sums: Any
    ) -> Any:
        signature = types.void(codes, first, starts, offsets, run, weights, table, sums)

        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            arrays = [
                target.make_array(kind)(target, builder, value) if isinstance(kind, types.Array) else value
                for kind, value in zip(signature.args, arguments, strict=True)
            ]
            _Block(builder, arrays, lanes, pixels, vectors, pairs).generate()
            return target.get_dummy_value()

        return signature, generate

    return add


class _Block:
    """Writes the instructions of one block; sums of 28 that are looked up are bytes, those are added in two."""

    def __init__(
        self, builder: ir.IRBuilder, arrays: Sequence[Any], lanes: int, pixels: int, vectors: int, pairs: bool
    ) -> None:
        self.builder, self.lanes, self.pairs = builder, lanes, pairs
        self.codes, self.first, self.starts, self.offsets, self.run, self.weights, self.table, self.sums = arrays
        self.places = [(pixel, vector) for pixel in range(pixels) for vector in range(vectors)]
        self.pixels, self.vectors = pixels, vectors
        self.bytes, self.words = (ir.VectorType(ir.IntType(bits), lanes) for bits in (8, 16))

    def generate(self) -> None:
        builder = self.builder
        begin = [self._begin_of(position) for position in range(self.pixels * (1 + self.pairs))]
        small, large = ([cgutils.alloca_once(builder, kind) for _ in self.places] for kind in (self.bytes, self.words))
        self._clear(large, self.words)
        taps, _ = cgutils.unpack_tuple(builder, self.weights.shape)
        with builder.if_else(builder.icmp_signed("==", self.run, _number(RUN))) as (in_runs, else_):
            for branch, run in ((in_runs, RUN), (else_, 1)):
                with branch, self._range(_number(0), taps, _BYTES) as chunk:
                    self._clear(small, self.bytes)
                    end = builder.add(chunk, _number(_BYTES))
                    end = builder.select(builder.icmp_signed("<", end, taps), end, taps)
                    with self._range(chunk, end, run) as tap:
                        self._look_up(tap, run, begin, small)
                    for byte, word in zip(small, large, strict=True):
                        wide = builder.sext(builder.load(byte), self.words)
                        builder.store(builder.add(builder.load(word), wide), word)
        self._write(large)

    @contextmanager
    def _range(self, start: ir.Value, stop: ir.Value, step: int) -> Iterator[ir.Value]:
        with cgutils.for_range_slice(self.builder, start, stop, _number(step), intp=start.type) as (index, _):
            yield index

    def _begin_of(self, position: int) -> ir.Value:
        """Where the patch of a position begins."""
        start = self.builder.load(self._at(self.starts.data, _number(position)))
        return self._at(self.codes.data, self.builder.add(self.first, start))

    def _look_up(self, tap: ir.Value, run: int, begin: Sequence[ir.Value], small: Sequence[ir.Value]) -> None:
        """Add the products of a tap, or of a run of them, whose codes are read at once."""
        builder, kind = self.builder, ir.IntType(8 * run)
        offset = builder.load(self._at(self.offsets.data, tap))
        places = (builder.bitcast(self._at(each, offset), kind.as_pointer()) for each in begin)
        codes = [builder.load(place, align=1) for place in places]
        for each in range(run):
            shift = 8 * (each if sys.byteorder == "little" else run - 1 - each)
            bytes_ = [
                builder.trunc(builder.lshr(code, kind(shift)), ir.IntType(8)) if run > 1 else code for code in codes
            ]
            self._add_tap(builder.add(tap, _number(each)), bytes_, small)

    def _add_tap(self, tap: ir.Value, codes: Sequence[ir.Value], small: Sequence[ir.Value]) -> None:
        builder = self.builder
        row = self._at(self.weights.data, builder.mul(tap, self._stride(self.weights)))
        if self.pairs:
            half = self._load(row, GROUP)
            numbers = [self._joined(half, half)]
        else:
            numbers = [
                self._load(self._at(row, _number(self.lanes * each)), self.lanes) for each in range(self.vectors)
            ]
        tables = [self._row_of_table(code) for code in codes]
        for (pixel, vector), total in zip(self.places, small, strict=True):
            if self.pairs:
                table = self._joined(tables[2 * pixel], tables[2 * pixel + 1])
            else:
                table = tables[pixel] if self.lanes == GROUP else self._joined(tables[pixel], tables[pixel])
            found = self._shuffle(table, numbers[vector])
            builder.store(builder.add(builder.load(total), found), total)

    def _row_of_table(self, code: ir.Value) -> ir.Value:
        builder = self.builder
        twice = builder.zext(code, ir.IntType(64))
        return self._load(self._at(self.table.data, builder.mul(twice, _number(8))), GROUP)

    def _shuffle(self, table: ir.Value, numbers: ir.Value) -> ir.Value:
        if platform.machine().lower() in ("aarch64", "arm64"):
            name = "llvm.aarch64.neon.tbl1.v16i8"
        else:
            name = "llvm.x86.avx2.pshuf.b" if self.lanes == 32 else "llvm.x86.ssse3.pshuf.b.128"
        kind = ir.FunctionType(self.bytes, [self.bytes, self.bytes])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [table, numbers])

    def _write(self, large: Sequence[ir.Value]) -> None:
        builder = self.builder
        memory = builder.bitcast(self.sums.data, ir.IntType(8).as_pointer())
        for (pixel, vector), total in zip(self.places, large, strict=True):
            row = builder.mul(_number(pixel * (1 + self.pairs)), self._stride(self.sums))
            place = self._at(memory, builder.add(row, _number(2 * self.lanes * vector)))
            # Of a pair, both positions: with one group of filters they lie one behind the other.
            builder.store(builder.load(total), builder.bitcast(place, self.words.as_pointer()), align=2)

    def _joined(self, low: ir.Value, high: ir.Value) -> ir.Value:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 2 * GROUP), list(range(2 * GROUP)))
        return self.builder.shuffle_vector(low, high, mask)

    def _load(self, place: ir.Value, lanes: int) -> ir.Value:
        kind = ir.VectorType(ir.IntType(8), lanes)
        return self.builder.load(self.builder.bitcast(place, kind.as_pointer()), align=1)

    def _at(self, place: ir.Value, offset: ir.Value) -> ir.Value:
        return self.builder.gep(place, [offset])

    def _stride(self, array: Any) -> ir.Value:
        """Of its rows, in bytes."""
        return cgutils.unpack_tuple(self.builder, array.strides)[0]

    def _clear(self, totals: Sequence[ir.Value], kind: ir.Type) -> None:
        for total in totals:
            self.builder.store(ir.Constant(kind, [0] * kind.count), total)


def _number(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), value)


_add_4_by_64 = _adding(4, 2, 32)
_add_8_by_32 = _adding(8, 1, 32)
_add_8_by_16 = _adding(4, 1, 32, pairs=True)
_add_4_by_16 = _adding(4, 1, 16)


@register_jitable
def count_by_32_lanes(codes, first, starts, positions, offsets, run, numbers, table, sums):
    """`count` for vectors of 32 bytes."""
    filters = numbers.shape[1]
    column = 0
    while column + 64 <= filters:
        for position in range(0, positions, 4):
            _add_4_by_64(
                codes, first, starts[position:], offsets, run, numbers[:, column:], table, sums[position:, column:]
            )
        column += 64
    if column + 32 <= filters:
        for position in range(0, positions, 8):
            _add_8_by_32(
                codes, first, starts[position:], offsets, run, numbers[:, column:], table, sums[position:, column:]
            )
        column += 32
    if column < filters:
        if column == 0:
            for position in range(0, positions, 8):
                _add_8_by_16(codes, first, starts[position:], offsets, run, numbers, table, sums[position:])
        else:
            for position in range(0, positions, 4):
                _add_4_by_16(
                    codes, first, starts[position:], offsets, run, numbers[:, column:], table, sums[position:, column:]
                )


def _count_by_planes_or_lanes(codes, first, starts, positions, offsets, run, numbers, table, sums):
    if run == BYTES:
        count_in_planes(codes, first, starts, positions, offsets, numbers, sums)
    else:
        count_by_32_lanes(codes, first, starts, positions, offsets, run, numbers, table, sums)


def count_by_16_lanes(codes, first, starts, positions, offsets, run, numbers, table, sums):
    """`count` for vectors of 16 bytes."""
    for column in range(0, numbers.shape[1], 16):
        for position in range(0, positions, 4):
            _add_4_by_16(
                codes, first, starts[position:], offsets, run, numbers[:, column:], table, sums[position:, column:]
            )


def count_one_by_one(codes, first, starts, positions, offsets, run, numbers, table, sums):  # noqa: ARG001
    """`count` for any processor."""
    for position in range(positions):
        total = sums[position]
        total[:] = 0
        for tap in range(len(offsets)):
            row = table[8 * np.int64(codes[first + starts[position] + offsets[tap]]) :]
            for o in range(len(total)):
                total[o] += row[numbers[tap, o]]
