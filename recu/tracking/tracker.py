"""What a tracker is: a live mirror of one run. The base class does nothing, so it is also the tracker for
"no tracking".

Files are the truth; a tracker shows them while they grow. Nothing here or in the callers reads a result
back from a tracker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended: by itself, by an error, or by a signal after which it can be continued."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetDescription:
    """The dataset a run read, as an MLflow input."""

    name: str
    digest: str
    """Fingerprint of the prepared data."""
    source: str
    """Where the data came from, in words; never an address with credentials."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDescription:
    """Everything that is known about a run when it starts."""

    experiment: str
    """MLflow experiment: the suite."""
    stage: str
    """"train" or "evaluate": with the two fields below it identifies the run, so that continuing finds it
    again.
    """
    experiment_id: str
    """`recu.experiments.Experiment.id`."""
    spec_hash: str
    run_name: str
    """For people; need not be unique."""
    params: Mapping[str, str] = field(default_factory=dict)
    """All resolved parameters, flat; see `flatten_params`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    dataset: DatasetDescription | None = None
    parent_run_id: str | None = None
    run_id: str | None = None
    """The run to continue, from the checkpoint; None to look it up by its identity or make it."""


class Tracker:
    """Does nothing. Subclasses override what they can mirror."""

    @property
    def run_id(self) -> str | None:
        """The store's id of the run, as soon as it is known."""
        return None

    def load(self) -> None:
        """Return when everything is imported; nothing is contacted."""

    def start(self, description: RunDescription) -> None:
        """Make or continue the run."""

    def wait_for_run_id(self) -> str | None:
        """The id for a result that is written down now; None where the store has not answered in time."""
        return self.run_id

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Mirror one history row.

        Args:
            epoch: becomes the metrics' step; an epoch is stored once, however often it is logged.
            metrics: the row. Its "time" (Unix milliseconds) is the metrics' timestamp and is required;
                "epoch" and values that are not numbers are left out.
        """

    def log_history(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Mirror all rows of a continued run: those that the store already has are not sent again."""
        for row in rows:
            self.log_epoch(int(row["epoch"]), row)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Mirror final numbers that belong to no epoch."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Mirror the file at `path`, below `folder` of the run's artifacts. The file must stay as it is."""

    def finish(self, status: Status) -> None:
        """End the run. Nothing may be logged afterwards."""

    def close(self) -> None:
        """Let go of what the tracker holds, also where no run was started."""


def numbers_of(metrics: Mapping[str, object]) -> dict[str, float]:
    """The values of `metrics` that are numbers (or tensors of one element), as plain floats.

    "epoch" and "time" are left out: they are a record's step and timestamp.
    """
    numbers = {}
    for name, value in metrics.items():
        if name in ("epoch", "time") or isinstance(value, str):
            continue
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError):
            continue
    return numbers
