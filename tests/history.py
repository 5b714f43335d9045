"""The history of a training as its files have it."""

import json
from collections.abc import Mapping
from pathlib import Path

from recu.results.records import EpochResult


def read_history(file: Path) -> list[dict]:
    """The lines of a history.jsonl."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def comparable(row: Mapping) -> dict:
    """A line without clock times and speeds: what equal trainings have in common."""
    return {name: value for name, value in row.items() if name in EpochResult.model_fields}
