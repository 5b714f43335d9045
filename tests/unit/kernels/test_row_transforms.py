"""Transforms across rows: every column as the formula says, whatever the number of columns and where they lie."""

import numpy as np
import pytest

from recu.kernels.compiled import compiled
from recu.kernels.row_transforms import row_transform

_plain = row_transform(3, 2, lambda a, b, c: (a + 3 * b, b - c))
_scaled = row_transform(
    2, 2, lambda a, b, factor, old, other: (old + a * factor, other - 2 * (a - b)), scales=True, adds=True
)


@compiled
def plain(source, factor, result):
    _plain(source, factor, result)


@compiled
def scaled(source, factor, result):
    _scaled(source, factor, result)


every_type = pytest.mark.parametrize("dtype", [np.float32, np.float64])
every_length = pytest.mark.parametrize("columns", [0, 1, 3, 4, 7, 8, 9, 64, 67])


def _table(rows, columns, dtype, seed=0):
    """Rows with a gap between them, in which nothing may be written."""
    values = np.random.default_rng(seed).standard_normal((rows, columns + 5)).astype(dtype)
    return values, values[:, :columns]


@every_type
@every_length
def test_a_whole_number_times_a_value_is_in_double_precision_and_the_rest_in_the_rows_own(dtype, columns):
    _, source = _table(3, columns, dtype)
    room, result = _table(2, columns, dtype, seed=1)
    gap = room[:, columns:].copy()
    plain(source, dtype(1), result)
    assert np.array_equal(result[0], (source[0] + 3.0 * source[1].astype(np.float64)).astype(dtype))
    assert np.array_equal(result[1], source[1] - source[2])
    assert np.array_equal(room[:, columns:], gap)


@every_type
@every_length
def test_a_factor_and_what_lies_in_the_result(dtype, columns):
    _, source = _table(2, columns, dtype)
    _, result = _table(2, columns, dtype, seed=1)
    before, factor = result.copy(), dtype(0.3)
    scaled(source, factor, result)
    assert np.array_equal(result[0], before[0] + source[0] * factor)
    assert np.array_equal(result[1], (before[1] - 2.0 * (source[0] - source[1]).astype(np.float64)).astype(dtype))


def test_what_is_not_a_number_stays_in_its_column():
    source, result = np.ones((3, 9), np.float32), np.zeros((2, 9), np.float32)
    source[0, 4] = np.nan
    plain(source, np.float32(1), result)
    assert np.isnan(result[0, 4]) and np.isfinite(np.delete(result[0], 4)).all() and np.isfinite(result[1]).all()
