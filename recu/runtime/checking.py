"""Whether a packed file's operations go together: attributes of their kind, shapes as the next operation takes them.

What passes has one meaning, and all forms of an operation give it: none has to look again, and no loop reads beyond an
array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from recu.runtime.operations import OPERATIONS, windows_along
from recu.runtime.reader import PackedError

Shape = tuple[int, ...]
"""Of one image's values: (H, W, C), or (C,) of a row."""
_MOST_NUMBERS = 1 << 27
"""Of a value of one image, which are half a gigabyte."""


def count_logits(operations: Sequence[Mapping[str, Any]], size: int) -> int:
    """How many logits operations give for an image of this side.

    Args:
        operations: as `recu.runtime.reader.Packed` has them.
        size: in pixels.

    Raises:
        PackedError: as `shapes_of`, or the last result is an image.
    """
    last = shapes_of(operations, size)[-1]
    if len(last) != 1:
        raise PackedError(f"contradicts itself (its last result has the shape {last}, not logits): write it again")
    return last[0]


def shapes_of(operations: Sequence[Mapping[str, Any]], size: int) -> list[Shape]:
    """Of every value, the image's first. Raises PackedError: an operation is not known, has an attribute of another
    kind, or cannot take what it is given."""
    shapes: list[Shape] = [(size, size, 3)]
    for number, operation in enumerate(operations, 1):
        name, attributes = str(operation.get("op")), dict(operation)
        if name not in OPERATIONS:
            raise PackedError(f"has the operation {name!r}, which this version does not know: take a newer one")
        try:
            taken = [shapes[value] for value in attributes.pop("of")]
            del attributes["op"]
            shape = _RESULTS[name](*taken, **attributes)
            if min(shape) < 1 or math.prod(shape) > _MOST_NUMBERS:
                raise ValueError(f"a result of shape {shape}")
        except (TypeError, ValueError) as error:
            raise PackedError(
                f"contradicts itself in its operation {number}, {name!r} ({error}): write it again"
            ) from error
        shapes.append(shape)
    return shapes


def _binary(
    x: Shape,
    residual: Shape | None = None,
    *,
    weight: Any,
    stride: Any,
    padding: Any,
    threshold: Any = None,
    scale: Any = None,
    factor: Any = None,
    shift: Any = None,
    hardtanh: Any = False,
) -> Shape:
    shape = _convolved(x, weight, np.int8, stride, padding)
    filters = shape[-1:]
    if threshold is not None:
        _require(residual is scale is factor is shift is None and hardtanh is False, "a threshold with something else")
        _check_array("threshold", threshold, np.int32, filters)
        return shape
    _require(type(hardtanh) is bool, f"hardtanh {hardtanh!r}")
    _check_array("scale", scale, np.float32, filters, (1,))
    if factor is not None or shift is not None:
        _check_array("factor", factor, np.float32, filters)
        _check_array("shift", shift, np.float32, filters)
    return shape if residual is None else _added(shape, residual)


def _convolution(x: Shape, *, weight: Any, stride: Any, padding: Any, bias: Any = None) -> Shape:
    shape = _convolved(x, weight, np.float32, stride, padding)
    if bias is not None:
        _check_array("bias", bias, np.float32, shape[-1:])
    return shape


def _convolved(x: Shape, weight: Any, kind: type, stride: Any, padding: Any) -> Shape:
    channels = _image(x)[2]
    _require(isinstance(weight, np.ndarray) and weight.ndim == 4, "a weight that is no list of filters")
    filters, *taps, _ = weight.shape
    _check_array("weight", weight, kind, (filters, *taps, channels))
    return (*_positions(x, taps, stride, padding), filters)


def _positions(x: Shape, taps: Any, stride: Any, padding: Any) -> Shape:
    """(H', W') of windows that lie inside of an image with its padding."""
    sides = zip(x[:2], _pair(taps, 1), _pair(stride, 1), _pair(padding, 0), strict=True)
    return tuple((side + 2 * zeros - tap) // step + 1 for side, tap, step, zeros in sides)


def _linear(x: Shape, *, weight: Any, bias: Any = None) -> Shape:
    _require(len(x) == 1, "an image in the place of a row")
    _require(isinstance(weight, np.ndarray) and weight.ndim == 2, "a weight that is no list of rows")
    _check_array("weight", weight, np.float32, (len(weight), x[0]))
    if bias is not None:
        _check_array("bias", bias, np.float32, (len(weight),))
    return (len(weight),)


def _average_pool(x: Shape, *, window: Any, stride: Any = (1, 1)) -> Shape:
    if window is None:
        return 1, 1, _image(x)[2]
    sides = zip(_image(x)[:2], _pair(window, 1), _pair(stride, 1), strict=True)
    return (*(windows_along(*each) for each in sides), x[2])


def _max_pool(x: Shape, *, window: Any, stride: Any, padding: Any) -> Shape:
    return (*_positions(_image(x), window, stride, padding), x[2])


def _by_channel(name: str) -> Callable[..., Shape]:
    """Of an operation with these attributes, a number for each channel."""

    def result(x: Shape, **attributes: Any) -> Shape:
        _require(attributes.keys() == set(name.split()), f"the attributes {', '.join(attributes) or 'none'}")
        for each, values in attributes.items():
            _check_array(each, values, np.float32, x[-1:])
        return x

    return result


def _prelu(x: Shape, *, slope: Any) -> Shape:
    _check_array("slope", slope, np.float32, x[-1:], (1,))
    return x


def _hardtanh(x: Shape, *, low: Any, high: Any) -> Shape:
    numbers = all(type(each) in (int, float) and math.isfinite(each) for each in (low, high))
    _require(numbers and low <= high, f"low {low!r} and high {high!r}")
    return x


def _subsample(x: Shape, *, step: Any) -> Shape:
    height, width, channels = _image(x)
    step, _ = _pair([step, step], 1)
    return -(-height // step), -(-width // step), channels


def _pad_channels(x: Shape, *, before: Any, after: Any) -> Shape:
    height, width, channels = _image(x)
    return height, width, channels + sum(_pair([before, after], 0))


def _added(x: Shape, other: Shape) -> Shape:
    _require(len(x) == len(other), "an image and a row")
    return np.broadcast_shapes(x, other)


def _same(x: Shape) -> Shape:
    return x


_RESULTS: Mapping[str, Callable[..., Shape]] = MappingProxyType(
    {
        "binary": _binary,
        "convolution": _convolution,
        "linear": _linear,
        "mean": lambda x: (1, 1, _image(x)[2]),
        "average_pool": _average_pool,
        "max_pool": _max_pool,
        "norm": _by_channel("factor shift"),
        "scale": _by_channel("factor"),
        "bias": _by_channel("shift"),
        "prelu": _prelu,
        "hardtanh": _hardtanh,
        "relu": _same,
        "sign": _same,
        "add": _added,
        "subsample": _subsample,
        "pad_channels": _pad_channels,
        "flatten": lambda x: (math.prod(x),),
    }
)
"""From the shapes that an operation takes and its attributes to the shape of its result."""


def _require(right: bool, wrong: str) -> None:
    if not right:
        raise ValueError(wrong)


def _image(x: Shape) -> Shape:
    _require(len(x) == 3, "a row in the place of an image")
    return x


def _pair(values: Any, least: int) -> tuple[int, int]:
    right = (
        isinstance(values, list) and len(values) == 2 and all(type(each) is int and each >= least for each in values)
    )
    _require(right, f"{values!r} in the place of two whole numbers from {least} on")
    return values[0], values[1]


def _check_array(name: str, values: Any, kind: type, *shapes: Shape) -> None:
    right = isinstance(values, np.ndarray) and values.dtype == kind and values.shape in shapes
    found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else repr(values)
    _require(right, f"{name} {found}, expected {np.dtype(kind)} {' or '.join(map(str, shapes))}")
