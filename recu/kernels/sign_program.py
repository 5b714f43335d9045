"""From a network's list of operations to a `Program`: which go together, which memory may be taken again.

An operation is a mapping as a packed file has it (docs/packed.md): `op` names it, `of` lists the values it takes; the
first values are what the program is given, then comes the result of each operation. A norm, a binary convolution and a
real one may have `hardtanh`, a binary convolution `filters` (`FilterCodes`) in the place of `weight` and `direction`
beside `threshold`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from recu.kernels.sign_codes import LARGEST_COUNT, Affine, FilterCodes, pack_filters
from recu.kernels.sign_network import Program, Shape, Signs, Values

Operation = Mapping[str, Any]


def has_step(operation: Operation) -> bool:
    """Whether a program has a step for an operation."""
    return operation["op"] in _STEPS and _STEPS[operation["op"]][1](operation)


def joined(operations: Sequence[Operation], inputs: int) -> list[Operation]:
    """The same with each hardtanh that alone follows a norm in that; the numbers of all values stay.

    An operation that is in another one by now is an `alias`, whose result is what it takes.
    """
    readers = _readers(operations, inputs)
    found = [dict(each) for each in operations]
    for number, operation in enumerate(found):
        if operation["op"] == "norm" and len(readers[inputs + number]) == 1:
            (reader,) = readers[inputs + number]
            if reader < len(found) and found[reader]["op"] == "hardtanh" and _clips_to_one(found[reader]):
                operation["hardtanh"] = True
                found[reader] = {"op": "alias", "of": found[reader]["of"]}
    return list(found)


def write_program(
    operations: Sequence[Operation], shapes: Sequence[Shape], dtype: np.dtype | type, outputs: Sequence[int]
) -> Program | None:
    """The program of operations that have a step each.

    Args:
        operations: in their order.
        shapes: of what the program is given.
        dtype: float32 or float64.
        outputs: the values that are wanted, none of them signs alone.

    Returns:
        None where an operation cannot take a value of the shape it would be given.
    """
    return _Writer(operations, shapes, dtype, outputs).write()


def _readers(operations: Sequence[Operation], inputs: int) -> dict[int, list[int]]:
    """The operations that take each value."""
    readers: dict[int, list[int]] = {value: [] for value in range(inputs + len(operations))}
    for number, operation in enumerate(operations):
        for value in operation["of"]:
            readers[value].append(number)
    return readers


def _clips_to_one(operation: Operation) -> bool:
    return (operation["low"], operation["high"]) == (-1.0, 1.0)


class _DoesNotFit(Exception):
    """An operation cannot take a value of this shape."""


class _Writer:
    def __init__(
        self, operations: Sequence[Operation], shapes: Sequence[Shape], dtype: np.dtype | type, outputs: Sequence[int]
    ) -> None:
        self._operations, self._inputs, self._outputs = operations, len(shapes), outputs
        self.program = Program(np.dtype(dtype), shapes)
        self._readers = _readers(operations, len(shapes))
        self._values: dict[int, Values] = dict(enumerate(self.program.inputs))
        self._signs: dict[int, Signs] = {}

    def write(self) -> Program | None:
        try:
            for number, operation in enumerate(self._operations):
                _STEPS[operation["op"]][0](self, operation, self._inputs + number, number)
                for value in set(operation["of"]):
                    if self._is_last(value, number):
                        self._release(value)
        except _DoesNotFit:
            return None
        return self.program.finish([self._values[value] for value in self._outputs])

    def _is_last(self, value: int, number: int) -> bool:
        """Whether nothing reads a value after an operation."""
        return value not in self._outputs and max(self._readers[value]) == number

    def _release(self, value: int) -> None:
        for written in (self._values.pop(value, None), self._signs.pop(value, None)):
            if written is not None:
                self.program.release(written)

    def _own(self, value: int, number: int) -> Values:
        """A value that the operation may write over: itself where nothing else reads it, or a copy."""
        if self._readers[value] == [number] and value not in self._outputs:
            return self._values.pop(value)
        return self.program.largest(self._values[value], 1, 1, 0)

    def _code_padding(self, result: int) -> tuple[int, int] | None:
        """Of the first binary convolution that takes the signs of a result."""
        for reader in self._readers[result]:
            operation = self._operations[reader]
            if operation["op"] == "binary" and operation["of"][0] == result:
                return _pair(operation["padding"])
            if operation["op"] == "alias":
                return self._code_padding(self._inputs + reader)
        return None

    def _keep(self, result: int, values: Values, signs: Signs | None = None) -> None:
        self._values[result] = values
        if signs is not None:
            self._signs[result] = signs

    def alias(self, operation: Operation, result: int, _number: int) -> None:
        (source,) = operation["of"]
        self._keep(result, self._values.pop(source), self._signs.pop(source, None))

    def binary(self, operation: Operation, result: int, number: int) -> None:
        source, *added = operation["of"]
        filters = _filters(operation)
        padding, stride = _pair(operation["padding"]), _pair(operation["stride"])
        shape = (self._signs.get(source) or self._values[source]).shape
        sides = zip(shape[:2], filters.taps, padding, strict=True)
        if shape.channels != filters.channels or any(side + 2 * zeros < taps for side, taps, zeros in sides):
            raise _DoesNotFit
        signs = self._signs.get(source)
        if signs is None or signs.padding != padding:
            if source not in self._values:
                raise _DoesNotFit
            packed = self.program.pack(self._values[source], padding)
            if signs is None:
                self._signs[source] = packed
            signs = packed
        if operation.get("threshold") is not None:
            direction = operation.get("direction", np.ones(filters.filters, np.int16))
            bounds = (direction, operation["threshold"])
            written = self.program.convolve_to_signs(
                signs, filters, stride, *bounds, self._code_padding(result) or (0, 0)
            )
            self._signs[result] = written
            return
        residual = self._values[added[0]] if added else None
        if residual is not None and residual.shape != self.program.result_shape(signs, filters, stride):
            raise _DoesNotFit
        in_place = bool(added) and self._is_last(added[0], number)
        values, written_too = self.program.convolve_to_values(
            signs,
            filters,
            stride,
            _affine(operation, filters.filters),
            residual=residual,
            hardtanh=bool(operation.get("hardtanh")),
            in_place=in_place,
            code_padding=self._code_padding(result),
        )
        if in_place:
            del self._values[added[0]]
        self._keep(result, values, written_too)

    def norm(self, operation: Operation, result: int, number: int) -> None:
        (source,) = operation["of"]
        factor, shift = operation["factor"], operation["shift"]
        self._normalise(source, factor, shift, bool(operation.get("hardtanh")), result, number)

    def scale(self, operation: Operation, result: int, number: int) -> None:
        # Minus zero, which changes no product.
        factor = operation["factor"]
        self._normalise(operation["of"][0], factor, np.full_like(factor, -0.0), False, result, number)

    def bias(self, operation: Operation, result: int, number: int) -> None:
        shift = operation["shift"]
        self._normalise(operation["of"][0], np.ones_like(shift), shift, False, result, number)

    def hardtanh(self, operation: Operation, result: int, number: int) -> None:
        (source,) = operation["of"]
        ones = np.ones(self._values[source].shape.channels, np.float32)
        self._normalise(source, ones, -0.0 * ones, True, result, number)

    def _normalise(
        self, source: int, factor: np.ndarray, shift: np.ndarray, hardtanh: bool, result: int, number: int
    ) -> None:
        if len(factor) != self._values[source].shape.channels:
            raise _DoesNotFit
        values = self._own(source, number)
        padding = self._code_padding(result)
        signs = self.program.normalise(values, factor, shift, hardtanh=hardtanh, code_padding=padding)
        self._keep(result, values, signs)

    def prelu(self, operation: Operation, result: int, number: int) -> None:
        (source,) = operation["of"]
        if len(operation["slope"]) != self._values[source].shape.channels:
            raise _DoesNotFit
        values = self._own(source, number)
        self.program.prelu(values, operation["slope"])
        self._keep(result, values)

    def max_pool(self, operation: Operation, result: int, _number: int) -> None:
        values = self._values[operation["of"][0]]
        window, stride, padding = (operation[name][0] for name in ("window", "stride", "padding"))
        if min(values.shape[:2]) + 2 * padding < window:
            raise _DoesNotFit
        self._keep(result, self.program.largest(values, window, stride, padding))

    def average_pool(self, operation: Operation, result: int, _number: int) -> None:
        values = self._values[operation["of"][0]]
        if operation["window"] is None and values.shape.height != values.shape.width:
            raise _DoesNotFit
        side = values.shape.height if operation["window"] is None else operation["window"][0]
        self._keep(result, self.program.average(values, side, 0, 0))

    def pad_channels(self, operation: Operation, result: int, _number: int) -> None:
        values = self._values[operation["of"][0]]
        if min(operation["before"], operation["after"]) < 0:  # fewer channels, not more
            raise _DoesNotFit
        self._keep(result, self.program.average(values, 1, operation["before"], operation["after"]))

    def subsample(self, operation: Operation, result: int, _number: int) -> None:
        self._keep(result, self.program.largest(self._values[operation["of"][0]], 1, operation["step"], 0))

    def add(self, operation: Operation, result: int, _number: int) -> None:
        first, second = (self._values[value] for value in operation["of"])
        if first.shape != second.shape:
            raise _DoesNotFit
        self._keep(result, self.program.add(first, second))

    def convolution(self, operation: Operation, result: int, _number: int) -> None:
        values, weight = self._values[operation["of"][0]], operation["weight"]
        stride, padding = _pair(operation["stride"]), _pair(operation["padding"])
        sides = zip(values.shape[:2], weight.shape[1:3], padding, strict=True)
        if weight.shape[3] != values.shape.channels or any(side + 2 * zeros < taps for side, taps, zeros in sides):
            raise _DoesNotFit
        self._keep(result, self.program.convolve_reals(values, weight, operation.get("bias"), stride, padding))

    def linear(self, operation: Operation, result: int, _number: int) -> None:
        values, weight = self._values[operation["of"][0]], operation["weight"]
        if values.shape != (1, 1, weight.shape[1]):
            raise _DoesNotFit
        taps = weight[:, None, None]
        self._keep(result, self.program.convolve_reals(values, taps, operation.get("bias"), (1, 1), (0, 0)))

    def mean(self, operation: Operation, result: int, _number: int) -> None:
        self._keep(result, self.program.mean(self._values[operation["of"][0]]))

    def flatten(self, operation: Operation, result: int, _number: int) -> None:
        self._keep(result, self.program.flatten(self._values[operation["of"][0]]))


def _filters(operation: Operation) -> FilterCodes:
    filters: FilterCodes | None = operation.get("filters") or pack_filters(operation["weight"].transpose(0, 3, 1, 2))
    if filters is None:
        raise ValueError("a binary convolution has a weight without a sign")
    return filters


def _affine(operation: Operation, filters: int) -> Affine:
    scale = np.broadcast_to(operation["scale"], filters)
    factor, shift = operation.get("factor"), operation.get("shift")
    if factor is None or shift is None:
        factor, shift = np.ones_like(scale), np.full_like(scale, -0.0)
    return Affine(scale, factor, shift)


def _pair(sides: Sequence[int]) -> tuple[int, int]:
    down, across = sides
    return int(down), int(across)


def _is_square(*names: str) -> Callable[[Operation], bool]:
    return lambda operation: all(operation[name][0] == operation[name][1] for name in names)


def _is_binary(operation: Operation) -> bool:
    """Whether none of its weights is zero, and their sum fits two bytes."""
    if operation.get("filters") is not None:
        return True
    weight = operation["weight"]
    return bool((weight != 0).all()) and 0 < weight[0].size <= LARGEST_COUNT


def _always(_operation: Operation) -> bool:
    return True


_STEPS: Mapping[str, tuple[Callable[[_Writer, Operation, int, int], None], Callable[[Operation], bool]]] = {
    "alias": (_Writer.alias, _always),
    "binary": (_Writer.binary, _is_binary),
    "norm": (_Writer.norm, _always),
    "scale": (_Writer.scale, _always),
    "bias": (_Writer.bias, _always),
    "hardtanh": (_Writer.hardtanh, _clips_to_one),
    "prelu": (_Writer.prelu, _always),
    "max_pool": (_Writer.max_pool, _is_square("window", "stride", "padding")),
    "average_pool": (
        _Writer.average_pool,
        lambda each: (
            each["window"] is None
            or (tuple(each["window"]) == tuple(each["stride"]) and each["window"][0] == each["window"][1])
        ),
    ),
    "pad_channels": (_Writer.pad_channels, _always),
    "subsample": (_Writer.subsample, _always),
    "add": (_Writer.add, _always),
    # Padding times infinity is not a number, and the loop leaves padding out.
    "convolution": (_Writer.convolution, lambda each: bool(np.isfinite(each["weight"]).all())),
    "linear": (_Writer.linear, _always),
    "mean": (_Writer.mean, _always),
    "flatten": (_Writer.flatten, _always),
}
"""What writes the steps of an operation, and whether it can."""
