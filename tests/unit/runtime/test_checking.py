"""What goes together has one meaning, and what does not is refused before anything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recu.runtime.checking import count_logits, shapes_of
from recu.runtime.network import step_of
from recu.runtime.operations import OPERATIONS
from recu.runtime.reader import PackedError
from tests.unit.runtime.test_compiled_network import binary, every_operation, reals


@pytest.mark.parametrize("size", [13, 16, 21])
def test_shapes_are_those_that_numpy_gives(size) -> None:
    operations = every_operation()
    values = [reals(2, size, size, 3)]
    for operation in operations:
        values.append(step_of(operation, OPERATIONS)(*(values[value] for value in operation["of"])))
    assert shapes_of(operations, size) == [value.shape[1:] for value in values]
    assert count_logits(operations, size) == 7


@pytest.mark.parametrize("window", range(1, 8))
@pytest.mark.parametrize("stride", range(1, 9))
def test_shapes_of_windows(window, stride) -> None:
    operation = {"op": "average_pool", "of": [0], "window": [window, window], "stride": [stride, 1]}
    found = step_of(operation, OPERATIONS)(reals(1, 7, 7, 3))
    assert shapes_of([operation], 7)[-1] == found.shape[1:]


CONVOLUTION, NORM, HARDTANH, POOL, THRESHOLD, BINARY, PRELU, AVERAGE, PAD, SUBSAMPLE, LINEAR = (
    *(0, 1, 2, 3, 4, 5, 7, 12, 13, 14, 20),
)


@pytest.mark.parametrize(
    ("number", "changed"),
    [
        (CONVOLUTION, {"weight": reals(16, 3, 5, 4)}),
        (CONVOLUTION, {"weight": np.ones((16, 3, 5, 3), np.int8)}),
        (CONVOLUTION, {"weight": reals(16, 3)}),
        (CONVOLUTION, {"weight": reals(0, 3, 5, 3)}),
        (CONVOLUTION, {"weight": reals(16, 99, 5, 3)}),
        (CONVOLUTION, {"bias": reals(1)}),
        (CONVOLUTION, {"stride": [0, 1]}),
        (CONVOLUTION, {"stride": [1]}),
        (CONVOLUTION, {"stride": [1.0, 1]}),
        (CONVOLUTION, {"stride": [True, 1]}),
        (CONVOLUTION, {"stride": None}),
        (CONVOLUTION, {"padding": [-1, 0]}),
        (CONVOLUTION, {"padding": [10**9, 10**9]}),
        (NORM, {"factor": reals(1)}),
        (NORM, {"factor": np.ones(16, np.int32)}),
        (NORM, {"shift": None}),
        (HARDTANH, {"low": float("nan")}),
        (HARDTANH, {"low": 2.0}),
        (HARDTANH, {"high": True}),
        (POOL, {"window": [99, 3]}),
        (THRESHOLD, {"threshold": np.int32([1])}),
        (THRESHOLD, {"threshold": reals(20)}),
        (THRESHOLD, {"scale": reals(20)}),
        (THRESHOLD, {"of": [4, 4]}),
        (BINARY, {"weight": reals(16, 3, 3, 20)}),
        (BINARY, {"scale": reals(2)}),
        (BINARY, {"scale": None}),
        (BINARY, {"factor": reals(1)}),
        (BINARY, {"shift": None}),
        (BINARY, {"hardtanh": 1}),
        (BINARY, {"of": [5, 0]}),
        (BINARY, {"of": []}),
        (BINARY, {"zebra": 1}),
        (PRELU, {"slope": reals(2)}),
        (AVERAGE, {"window": [0, 0]}),
        (PAD, {"before": 10**12}),
        (SUBSAMPLE, {"step": 0}),
        (LINEAR, {"weight": reals(7, 23)}),
        (LINEAR, {"of": [18]}),
    ],
)
def test_what_contradicts_itself_is_refused(number: int, changed: dict[str, Any]) -> None:
    operations = every_operation()
    count_logits(operations, 16)
    operations[number] |= changed
    with pytest.raises(PackedError, match=f"contradicts itself in its operation {number + 1}, '"):
        count_logits(operations, 16)


def test_what_is_not_known_is_refused() -> None:
    for name in ("attention", None, ["add"]):
        with pytest.raises(PackedError, match="which this version does not know"):
            count_logits([{"op": name, "of": [0]}], 16)
    with pytest.raises(PackedError, match=r"its last result has the shape \(16, 16, 20\), not logits"):
        count_logits([binary([0], 20, 3, threshold=np.zeros(20, np.int32))], 16)
