"""Mirrors trainings and evaluations into MLflow while they run. Importing this imports no MLflow."""

from __future__ import annotations

import os
from pathlib import Path

from recu.base.addresses import check_store_address
from recu.base.errors import ConfigError
from recu.tracking.tracker import CHECKPOINT_TAG, DatasetDescription, RunDescription, Status, Tracker, rows_of

__all__ = [
    "CHECKPOINT_TAG",
    "DatasetDescription",
    "RunDescription",
    "Status",
    "Tracker",
    "open_tracker",
    "resolve_tracking_uri",
    "rows_of",
]


def open_tracker(tracking_uri: str | None, outbox: Path, results: Path | None = None) -> Tracker:
    """A tracker for one run: into the MLflow store at `tracking_uri`, or nowhere for None.

    It never raises and never holds a training up; see `recu.tracking.safe`. It begins to import MLflow, in a process
    of its own, so open it early. Call `start`, then log, then `finish`, whatever happens in between, and `close`.

    Args:
        tracking_uri: see `resolve_tracking_uri`.
        outbox: file in the run's state folder for what could not be sent; each stage of an experiment
            needs its own.
        results: the folder that the run publishes into: of what an earlier process left in the outbox, only files
            there, and in the state folder, are sent.
    """
    if tracking_uri is None:
        return Tracker()
    from recu.tracking.safe import SafeTracker

    def make_target() -> Tracker:
        from recu.tracking.process import ProcessTracker

        return ProcessTracker(tracking_uri)

    return SafeTracker(make_target, outbox, address=tracking_uri, results=results)


def resolve_tracking_uri(configured: str | None) -> str | None:
    """The store to use: MLFLOW_TRACKING_URI in the environment wins over `configured`; empty means no tracking.

    Raises:
        ConfigError: `configured` is misspelt. What stands in the environment is often meant for other programs, and
            stops nothing.
    """
    try:
        check_store_address(configured or "")
    except ValueError as error:
        raise ConfigError(f"--tracking_uri: {error}") from error
    return os.environ.get("MLFLOW_TRACKING_URI") or configured or None
