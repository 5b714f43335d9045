"""JSON schemas of the files under params/: `python -m recu.experiment.json_schema FOLDER`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from recu.base.files import atomic_write_text
from recu.experiment.schema import Datasets, Defaults, Published, ReleasedSuite, Suite, WorkflowConfig

SCHEMAS: dict[str, Any] = {
    "config": WorkflowConfig,
    "defaults": Defaults,
    "datasets": Datasets,
    "suite": Suite,
    "released-suite": ReleasedSuite,
    "published": Published,
}
"""By the name of the kind of file."""


def schema_texts() -> dict[str, str]:
    """File name -> JSON text of every schema."""
    return {f"{name}.schema.json": _schema_text(name, kind) for name, kind in SCHEMAS.items()}


def write_schemas(folder: Path) -> None:
    """Write every schema into `folder`. Raises OutputError."""
    for file_name, text in schema_texts().items():
        atomic_write_text(folder / file_name, text)


def _schema_text(name: str, kind: Any) -> str:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name}
    return json.dumps(schema | TypeAdapter(kind).json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write_schemas(parser.parse_args().folder)
