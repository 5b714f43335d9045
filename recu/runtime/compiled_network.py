"""A packed network's operations as compiled loops, where numba is installed: the numbers of `Network`, to the last bit.

Operations in a row that `recu.kernels.sign_program` has steps for become one program, written when images of a size are
first seen; an operation without one is NumPy's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from recu.kernels.sign_network import Program, Shape
from recu.kernels.sign_program import has_step, joined, write_program
from recu.runtime.network import step_of
from recu.runtime.operations import OPERATIONS, Apply, Values
from recu.runtime.reader import PackedError

_MADE_ROWS = ("flatten", "linear")
"""Operations whose results are rows (N, C), which are images of one pixel in a program."""


class CompiledNetwork:
    """From normalised images (N, S, S, 3) float32 to logits (N, classes).

    Args:
        operations: as `recu.runtime.reader.Packed` has them.
        size: S, for which the programs are written; those of other sizes follow when such images come.
        threads: at most; the results do not depend on it.

    Raises:
        PackedError: an operation is not known, or lacks what it needs.
    """

    def __init__(self, operations: Sequence[Mapping[str, Any]], size: int, threads: int) -> None:
        for each in operations:
            if each.get("op") not in OPERATIONS:
                step_of(each, OPERATIONS)
        self._operations, self._threads = operations, threads
        self._plain: dict[int, Apply] = {}
        try:
            self._joined = together = joined(operations, 1)
            with_step = _with_steps(together)
            self._rows = _rows(together)
            self._parts: list[_Part | int] = []
            for has, group in groupby(range(len(operations)), key=with_step.__getitem__):
                numbers = list(group)
                self._parts += [_Part.of(together, numbers)] if has else numbers
            self(np.zeros((1, size, size, 3), np.float32))
        except (KeyError, TypeError, AttributeError) as error:
            raise PackedError(f"has an operation of another form ({error}): write it again") from error

    def __call__(self, images: Values) -> Values:
        """Logits."""
        values = {0: images}
        for part in self._parts:
            if isinstance(part, int):
                self._apply(part, values)
                continue
            if not part.outputs:  # nothing reads what it makes
                continue
            program = part.program_for([_shape_of(values[value]) for value in part.inputs])
            if program is None:
                for number in part.numbers:
                    self._apply(number, values)
                continue
            given = [_as_images(values[value]) for value in part.inputs]
            for value, found in zip(part.outputs, program.run(given, self._threads), strict=True):
                values[value] = found.reshape(len(found), -1) if value in self._rows else found
        return values[len(self._operations)]

    def _apply(self, number: int, values: dict[int, Values]) -> None:
        """As NumPy computes an operation."""
        operation = self._operations[number]
        if number not in self._plain:
            self._plain[number] = step_of(operation, OPERATIONS)
        found = self._plain[number](*(values[value] for value in operation["of"]))
        if operation["op"] == "norm" and self._joined[number].get("hardtanh"):
            # That of the next operation, which a compiled part takes for done.
            found = np.clip(found, np.float32(-1), np.float32(1))
        values[number + 1] = found


@dataclass
class _Part:
    """Operations that are one program."""

    numbers: list[int]
    operations: Sequence[Mapping[str, Any]]
    """With the values of the program in the place of the network's."""
    inputs: list[int]
    outputs: list[int]
    programs: dict[tuple[Shape, ...], Program | None]

    @classmethod
    def of(cls, operations: Sequence[Mapping[str, Any]], numbers: list[int]) -> _Part:
        inside, last = set(numbers), len(operations)
        inputs = sorted({value for number in numbers for value in operations[number]["of"] if value - 1 not in inside})
        read_later = {value for number, each in enumerate(operations) if number > numbers[-1] for value in each["of"]}
        outputs = [number + 1 for number in numbers if number + 1 in read_later or number + 1 == last]
        place = {value: index for index, value in enumerate((*inputs, *(number + 1 for number in numbers)))}
        own = [{**operations[number], "of": [place[value] for value in operations[number]["of"]]} for number in numbers]
        return cls(numbers, own, inputs, outputs, {})

    def program_for(self, shapes: Sequence[Shape]) -> Program | None:
        """For values of these shapes; None where an operation cannot take them."""
        key = tuple(shapes)
        if key not in self.programs:
            wanted = [self.numbers.index(value - 1) + len(self.inputs) for value in self.outputs]
            self.programs[key] = write_program(self.operations, key, np.float32, wanted)
        return self.programs[key]


def _with_steps(operations: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Which operations are part of a program: signs alone must not leave one."""
    found = [has_step(each) for each in operations]
    # Readers come later, so that they are decided before.
    for number in reversed(range(len(operations))):
        if operations[number].get("threshold") is not None:
            last = max((later for later, each in enumerate(operations) if number + 1 in each["of"]), default=number)
            found[number] = last > number and all(found[number : last + 1])
    return found


def _rows(operations: Sequence[Mapping[str, Any]]) -> set[int]:
    """Values that are rows (N, C)."""
    rows: set[int] = set()
    for number, operation in enumerate(operations):
        if operation["op"] in _MADE_ROWS or all(value in rows for value in operation["of"]):
            rows.add(number + 1)
    return rows


def _shape_of(values: Values) -> Shape:
    return Shape(1, 1, values.shape[1]) if values.ndim == 2 else Shape(*values.shape[1:])


def _as_images(values: Values) -> Values:
    return np.ascontiguousarray(values.reshape(len(values), *_shape_of(values)), np.float32)
