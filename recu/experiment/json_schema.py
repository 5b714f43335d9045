"""What the models of params/ say, for others to read: JSON schemas for editors, docs/reference.md for people.

`python -m recu.experiment.json_schema` writes both into the checkout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import TypeAdapter

from recu.base.files import atomic_write_text
from recu.experiment.params import load_defaults
from recu.experiment.paths import PROJECT_DIR, find_params
from recu.experiment.rates import Rates
from recu.experiment.schema import (
    Claims,
    Datasets,
    Defaults,
    Hyperparameters,
    Published,
    ReleasedSuite,
    Suite,
    WorkflowConfig,
)
from recu.experiment.values import LARGEST, MODEL_PATTERN, NAME_PATTERN

SCHEMAS: dict[str, Any] = {
    "config": WorkflowConfig,
    "defaults": Defaults,
    "datasets": Datasets,
    "suite": Suite,
    "released-suite": ReleasedSuite,
    "published": Published,
    "claims": Claims,
    "rates": Rates,
}
"""By the name of the kind of file."""

_HEAD = """# Reference

Every key of the files in `params/`, as `make schemas` writes it from `recu/experiment/schema.py`. A key without default
has to be given. Hyper-parameters other than `init_from` and `teacher` are options `--NAME` of `recu train`;
where their values come from stands beside them in `params/defaults.yaml`.
"""
_COMMON = ("Hyperparameters", "HyperparameterOverrides")


def texts() -> dict[str, str]:
    """By path in the checkout, the content of every file that is made from the models."""
    schemas = {f"workflow/schemas/{name}.schema.json": _schema_text(name, kind) for name, kind in SCHEMAS.items()}
    return schemas | {"docs/reference.md": reference_text()}


def reference_text() -> str:
    """docs/reference.md: a table for each block of params/."""
    blocks = [_block("Hyper-parameters", Hyperparameters.model_json_schema(), _recipes())]
    for name, kind in SCHEMAS.items():
        schema = TypeAdapter(kind).json_schema()
        parts = {key: part for key, part in schema.pop("$defs", {}).items() if key not in _COMMON}
        if "properties" in schema:
            blocks.append(_block(f"File `{name}`", schema))
        blocks += [_block(f"`{key}` in file `{name}`", part) for key, part in parts.items() if "properties" in part]
    return "\n".join((_HEAD, *blocks))


def _recipes() -> dict[str, str]:
    """By hyper-parameter, its default and those of families that have another."""
    defaults = load_defaults(find_params())
    usual = defaults.recipe("cifar")
    found = {name: [_code(value)] for name, value in usual.items()}
    for family in defaults.families:
        for name, value in defaults.recipe(family).items():
            if value != usual[name]:
                found[name].append(f"{family} {_code(value)}")
    return {name: "; ".join(values) for name, values in found.items()}


def _block(title: str, schema: dict[str, Any], defaults: Mapping[str, str] = MappingProxyType({})) -> str:
    lines = [
        f"## {title}\n",
        f"{_line(schema['description'])}\n",
        "| key | value | default | meaning |",
        "|---|---|---|---|",
    ]
    for key, part in schema["properties"].items():
        usual = "" if key in schema.get("required", ()) else _code(part.get("default", {}))
        lines.append(f"| `{key}` | {_value(part)} | {defaults.get(key, usual)} | {_line(part['description'])} |")
    return "\n".join((*lines, ""))


def _value(schema: dict[str, Any]) -> str:
    """What may stand there, in words."""
    if "anyOf" in schema:
        return " or ".join(_value(option) for option in schema["anyOf"])
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "enum" in schema or "const" in schema:
        return ", ".join(_code(choice) for choice in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("prefixItems")
        return f"{len(items)} times {_value(items[0])}" if items else f"list of {_value(schema['items'])}"
    if kind == "object":
        inner = schema.get("patternProperties") or {"": schema["additionalProperties"]}
        return f"mapping of names to {' or '.join(map(_value, inner.values()))}"
    if kind in ("integer", "number"):
        return ", ".join((kind, *_range(schema)))
    if kind == "string":
        return "name" if schema.get("pattern") in (NAME_PATTERN, MODEL_PATTERN) else "text"
    return "true or false" if kind == "boolean" else str(kind)


def _range(schema: dict[str, Any]) -> list[str]:
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return [f"{word} {schema[key]}" for key, word in bounds.items() if key in schema and schema[key] < LARGEST]


def _code(value: Any) -> str:
    return f"`{yaml.safe_dump(value).splitlines()[0]}`"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _schema_text(name: str, kind: Any) -> str:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name}
    return json.dumps(schema | TypeAdapter(kind).json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    for path, text in texts().items():
        atomic_write_text(PROJECT_DIR / path, text)
