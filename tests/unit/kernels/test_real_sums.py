"""Sums of a block are those taken one by one, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from recu.kernels.real_sums import OUTPUTS, POSITIONS, add_products, in_blocks

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("positions", [1, POSITIONS])
@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_each_sum_is_taken_in_its_order(positions, count) -> None:
    values = RANDOM.standard_normal(200).astype(np.float32).astype(np.float64)
    weights = RANDOM.standard_normal((50, OUTPUTS)).astype(np.float32).astype(np.float64)
    before = RANDOM.standard_normal((POSITIONS, OUTPUTS))
    sums, expected = before.copy(), before.copy()
    values[17] = np.inf
    add_products(positions, sums, values, 11, 30, weights, 2, count, 3, 40, 4)
    for position in range(positions):
        for line in range(3):
            for term in range(count):
                expected[position] += values[11 + 40 * line + 30 * position + term] * weights[2 + 4 * line + term]
    assert np.array_equal(sums, expected)


@pytest.mark.parametrize("outputs", [1, OUTPUTS, OUTPUTS + 1, 3 * OUTPUTS])
def test_blocks_hold_each_output_and_zeros(outputs) -> None:
    weight = RANDOM.standard_normal((5, outputs)).astype(np.float32)
    blocks = in_blocks(weight)
    assert blocks.shape[1:] == (5, OUTPUTS)
    rows = blocks.transpose(1, 0, 2).reshape(5, -1)
    assert np.array_equal(rows[:, :outputs], weight) and not rows[:, outputs:].any()
