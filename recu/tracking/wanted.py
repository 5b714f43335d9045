"""What MLflow should show of a run: a function of the run's files, which contacts nobody.

A run has one or two folders: where its state lies (`run.json`, and of a training history, log and parameters) and where
it publishes (`metrics.json`, and of a training its best checkpoint).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from recu.base.errors import ResultError
from recu.base.files import check_ordinary, read_json, reading
from recu.experiment import paths
from recu.experiment.params import adapter
from recu.results.records import EpochWeights
from recu.results.seal import read_sealed_json
from recu.tracking.description import CHECKPOINT_TAG, RunDescription, describe_published

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
"""How a run ended: by itself, by an error, or by a signal after which it can be continued."""

_LARGEST_BYTES = 1 << 26
_LATEST = 1 << 53
"""Times and epochs beyond are no integers everywhere."""
MOST_NUMBERS = 1000
"""Of one epoch; a store takes no more at once."""


_SECTIONS = ("train", "test", "best", "last")
_RATE = "schedule/lr"
_OTHER_NAMES = {"lr": _RATE, "tau": "schedule/tau", "seconds": "system/seconds"}


class Folders(NamedTuple):
    """Where a run's files lie; one folder may be both, and either may be missing."""

    state: Path
    results: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted:
    """Content of run.json, which a job writes when its run starts and when it ends."""

    description: RunDescription
    started_ns: int
    """When the run was first asked for, in Unix nanoseconds: it finds a run again that holds no epoch yet."""
    status: Status


class Row(NamedTuple):
    """One epoch of a training."""

    epoch: Annotated[int, Field(ge=0, lt=_LATEST)]
    time: Annotated[int, Field(ge=0, lt=_LATEST)]
    """When it ended, in Unix milliseconds."""
    numbers: dict[str, float]

    @property
    def mark(self) -> str:
        """The metric by which a store is asked for the row: one that every version of this program has sent."""
        return _RATE if _RATE in self.numbers else min(self.numbers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What the store should show."""

    description: RunDescription
    status: Status
    started_ns: int | None
    time: int
    """Of the latest that is known, in Unix milliseconds."""
    rows: tuple[Row, ...] | None
    """The training's epochs; None for an evaluation."""
    numbers: Mapping[str, float]
    """What belongs to no epoch."""
    tags: Mapping[str, str]
    """What is known only at the end."""
    files: tuple[Path, ...]
    checkpoint: Path | None
    """The published one, whose SHA-256 is in `tags`."""
    problems: tuple[str, ...]
    """What cannot be shown, in words."""


def read_run(folders: Folders, *, live: bool = False) -> Wanted:
    """What the files of a run say.

    Args:
        folders: the run's own.
        live: whether the job that says that it is running is.

    Raises:
        ResultError: they do not say which run they are of.
    """
    try:
        return _read_run(folders, live)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ResultError(f"{folders.results / paths.METRICS} is not of the expected form: {error!r}") from error


def _read_run(folders: Folders, live: bool) -> Wanted:
    problems: list[str] = []
    noted = read_noted(folders.state)
    running = live and noted is not None and noted.status == "RUNNING"
    metrics = None if running else _published(folders.results / paths.METRICS, problems)
    description = _description(folders, noted, metrics)
    trains = description.stage == "train"
    rows = _checked(_lines(folders.state / paths.HISTORY, problems), problems) if trains else None
    measured = _lines(folders.state / paths.DIAGNOSTICS, problems) if trains else ()
    if metrics is not None and _is_of(metrics, description, rows):
        rows = _checked(metrics["history"], problems) if trains else None
        measured = metrics.get("diagnostics") or ()
        status: Status = "FINISHED"
    else:
        metrics = None
        status = "KILLED" if noted is None or (noted.status == "RUNNING" and not live) else noted.status
    return Wanted(
        description=description.redacted(),
        status=status,
        started_ns=None if noted is None else noted.started_ns,
        time=_time(folders, metrics),
        rows=None if rows is None else _with_weights(rows, measured, problems),
        numbers={} if metrics is None else (_of_training if trains else _of_evaluation)(metrics),
        tags=_tags(description, folders.results, metrics),
        files=() if running else _files(folders, description, metrics, problems),
        checkpoint=_checkpoint(folders, metrics, problems) if trains else None,
        problems=tuple(problems),
    )


def read_noted(state: Path) -> Noted | None:
    """run.json; None where there is none. Raises ResultError."""
    file = state / paths.RUN
    if not file.exists():
        return None
    _check_size(file)
    try:
        return adapter(Noted).validate_python(read_json(file))
    except ValueError as error:
        raise ResultError(f"{file} does not describe a run: {str(error).splitlines()[0]}") from error


def _description(folders: Folders, noted: Noted | None, metrics: dict[str, Any] | None) -> RunDescription:
    if noted is not None:
        return noted.description
    if metrics is None:
        raise ResultError(f"{folders.state} has no {paths.RUN} and {folders.results} no sound {paths.METRICS}")
    return adapter(RunDescription).validate_python(describe_published(metrics))


def _published(file: Path, problems: list[str]) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        _check_size(file)
        return read_sealed_json(file, again="the same command")
    except ResultError as error:
        problems.append(str(error))
        return None


def _is_of(metrics: Mapping[str, Any], description: RunDescription, rows: tuple[Row, ...] | None) -> bool:
    """Whether a published result is this run's: its folder outlives trainings."""
    same = all(metrics.get(name) == getattr(description, name) for name in ("spec_hash", "data_fingerprint"))
    if rows is None:
        return same and metrics.get(CHECKPOINT_TAG) == description.checkpoint_sha256
    return same and (not rows or _checked(metrics.get("history"), []) == rows)


def _lines(file: Path, problems: list[str]) -> Sequence[str]:
    if not file.exists():
        return ()
    try:
        _check_size(file)
        return file.read_bytes().decode(errors="replace").splitlines()
    except (OSError, ResultError) as error:
        problems.append(f"cannot read {file}: {error}")
        return ()


def _checked(rows: Any, problems: list[str]) -> tuple[Row, ...]:
    """Rows, as mappings or lines of JSON; what cannot be one holds the others not up."""
    sound: dict[int, Row] = {}
    for line in rows or ():
        try:
            content = json.loads(line) if isinstance(line, str) else line
            row = adapter(Row).validate_python((content["epoch"], content["time"], numbers_of(content)), strict=True)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            problems.append(f"not an epoch: {str(line)[:200]}")
        else:
            sound.setdefault(row.epoch, row)
    return tuple(row for row in sound.values() if row.numbers)


def _with_weights(rows: tuple[Row, ...], measured: Iterable[Any], problems: list[str]) -> tuple[Row, ...]:
    """The rows with what `EpochWeights`, as mappings or lines of JSON, say of their epochs."""
    found: dict[int, dict[str, float]] = {}
    for line in measured:
        text = line if isinstance(line, str) else json.dumps(line)
        try:
            content = adapter(EpochWeights).validate_json(text)
        except ValueError as error:
            problems.append(f"not an epoch's weights ({str(error).splitlines()[0]}): {text[:100]}")
        else:
            found.setdefault(content.epoch, numbers_of_weights(content))
    return tuple(row._replace(numbers=_together(row.numbers, found.get(row.epoch, {}))) for row in rows)


def _together(numbers: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """One epoch's numbers; of a network with very many layers those of the layers are left out, which files hold."""
    if len(numbers) + len(weights) > MOST_NUMBERS:
        weights = {name: value for name, value in weights.items() if name.count("/") == 1}
    return {**numbers, **weights}


def numbers_of_weights(content: EpochWeights) -> dict[str, float]:
    """What is known of the network as `weights/QUANTITY`, and of each layer as `weights/LAYER/QUANTITY`."""
    numbers = {f"weights/{name}": value for name, value in content.of_network.items()}
    for name, column in content.quantities.items():
        known = zip(content.layers, column, strict=True)
        numbers |= {f"weights/{layer}/{name}": value for layer, value in known if value is not None}
    return numbers


def numbers_of(content: Mapping[str, object]) -> dict[str, float]:
    """The values of `content` that are numbers, but for "epoch" and "time", by the names MLflow shows.

    What binarisers set for an epoch (`scheduled`) is shown beside tau; a layer's own "lr" is not the learning rate.
    """
    scheduled = content.get("scheduled")
    layers = {f"schedule/{name}": value for name, value in scheduled.items()} if isinstance(scheduled, Mapping) else {}
    shown = {_shown(name): value for name, value in content.items() if name not in ("epoch", "time")}
    together = shown | layers | ({_RATE: shown[_RATE]} if _RATE in shown else {})
    return {name: float(value) for name, value in together.items() if isinstance(value, int | float)}


def _shown(name: str) -> str:
    """With a section before a "/", by which MLflow's pages group metrics.

    >>> _shown("train_images_per_s"), _shown("lr"), _shown("seconds")
    ('train/images_per_s', 'schedule/lr', 'system/seconds')
    """
    section, _, rest = name.partition("_")
    return f"{section}/{rest}" if section in _SECTIONS else _OTHER_NAMES.get(name, name)


def _time(folders: Folders, metrics: dict[str, Any] | None) -> int:
    file = folders.state / paths.RUN if metrics is None else folders.results / paths.METRICS
    return file.stat().st_mtime_ns // 1_000_000


def _of_training(metrics: Mapping[str, Any]) -> dict[str, float]:
    kinds = {f"{kind}_{name}": value for kind in ("best", "last") for name, value in metrics[kind].items()}
    return numbers_of(kinds | {"train_seconds": metrics["train_seconds"]})


def _of_evaluation(metrics: Mapping[str, Any]) -> dict[str, float]:
    return numbers_of({f"test_{name}": metrics[name] for name in ("loss", "top1", "top5", "n")})


def _tags(description: RunDescription, results: Path, metrics: dict[str, Any] | None) -> dict[str, str]:
    """Where the published checkpoint lies: below the project's folder, or in the folder of a name."""
    if metrics is None or description.stage != "train":
        return {}
    tail = ("train", *Path(description.experiment_id).parts)
    parts = results.absolute().parts
    of_workflow = parts[-len(tail) :] == tail
    folder = parts[-len(tail) - 1 :] if of_workflow else parts[-1:]
    return {CHECKPOINT_TAG: metrics[CHECKPOINT_TAG], "checkpoint_file": "/".join([*folder, paths.BEST_CHECKPOINT])}


def _files(
    folders: Folders, description: RunDescription, metrics: dict[str, Any] | None, problems: list[str]
) -> tuple[Path, ...]:
    if description.stage == "train":
        files = [folders.state / name for name in (paths.EXPERIMENT, paths.LOG)]
    else:
        files = [] if metrics is None else [folders.results / paths.METRICS]
    return tuple(file for file in files if os.path.lexists(file) and _is_own(file, problems))


def _checkpoint(folders: Folders, metrics: dict[str, Any] | None, problems: list[str]) -> Path | None:
    file = folders.results / paths.BEST_CHECKPOINT
    return file if metrics is not None and os.path.lexists(file) and _is_own(file, problems) else None


def _is_own(file: Path, problems: list[str]) -> bool:
    """Whether a name in a run's folder is a file there, and no link to another or device: folders may come from
    elsewhere.
    """
    try:
        check_ordinary(file)
        own = os.path.realpath(file) == str(Path(os.path.realpath(file.parent), file.name))
    except OSError:
        own = False
    if not own:
        problems.append(f"not a file of this run: {file}")
    return own


def _check_size(file: Path) -> None:
    """Raise ResultError for what is no ordinary file, or too large to be read."""
    with reading(file, ResultError):
        check_ordinary(file)
        if file.stat().st_size > _LARGEST_BYTES:
            raise ResultError(f"{file} is larger than any record of a run; move it away")
