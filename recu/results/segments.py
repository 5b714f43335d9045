"""Which epochs of a training were computed by which code, where and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def segments_of(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The uninterrupted pieces of a published training, in order: `from_epoch`, `to_epoch` and their `provenance`.

    Metrics of earlier versions have no such list: their training is taken for one piece.

    Args:
        metrics: a training's metrics.json.

    Raises:
        KeyError, TypeError: they are not of the expected form.
    """
    history = metrics["history"]
    whole = {"from_epoch": history[0]["epoch"], "to_epoch": history[-1]["epoch"], "provenance": metrics["provenance"]}
    return [
        {key: segment[key] for key in ("from_epoch", "to_epoch", "provenance")}
        for segment in metrics.get("segments") or [whole]
    ]


def described(segment: Mapping[str, Any]) -> str:
    """The epochs of a segment, in words."""
    first, last = segment["from_epoch"], segment["to_epoch"]
    return f"epoch {first}" if first == last else f"epochs {first} to {last}"
