"""What a tracker is: a live mirror of one run. The base class does nothing, so it is also the tracker for
"no tracking".

Files are the truth; a tracker shows them while they grow. Nothing here or in the callers reads a result
back from a tracker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended: by itself, by an error, or by a signal after which it can be continued."""


CHECKPOINT_TAG = "checkpoint_sha256"
"""Of the checkpoint that a training published, or that an evaluation measures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetDescription:
    """The dataset a run read, as an MLflow input."""

    name: str
    digest: str
    """Fingerprint of the prepared data."""
    source: str
    """Where the data came from, in words; never an address with credentials."""


class Row(NamedTuple):
    """What tells a training's epoch from the same epoch of another training."""

    epoch: int
    time: int
    """When it ended, in Unix milliseconds."""
    metric: str
    """One of its numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDescription:
    """Everything that is known about a run when it starts.

    What is run, on which data and, for an evaluation, of which checkpoint identify the run: `experiment_id`,
    `spec_hash`, `stage`, the fingerprint in `dataset` and `checkpoint_sha256`. A training that is repeated has the
    same identity, and still a run of its own: `rows` tell the two apart.
    """

    experiment: str
    """MLflow experiment: the suite."""
    stage: str
    """"train" or "evaluate"."""
    experiment_id: str
    """`recu.experiment.resolving.Experiment.id`."""
    spec_hash: str
    checkpoint_sha256: str | None = None
    """What an evaluation measures; None for a training."""
    run_name: str
    """For people; need not be unique."""
    params: Mapping[str, str] = field(default_factory=dict)
    """All resolved parameters, flat; see `flatten_params`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    dataset: DatasetDescription | None = None
    parent_run_id: str | None = None
    parent_checkpoint: str | None = None
    """SHA-256 of the checkpoint that this run starts from or measures: it finds the parent in a store that does not
    know `parent_run_id`.
    """
    run_id: str | None = None
    """The run to continue, from the checkpoint; None to look it up by its identity or make it."""
    rows: tuple[Row, ...] | None = None
    """The epochs that the training has behind it. A run that holds any other epoch is another training's; None (an
    evaluation) if there are no epochs to compare.
    """
    started_ns: int | None = None
    """When the run was first asked for, in Unix nanoseconds: it finds a run again that holds no epoch yet."""

    @property
    def data_fingerprint(self) -> str:
        """Of the data it reads; "" where none is named."""
        return "" if self.dataset is None else self.dataset.digest

    @property
    def identity(self) -> dict[str, str]:
        """The run's tags by which it is found again."""
        identity = {
            "recu.experiment_id": self.experiment_id,
            "recu.spec_hash": self.spec_hash,
            "recu.stage": self.stage,
            "data_fingerprint": self.data_fingerprint,
        }
        return identity if self.checkpoint_sha256 is None else identity | {CHECKPOINT_TAG: self.checkpoint_sha256}

    def with_rows(self, rows: Iterable[Row]) -> RunDescription:
        """The same with these epochs in addition; an evaluation stays as it is."""
        return self if self.rows is None else replace(self, rows=tuple(dict.fromkeys((*self.rows, *rows))))


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

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Mirror facts that are known only at the end."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Mirror the file at `path`, below `folder` of the run's artifacts. The file must stay as it is."""

    def finish(self, status: Status) -> None:
        """End the run. Nothing may be logged afterwards."""

    def close(self) -> None:
        """Let go of what the tracker holds, also where no run was started."""


def rows_of(history: Iterable[Mapping[str, object]]) -> tuple[Row, ...]:
    """What identifies the rows of a history; rows without a number are left out."""
    return tuple(
        Row(int(row["epoch"]), int(row["time"]), min(numbers)) for row in history if (numbers := numbers_of(row))
    )


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
        except (TypeError, ValueError, OverflowError):
            continue
    return numbers
