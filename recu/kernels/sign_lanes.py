"""What ends a convolution of signs, for 32 values at once: everything between reading and writing stays in registers.

Written as loops the same takes four passes over a row, since a compiler cannot know that a result may lie where the
residual was, and rows of bytes are narrowed one by one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recu.kernels import sign_planes
from recu.kernels.sign_lookup import PLACES, SIGNS

LANES = 32
"""Values at once."""
GATHER = sum(place << 8 * (SIGNS - 1 - i if sys.byteorder == "little" else i) for i, place in enumerate(PLACES))
"""Times four bytes, the signs plus 1, it has their code in its highest byte."""


Store = Callable[["_Lanes", int, ir.Value, ir.Value], None]
"""Writes signs into an array of codes or planes: which of the values are above 0, and which are below."""


def _finishing(*, adds: bool, store: Store | None = None) -> Any:
    """A function that writes LANES values from `place` on: finish(counts, scale, factor, shift, added, bound, place,
    out, codes).

    counts: int16 (n,); scale, factor, shift, added, out: (n,) of one type, in one piece; bound: of that type;
    codes: uint8 (n / 4,), written by `store`; `added` is read if it `adds`.
    """

    @intrinsic
    def finish(
        _context: Any,
        counts: Any,
        scale: Any,
        factor: Any,
        shift: Any,
        added: Any,
        bound: Any,
        place: Any,
        out: Any,
        codes: Any,
    ) -> Any:
        signature = types.void(counts, scale, factor, shift, added, bound, place, out, codes)

        def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            lanes = _Lanes(target, builder, signature, arguments)
            values = builder.sitofp(lanes.load(0), lanes.vector_of(1))
            values = builder.fmul(values, lanes.load(1))
            values = _fused(builder, values, lanes.load(2), lanes.load(3))
            values = builder.fadd(values, lanes.load(4)) if adds else values
            values = _clipped(builder, values, arguments[5])
            lanes.store(7, values)
            if store is not None:
                store(lanes, 8, *_above_and_below(builder, values))
            return target.get_dummy_value()

        return signature, generate

    return finish


def _packing(store: Store) -> Any:
    @intrinsic
    def pack(_context: Any, values: Any, place: Any, codes: Any) -> Any:
        """Write the signs of LANES values (n,) from `place` on into codes, uint8 (n / 4,)."""
        signature = types.void(values, place, codes)

        def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            lanes = _Lanes(target, builder, signature, arguments, place=1)
            store(lanes, 2, *_above_and_below(builder, lanes.load(0)))
            return target.get_dummy_value()

        return signature, generate

    return pack


def _comparing(store: Store) -> Any:
    @intrinsic
    def compare(_context: Any, counts: Any, direction: Any, threshold: Any, place: Any, codes: Any) -> Any:
        """Write LANES signs from `place` on: +1 where counts * direction > threshold, all int16 (n,), else -1."""
        signature = types.void(counts, direction, threshold, place, codes)

        def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            lanes = _Lanes(target, builder, signature, arguments, place=3)
            above = builder.icmp_signed(">", builder.mul(lanes.load(0), lanes.load(1)), lanes.load(2))
            store(lanes, 4, above, builder.not_(above))
            return target.get_dummy_value()

        return signature, generate

    return compare


class _Lanes:
    """Vectors of LANES values of the arrays among some arguments."""

    def __init__(self, target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any, place: int = 6) -> None:
        self.builder, self.place = builder, arguments[place]
        self.arrays: list[Any] = [
            target.make_array(kind)(target, builder, value) if isinstance(kind, types.Array) else None
            for kind, value in zip(signature.args, arguments, strict=True)
        ]

    def vector_of(self, array: int) -> ir.VectorType:
        return ir.VectorType(self.arrays[array].data.type.pointee, LANES)

    def load(self, array: int) -> ir.Value:
        pointer, kind = self._pointer(array, self.place), self.vector_of(array)
        return self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()), align=_bytes_of(kind.element))

    def store(self, array: int, values: ir.Value) -> None:
        pointer = self.builder.bitcast(self._pointer(array, self.place), values.type.as_pointer())
        self.builder.store(values, pointer, align=_bytes_of(values.type.element))

    def store_codes(self, array: int, above: ir.Value, below: ir.Value) -> None:
        """As codes of four signs (`recu.kernels.sign_lookup`)."""
        builder, byte = self.builder, ir.VectorType(ir.IntType(8), LANES)
        more = builder.add(builder.zext(above, byte), _all(byte, 1))
        signs_plus_one = builder.sub(more, builder.zext(below, byte))
        fours = ir.VectorType(ir.IntType(8 * SIGNS), LANES // SIGNS)
        gathered = builder.mul(builder.bitcast(signs_plus_one, fours), _all(fours, GATHER))
        codes = builder.trunc(
            builder.lshr(gathered, _all(fours, 8 * (SIGNS - 1))), ir.VectorType(ir.IntType(8), LANES // SIGNS)
        )
        pointer = self._pointer(array, builder.sdiv(self.place, self.place.type(SIGNS)))
        builder.store(codes, builder.bitcast(pointer, codes.type.as_pointer()), align=1)

    def store_planes(self, array: int, above: ir.Value, below: ir.Value) -> None:
        """As planes (`recu.kernels.sign_planes`), half of each."""
        builder, number = self.builder, self.place.type
        group = builder.sdiv(self.place, number(sign_planes.CHANNELS))
        within = builder.sdiv(builder.srem(self.place, number(sign_planes.CHANNELS)), number(8))
        begin = builder.add(builder.mul(group, number(sign_planes.BYTES)), within)
        for half, signs in enumerate((above, below)):
            bits = builder.bitcast(signs, ir.IntType(LANES))
            pointer = self._pointer(array, builder.add(begin, number(half * sign_planes.BYTES // 2)))
            builder.store(bits, builder.bitcast(pointer, bits.type.as_pointer()), align=1)

    def _pointer(self, array: int, place: ir.Value) -> ir.Value:
        return self.builder.gep(self.arrays[array].data, [place])


def _fused(builder: ir.IRBuilder, factor: ir.Value, other: ir.Value, term: ir.Value) -> ir.Value:
    kind = factor.type
    name = f"llvm.fma.v{kind.count}f{8 * _bytes_of(kind.element)}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, [factor, other, term])


def _clipped(builder: ir.IRBuilder, values: ir.Value, bound: ir.Value) -> ir.Value:
    """To [-bound, bound]; what is not a number stays so."""
    high = ir.Constant(values.type, ir.Undefined)
    for lane in range(LANES):
        high = builder.insert_element(high, bound, ir.IntType(32)(lane))
    low = builder.fneg(high)
    values = builder.select(builder.fcmp_ordered("<", values, low), low, values)
    return builder.select(builder.fcmp_ordered(">", values, high), high, values)


def _above_and_below(builder: ir.IRBuilder, values: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Which values are above 0 and which are below; neither for zero and for what is not a number."""
    zero = _all(values.type, 0)
    return builder.fcmp_ordered(">", values, zero), builder.fcmp_ordered("<", values, zero)


def _all(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _bytes_of(kind: ir.Type) -> int:
    return {ir.FloatType(): 4, ir.DoubleType(): 8}.get(kind) or kind.width // 8


finish_lanes, finish_lanes_with = (_finishing(adds=adds) for adds in (False, True))
finish_to_codes, finish_to_codes_with = (_finishing(adds=adds, store=_Lanes.store_codes) for adds in (False, True))
finish_to_planes, finish_to_planes_with = (_finishing(adds=adds, store=_Lanes.store_planes) for adds in (False, True))
pack_codes, pack_planes = (_packing(store) for store in (_Lanes.store_codes, _Lanes.store_planes))
compare_to_codes, compare_to_planes = (_comparing(store) for store in (_Lanes.store_codes, _Lanes.store_planes))
