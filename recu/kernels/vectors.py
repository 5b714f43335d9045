"""Instructions on whole registers, as loops in vectors need them beside what a compiler finds by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

WORD = ir.IntType(64)


def arrays_of(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> list[Any]:
    """The arguments of an intrinsic, arrays as what has their memory in `data`."""
    return [
        target.make_array(kind)(target, builder, value) if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, arguments, strict=True)
    ]


def in_all_lanes(builder: ir.IRBuilder, value: ir.Value, kind: ir.VectorType) -> ir.Value:
    """A number in every lane of a vector."""
    undefined = ir.Constant(kind, ir.Undefined)
    lane = builder.insert_element(undefined, value, ir.IntType(32)(0))
    first = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(lane, undefined, first)


def shuffled(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, lanes: Sequence[int]) -> ir.Value:
    """The lanes of these numbers, counted through two vectors of one type."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
    return builder.shuffle_vector(a, b, mask)


def load(builder: ir.IRBuilder, array: Any, place: ir.Value, kind: ir.VectorType) -> ir.Value:
    """The vector that begins `place` numbers behind an array's first."""
    return builder.load(_pointer(builder, array, place, kind), align=_size(kind))


def store(builder: ir.IRBuilder, value: ir.Value, array: Any, place: ir.Value) -> None:
    """The inverse of `load`."""
    builder.store(value, _pointer(builder, array, place, value.type), align=_size(value.type))


def call(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    """An operation of LLVM by its name."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _pointer(builder: ir.IRBuilder, array: Any, place: ir.Value, kind: ir.VectorType) -> ir.Value:
    return builder.bitcast(builder.gep(array.data, [place]), kind.as_pointer())


def _size(kind: ir.VectorType) -> int:
    """Of a number in bytes, to whose multiples its address is aligned for sure."""
    return 8 if kind.element in (ir.IntType(64), ir.DoubleType()) else 4
