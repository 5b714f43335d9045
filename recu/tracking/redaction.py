"""Keeps credentials out of what describes a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from recu.base.redaction import redact
from recu.tracking.tracker import RunDescription


def redact_values(values: Mapping[str, str]) -> dict[str, str]:
    """`values` with each value redacted."""
    return {name: redact(str(value)) for name, value in values.items()}


def redact_description(description: RunDescription) -> RunDescription:
    """`description` with every free text in it redacted."""
    dataset = description.dataset
    return replace(
        description,
        run_name=redact(description.run_name),
        params=redact_values(description.params),
        tags=redact_values(description.tags),
        dataset=None if dataset is None else replace(dataset, source=redact(dataset.source)),
    )
