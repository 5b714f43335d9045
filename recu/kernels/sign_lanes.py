"""What ends a convolution of signs, for 32 values at once: everything between reading and writing stays in registers.

Written as loops the same takes four passes over a row, since a compiler cannot know that a result may lie where the
residual was, and rows of bytes are narrowed one by one.
"""

from __future__ import annotations

import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recu.kernels.sign_lookup import PLACES, SIGNS

LANES = 32
"""Values at once."""
GATHER = sum(place << 8 * (SIGNS - 1 - i if sys.byteorder == "little" else i) for i, place in enumerate(PLACES))
"""Times four bytes, the signs plus 1, it has their code in its highest byte."""


def _finishing(*, adds: bool, packs: bool) -> Any:
    """A function that writes LANES values from `place` on: finish(counts, scale, factor, shift, added, bound, place,
    out, codes).

    counts: int16 (n,); scale, factor, shift, added, out: (n,) of one type, in one piece; bound: of that type;
    codes: uint8 (n / 4,), written if it `packs`; `added` is read if it `adds`.
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
            if packs:
                lanes.store_codes(8, _signs_plus_one(builder, values))
            return target.get_dummy_value()

        return signature, generate

    return finish


finish_lanes = _finishing(adds=False, packs=False)
finish_lanes_with = _finishing(adds=True, packs=False)
finish_and_pack_lanes = _finishing(adds=False, packs=True)
finish_and_pack_lanes_with = _finishing(adds=True, packs=True)


def _pack(_context: Any, values: Any, place: Any, codes: Any) -> Any:
    """Write the codes of LANES values (n,) from `place` on into codes, uint8 (n / 4,)."""
    signature = types.void(values, place, codes)

    def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        lanes = _Lanes(target, builder, signature, arguments, place=1)
        lanes.store_codes(2, _signs_plus_one(builder, lanes.load(0)))
        return target.get_dummy_value()

    return signature, generate


def _compare(_context: Any, counts: Any, direction: Any, threshold: Any, place: Any, codes: Any) -> Any:
    """Write the codes of LANES signs from `place` on: +1 where counts * direction > threshold, all int16 (n,)."""
    signature = types.void(counts, direction, threshold, place, codes)

    def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        lanes = _Lanes(target, builder, signature, arguments, place=3)
        above = builder.icmp_signed(">", builder.mul(lanes.load(0), lanes.load(1)), lanes.load(2))
        byte = ir.VectorType(ir.IntType(8), LANES)
        lanes.store_codes(4, builder.select(above, ir.Constant(byte, [2] * LANES), ir.Constant(byte, [0] * LANES)))
        return target.get_dummy_value()

    return signature, generate


pack_lanes: Any = intrinsic(_pack)
compare_lanes: Any = intrinsic(_compare)


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

    def store_codes(self, array: int, signs_plus_one: ir.Value) -> None:
        builder = self.builder
        fours = ir.VectorType(ir.IntType(8 * SIGNS), LANES // SIGNS)
        gathered = builder.mul(builder.bitcast(signs_plus_one, fours), _all(fours, GATHER))
        codes = builder.trunc(
            builder.lshr(gathered, _all(fours, 8 * (SIGNS - 1))), ir.VectorType(ir.IntType(8), LANES // SIGNS)
        )
        pointer = self._pointer(array, builder.sdiv(self.place, self.place.type(SIGNS)))
        builder.store(codes, builder.bitcast(pointer, codes.type.as_pointer()), align=1)

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


def _signs_plus_one(builder: ir.IRBuilder, values: ir.Value) -> ir.Value:
    """Bytes 2, 1 or 0; 1 for zero and for what is not a number."""
    byte, zero = ir.VectorType(ir.IntType(8), LANES), _all(values.type, 0)
    positive, negative = (builder.fcmp_ordered(sign, values, zero) for sign in (">", "<"))
    more = builder.add(builder.zext(positive, byte), _all(byte, 1))
    return builder.sub(more, builder.zext(negative, byte))


def _all(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _bytes_of(kind: ir.Type) -> int:
    return {ir.FloatType(): 4, ir.DoubleType(): 8}.get(kind) or kind.width // 8
