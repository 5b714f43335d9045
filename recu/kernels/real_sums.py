"""Sums of products of real numbers in float64 and in their order, for several outputs and positions at once.

Each sum is one chain of additions, which a processor cannot take side by side; the sums of different outputs it can.
Written as a loop over outputs, every product would read and write its sum in memory. Here the sums of a block stay in
registers while its products are added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recu.kernels import vectors
from recu.kernels.compiled import compiled

OUTPUTS, POSITIONS = 16, 2
"""Of a block: eight vectors, which take half of AVX2's registers and keep two units busy that need four steps an
addition. With vectors of 512 bits they would be four, which do not."""
_LANES = 4


def in_blocks(weight: np.ndarray) -> np.ndarray:
    """Weights (K, O) to (blocks, K, OUTPUTS) float64, with zeros for the outputs that are missing in the last one."""
    terms, outputs = weight.shape
    blocks = -(-outputs // OUTPUTS)
    padded = np.zeros((terms, blocks * OUTPUTS))
    padded[:, :outputs] = weight
    return np.ascontiguousarray(padded.reshape(terms, blocks, OUTPUTS).transpose(1, 0, 2))


@compiled
def add_products(positions, sums, values, first, step, weights, row, count, lines, line, row_line):
    """Add values[first + l * line + p * step + k] * weights[row + l * row_line + k] to sums[p], for each l below
    `lines`, and in it each k below `count`, in turn.

    A product is not rounded before it is added. Of numbers that float32 holds it is exact, rounded or not.

    Args:
        positions: p is below, 1 or POSITIONS.
        sums: float64 (POSITIONS, OUTPUTS).
        values: float64 (any,).
        weights: a block of `in_blocks`, float64 (K, OUTPUTS).
    """
    if positions == 1:
        _add_to_one(sums, values, first, step, weights, row, count, lines, line, row_line)
    else:
        _add_to_all(sums, values, first, step, weights, row, count, lines, line, row_line)


def _adding(positions: int) -> Any:
    """`add_products` for so many positions, with all of their sums in registers."""

    @intrinsic
    def add(
        _context: Any,
        sums: Any,
        values: Any,
        first: Any,
        step: Any,
        weights: Any,
        row: Any,
        count: Any,
        lines: Any,
        line: Any,
        row_line: Any,
    ) -> Any:
        signature = types.void(sums, values, first, step, weights, row, count, lines, line, row_line)

        def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            given = vectors.arrays_of(target, builder, signature, arguments)
            _generate(builder, positions, *(each if isinstance(each, ir.Value) else each.data for each in given))
            return target.get_dummy_value()

        return signature, generate

    return add


def _generate(
    builder: ir.IRBuilder,
    positions: int,
    sums: ir.Value,
    values: ir.Value,
    first: ir.Value,
    step: ir.Value,
    weights: ir.Value,
    row: ir.Value,
    count: ir.Value,
    lines: ir.Value,
    line: ir.Value,
    row_line: ir.Value,
) -> None:
    number, vector = ir.IntType(64), ir.VectorType(ir.DoubleType(), _LANES)
    kind = ir.FunctionType(vector, [vector] * 3)
    fused = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{_LANES}f64")

    def vectors_at(array: ir.Value, place: ir.Value) -> list[ir.Value]:
        places = (builder.add(place, number(lane)) for lane in range(0, OUTPUTS, _LANES))
        return [builder.bitcast(builder.gep(array, [each]), vector.as_pointer()) for each in places]

    def in_all_lanes(value: ir.Value) -> ir.Value:
        undefined, places = ir.Constant(vector, ir.Undefined), ir.VectorType(ir.IntType(32), _LANES)
        first_lane = builder.insert_element(undefined, value, ir.IntType(32)(0))
        return builder.shuffle_vector(first_lane, undefined, ir.Constant(places, [0] * _LANES))

    vectors = OUTPUTS // _LANES
    memory = [place for position in range(positions) for place in vectors_at(sums, number(OUTPUTS * position))]
    totals = [cgutils.alloca_once(builder, vector) for _ in memory]
    for place, total in zip(memory, totals, strict=True):
        builder.store(builder.load(place, align=8), total)
    with (
        cgutils.for_range(builder, lines, intp=number) as outer,
        cgutils.for_range(builder, count, intp=number) as inner,
    ):
        term = builder.add(builder.add(row, builder.mul(outer.index, row_line)), inner.index)
        weight = [builder.load(each, align=8) for each in vectors_at(weights, builder.mul(term, number(OUTPUTS)))]
        begin = builder.add(builder.add(first, builder.mul(outer.index, line)), inner.index)
        for position in range(positions):
            place = builder.add(begin, builder.mul(step, number(position)))
            value = in_all_lanes(builder.load(builder.gep(values, [place])))
            for total, factor in zip(totals[vectors * position :][:vectors], weight, strict=True):
                builder.store(builder.call(fused, [value, factor, builder.load(total)]), total)
    for place, total in zip(memory, totals, strict=True):
        builder.store(builder.load(total), place, align=8)


_add_to_one, _add_to_all = _adding(1), _adding(POSITIONS)
