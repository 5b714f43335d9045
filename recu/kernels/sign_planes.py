"""Sums of products of signs by counting bits, for processors that count those of 64 bytes at once (AVX-512 VPOPCNTDQ).

The signs of 64 channels of a pixel are two numbers of 64 bits, its planes: in the first a bit is 1 where the sign is
+1, in the second where it is -1, in neither where it is 0. A filter's 64 weights are one number, with 1 for +1. Where
each bit of the weights chooses a plane, the bits that are found there are the products +1; all others of signs that are
not 0 are -1. So eight filters take three instructions: choose, count, add.

Planes take as much room as the codes of `recu.kernels.sign_lookup`, sixteen bytes for 64 channels, and stand in their
place where a pixel has a multiple of 64 channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable

from recu.kernels import vectors
from recu.kernels.compiled import compiled

CHANNELS = 64
"""Of a pair of planes."""
BYTES = 16
"""That these take."""
_LANES, _POSITIONS, _VECTORS = 8, 4, 4
"""Filters of a vector; positions and vectors of a block, whose sums stay in sixteen of 32 registers."""
_WORD, _VECTOR = vectors.WORD, ir.VectorType(vectors.WORD, _LANES)


@cache
def has_bit_counts() -> bool:
    """Whether this processor counts bits in vectors."""
    return bool(binding.get_host_cpu_features().get("avx512vpopcntdq"))


def in_planes(channels: int) -> bool:
    """Whether pixels of so many channels are kept as planes on this processor."""
    return has_bit_counts() and channels % CHANNELS == 0


@overload(in_planes)
def _in_planes(channels):  # noqa: ARG001
    return (lambda channels: channels % CHANNELS == 0) if has_bit_counts() else (lambda channels: False)  # noqa: ARG005


def planes_of(signs: np.ndarray) -> np.ndarray:
    """Signs (..., C) to planes uint8 (..., C / 4)."""
    groups = signs.reshape(*signs.shape[:-1], -1, 1, CHANNELS)
    bits = np.packbits(np.concatenate([groups > 0, groups < 0], axis=-2), axis=-1, bitorder="little")
    return bits.reshape(*signs.shape[:-1], -1)


def signs_of(planes: np.ndarray) -> np.ndarray:
    """Planes uint8 (..., C / 4) to signs int8 (..., C)."""
    pairs = planes.reshape(*planes.shape[:-1], -1, 2, BYTES // 2)
    bits = np.unpackbits(pairs, axis=-1, bitorder="little").astype(np.int8)
    return (bits[..., 0, :] - bits[..., 1, :]).reshape(*planes.shape[:-1], -1)


def filters_in_planes(weight: np.ndarray, numbers: np.ndarray) -> bool:
    """Write binary weights (O, I, kH, kW), I a multiple of CHANNELS, as uint8 (kH * kW * I / 4, O'), O' at least O.

    Sixteen rows, of 64 weights of each filter, begin with O' numbers of eight bytes; their other half is not used.

    Returns:
        False where a weight is zero or not a number.
    """
    filters, channels = weight.shape[:2]
    rows = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(filters, -1, channels)
    words = numbers.reshape(-1).view(np.uint64).reshape(-1, channels // CHANNELS, 2, numbers.shape[1])
    words[:] = 0
    return bool(_pack_filters(rows, words))


@register_jitable
def count_in_planes(codes, first, starts, positions, offsets, numbers, sums):
    """As `recu.kernels.sign_lookup.count`, for planes."""
    signs, filters = np.empty(len(starts), np.int64), numbers.shape[1]
    for position in range(0, positions, _POSITIONS):
        for each in range(position, position + _POSITIONS):
            signs[each] = _count_signs(codes, first + starts[each], offsets)
    for column in range(0, filters, _LANES * _VECTORS):
        for position in range(0, positions, _POSITIONS):
            if filters - column >= _LANES * _VECTORS:
                _add_4_by_32(codes, first, starts, position, offsets, numbers, column, signs, sums)
            else:
                _add_4_by_16(codes, first, starts, position, offsets, numbers, column, signs, sums)


def _counting(_context: Any, codes: Any, place: Any, offsets: Any) -> Any:
    """How many signs of a patch are not 0."""
    signature = types.int64(codes, place, offsets)

    def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        codes, place, offsets = vectors.arrays_of(target, builder, signature, arguments)
        patch, total = builder.gep(codes.data, [place]), cgutils.alloca_once(builder, _WORD)
        builder.store(_WORD(0), total)
        with _groups(builder, offsets) as offset:
            for plane in range(2):
                found = _bits(builder, _load(builder, builder.gep(patch, [offset]), _WORD, plane))
                builder.store(builder.add(builder.load(total), found), total)
        return builder.load(total)

    return signature, generate


_count_signs: Any = intrinsic(_counting)


def _adding(count: int) -> Any:
    """A function that writes the sums of _POSITIONS positions and so many vectors of filters."""

    @intrinsic
    def add(
        _context: Any,
        codes: Any,
        first: Any,
        starts: Any,
        position: Any,
        offsets: Any,
        numbers: Any,
        column: Any,
        signs: Any,
        sums: Any,
    ) -> Any:
        signature = types.void(codes, first, starts, position, offsets, numbers, column, signs, sums)

        def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            _generate(builder, count, *vectors.arrays_of(target, builder, signature, arguments))
            return target.get_dummy_value()

        return signature, generate

    return add


_add_4_by_32, _add_4_by_16 = _adding(_VECTORS), _adding(_VECTORS // 2)


def _generate(
    builder: ir.IRBuilder,
    count: int,
    codes: Any,
    first: ir.Value,
    starts: Any,
    position: ir.Value,
    offsets: Any,
    numbers: Any,
    column: ir.Value,
    signs: Any,
    sums: Any,
) -> None:
    places = [builder.add(position, _WORD(number)) for number in range(_POSITIONS)]
    begins = (builder.add(first, builder.load(builder.gep(starts.data, [place]))) for place in places)
    patches = [builder.gep(codes.data, [begin]) for begin in begins]
    totals = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(count)] for _ in places]
    for of_position in totals:
        for total in of_position:
            builder.store(ir.Constant(_VECTOR, [0] * _LANES), total)
    _, filters = cgutils.unpack_tuple(builder, numbers.shape)
    weights = cgutils.alloca_once_value(builder, builder.gep(numbers.data, [builder.mul(column, _WORD(CHANNELS // 8))]))
    with _groups(builder, offsets) as offset:
        row = builder.load(weights)
        weight = [_load(builder, row, _VECTOR, number) for number in range(count)]
        builder.store(builder.gep(row, [builder.mul(filters, _WORD(BYTES))]), weights)
        for patch, of_position in zip(patches, totals, strict=True):
            pixel = builder.gep(patch, [offset])
            plus, minus = (
                vectors.in_all_lanes(builder, _load(builder, pixel, _WORD, plane), _VECTOR) for plane in range(2)
            )
            for each, total in zip(weight, of_position, strict=True):
                chosen = builder.or_(builder.and_(each, plus), builder.and_(builder.not_(each), minus))
                builder.store(builder.add(builder.load(total), _bits(builder, chosen)), total)
    for place, of_position in zip(places, totals, strict=True):
        minus_ones = vectors.in_all_lanes(builder, builder.load(builder.gep(signs.data, [place])), _VECTOR)
        row = builder.gep(sums.data, [builder.add(builder.mul(place, filters), column)])
        for number, total in enumerate(of_position):
            found = builder.sub(builder.shl(builder.load(total), ir.Constant(_VECTOR, [1] * _LANES)), minus_ones)
            small = builder.trunc(found, ir.VectorType(ir.IntType(16), _LANES))
            target = builder.bitcast(builder.gep(row, [_WORD(_LANES * number)]), small.type.as_pointer())
            builder.store(small, target, align=2)


@contextmanager
def _groups(builder: ir.IRBuilder, offsets: Any) -> Iterator[ir.Value]:
    """A loop over the groups of 64 channels of a patch: where each begins."""
    (count,) = cgutils.unpack_tuple(builder, offsets.shape)
    with cgutils.for_range_slice(builder, _WORD(0), count, _WORD(BYTES), intp=_WORD) as (index, _):
        yield builder.load(builder.gep(offsets.data, [index]))


def _load(builder: ir.IRBuilder, place: ir.Value, kind: ir.Type, number: int) -> ir.Value:
    """The so manieth of a type from a place in memory on."""
    return builder.load(builder.gep(builder.bitcast(place, kind.as_pointer()), [_WORD(number)]), align=1)


def _bits(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    kind = value.type
    return vectors.call(builder, "llvm.ctpop.i64" if kind == _WORD else f"llvm.ctpop.v{_LANES}i64", kind, value)


@compiled
def _pack_filters(weight, words):
    """Filters (O, taps, I) as words (taps, I / 64, 2, O'); whether each weight has a sign."""
    others = 0
    for o in range(len(weight)):
        for tap in range(len(words)):
            row = weight[o, tap]
            for group in range(words.shape[1]):
                values, word = row[64 * group : 64 * group + 64], np.uint64(0)
                for channel in range(64):
                    word |= np.uint64(values[channel] > 0) << np.uint64(channel)
                    others += not (values[channel] > 0 or values[channel] < 0)
                words[tap, group, 0, o] = word
    return others == 0
