"""A packed network's operations, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recu.runtime.operations import OPERATIONS, Apply, Values
from recu.runtime.reader import PackedError


class Network:
    """From normalised images (N, S, S, 3) float32 to logits (N, classes)."""

    def __init__(
        self, operations: Sequence[Mapping[str, Any]], made: Mapping[str, Callable[..., Apply]] = OPERATIONS
    ) -> None:
        """A network of the operations of a file.

        Args:
            operations: as `recu.runtime.reader.Packed` has them.
            made: what makes each, by its name.

        Raises:
            PackedError: one is not known, or lacks what it needs.
        """
        self._steps = [(step_of(each, made), tuple(each["of"])) for each in operations]
        self._last_use = {value: number for number, (_, taken) in enumerate(self._steps) for value in taken}

    def __call__(self, images: Values) -> Values:
        """Logits; a value is kept as long as an operation is to come that takes it."""
        values = {0: images}
        for number, (apply, taken) in enumerate(self._steps):
            values[number + 1] = apply(*(values[value] for value in taken))
            for value in set(taken):
                if self._last_use[value] == number:
                    del values[value]
        return values[len(self._steps)]


def step_of(operation: Mapping[str, Any], made: Mapping[str, Callable[..., Apply]]) -> Apply:
    """What computes an operation of a file; raises PackedError."""
    name = str(operation.get("op"))
    attributes = {key: value for key, value in operation.items() if key not in ("op", "of")}
    if name not in made:
        raise PackedError(f"has the operation {name!r}, which this version does not know: take a newer one")
    try:
        return made[name](**attributes)
    except TypeError as error:
        raise PackedError(f"has an operation {name!r} of another form ({error}): write it again") from error
