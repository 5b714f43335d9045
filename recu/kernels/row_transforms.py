"""Linear transforms across the rows of a small table, column by column, many columns at once.

A compiler does not see that a dozen rows never overlap, and computes such a loop one column at a time. Here the loop is
written in vectors; each column is computed in the order that the formula says, so that no result depends on their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_BYTES = 32
"""Of a vector: what the processors at hand have in one register, some of them in half of one."""


class Column:
    """Values of one or several columns, in a formula. A whole number times a value is in double precision, as is what
    is computed with that; a result is rounded when it is written."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self._builder, self._value = builder, value

    def __add__(self, other: Column) -> Column:
        return self._with(self._builder.fadd, other)

    def __sub__(self, other: Column) -> Column:
        return self._with(self._builder.fsub, other)

    def __mul__(self, other: Column) -> Column:
        return self._with(self._builder.fmul, other)

    def __rmul__(self, factor: int) -> Column:
        double = _like(self._value.type, ir.DoubleType())
        constant = [float(factor)] * double.count if isinstance(double, ir.VectorType) else float(factor)
        return Column(self._builder, ir.Constant(double, constant)) * self

    def rounded_to(self, kind: ir.Type) -> ir.Value:
        """The value as one of a type of as many columns."""
        return self._value if self._value.type == kind else self._builder.fptrunc(self._value, kind)

    def _with(self, operation: Callable[[ir.Value, ir.Value], ir.Value], other: Column) -> Column:
        values = self._value, other._value
        if values[0].type != values[1].type:
            double = _like(self._value.type, ir.DoubleType())
            values = tuple(value if value.type == double else self._builder.fpext(value, double) for value in values)
        return Column(self._builder, operation(*values))


Formula = Callable[..., Sequence[Column]]
"""From the rows of a column, and whatever else a transform is told, to the rows of its result."""


def row_transform(inputs: int, outputs: int, formula: Formula, *, scales: bool = False, adds: bool = False) -> Any:
    """A function transform(source, factor, result) for compiled loops.

    Args:
        inputs: rows of `source`, (inputs, n) with its columns side by side.
        outputs: rows of `result`, likewise, which must not overlap `source`.
        formula: takes `inputs` columns, then the factor if it `scales`, then the `outputs` columns of `result` as they
            are if it `adds`; gives `outputs` columns.
        scales: whether the formula takes the factor, of the rows' type.
        adds: whether the formula takes what is in `result`.
    """

    @intrinsic
    def transform(_context: Any, source: Any, factor: Any, result: Any) -> Any:
        def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            tables = [
                target.make_array(kind)(target, builder, value)
                for kind, value in ((signature.args[0], arguments[0]), (signature.args[2], arguments[2]))
            ]
            source_rows, result_rows = (
                _rows(builder, table, count) for table, count in zip(tables, (inputs, outputs), strict=True)
            )
            length = cgutils.unpack_tuple(builder, tables[0].shape)[1]
            element = arguments[1].type

            def columns_at(place: ir.Value, kind: ir.Type) -> None:
                taken = [_load(builder, row, place, kind) for row in source_rows]
                taken += [Column(builder, _broadcast(builder, arguments[1], kind))] if scales else []
                taken += [_load(builder, row, place, kind) for row in result_rows] if adds else []
                for row, column in zip(result_rows, formula(*taken), strict=True):
                    builder.store(column.rounded_to(kind), _pointer(builder, row, place, kind), align=_size(element))

            lanes = _BYTES // _size(element)
            whole = builder.and_(length, length.type(-lanes))
            for start, stop, step, kind in (
                (length.type(0), whole, lanes, ir.VectorType(element, lanes)),
                (whole, length, 1, element),
            ):
                with cgutils.for_range_slice(builder, start, stop, length.type(step), inc=True) as (place, _):
                    columns_at(place, kind)
            return target.get_dummy_value()

        return types.void(source, factor, result), generate

    return transform


def _like(kind: ir.Type, element: ir.Type) -> ir.Type:
    """A type of as many columns."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _rows(builder: ir.IRBuilder, table: Any, count: int) -> list[ir.Value]:
    """Pointers to the first value of each row."""
    stride = cgutils.unpack_tuple(builder, table.strides)[0]
    byte = ir.IntType(8).as_pointer()
    first = builder.bitcast(table.data, byte)
    places = (builder.gep(first, [builder.mul(stride, stride.type(row))]) for row in range(count))
    return [builder.bitcast(place, table.data.type) for place in places]


def _load(builder: ir.IRBuilder, row: ir.Value, place: ir.Value, kind: ir.Type) -> Column:
    return Column(builder, builder.load(_pointer(builder, row, place, kind), align=_size(row.type.pointee)))


def _pointer(builder: ir.IRBuilder, row: ir.Value, place: ir.Value, kind: ir.Type) -> ir.Value:
    return builder.bitcast(builder.gep(row, [place]), kind.as_pointer())


def _broadcast(builder: ir.IRBuilder, value: ir.Value, kind: ir.Type) -> ir.Value:
    if not isinstance(kind, ir.VectorType):
        return value
    vector = ir.Constant(kind, ir.Undefined)
    for lane in range(kind.count):
        vector = builder.insert_element(vector, value, ir.IntType(32)(lane))
    return vector


def _size(element: ir.Type) -> int:
    return 4 if element == ir.FloatType() else 8
