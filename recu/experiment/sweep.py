"""A row of a suite with a `sweep` as the rows that it stands for, one for each combination of values. Pure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

from recu.base.errors import ConfigError
from recu.experiment.params import validate_model
from recu.experiment.schema import HyperparameterOverrides, Row, Sweep
from recu.experiment.values import Name


def swept(row: Row, where: str) -> list[Row]:
    """The rows that a row stands for: itself without a sweep, else one for each combination of values, named by them.

    Args:
        row: as a suite's file has it.
        where: the file, for messages.

    Raises:
        ConfigError: a hyper-parameter is swept and set at once, or a value cannot be part of a name.
    """
    sweep = row.sweep.model_dump(mode="json", exclude_unset=True)
    if not sweep:
        return [row]
    layers = {"hyperparameters": row.hyperparameters} | {f"methods.{name}": each for name, each in row.methods.items()}
    for name, layer in layers.items():
        both = sorted(sweep.keys() & layer.model_fields_set)
        if both:
            raise ConfigError(f"{where}: {row.label}: {both[0]} is in sweep and in {name}: expected in one of the two")
    own = row.hyperparameters.model_dump(mode="json", exclude_unset=True)
    combinations = (dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values()))
    return [_settled(row, own, changes, where) for changes in combinations]


def _settled(row: Row, own: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> Row:
    name = "--".join(filter(None, (row.name, *(f"{key}-{_worded(value)}" for key, value in changes.items()))))
    update = {
        "name": validate_model(json.dumps(name), Name, f"{where}: {row.label}: sweep: the row's name {name!r}"),
        "hyperparameters": validate_model({**own, **changes}, HyperparameterOverrides, f"{where}: {row.label}"),
        "sweep": Sweep(),
    }
    return row.model_copy(update=update)


def _worded(value: Any) -> str:
    """A value as part of a name."""
    if isinstance(value, list):
        return "_".join(map(_worded, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)
