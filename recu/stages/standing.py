"""How far planned trainings and measurements are, read from what they leave: metrics.json, history and lock."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recu.base.errors import ResultError
from recu.base.files import read_json, read_object, reading
from recu.base.lock import is_held
from recu.experiment import paths
from recu.experiment.params import adapter
from recu.experiment.released import Released
from recu.experiment.resolving import Experiment
from recu.results.records import EpochRecord

TRAINED, MEASURED, RUNNING, BEGUN, TO_DO = "trained", "measured", "running", "begun", "to do"
"""`BEGUN` is one that nobody trains now."""
_LATEST = 5
"""Epochs by whose seconds the others are estimated."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where one training is, or the measurement of a released file."""

    experiment: str
    state: str
    """`TRAINED`, `MEASURED`, `RUNNING`, `BEGUN`, `TO_DO`, or what is otherwise the matter, in words."""
    epochs: int | None = None
    """To train; None of a released file."""
    epochs_done: int = 0
    top1_last: float | None = None
    """Percent, on the test split after the last epoch done; None before the first."""
    top1_best: float | None = None
    """Likewise, of the epoch with the highest."""
    images_per_s: float | None = None
    """Of training, in the last epoch."""
    finish: float | None = None
    """When it is expected to end, Unix seconds, of one that runs; None before its first epoch is done."""


def standing(planned: Experiment | Released, results_dir: Path, runs_dir: Path, now: float) -> Standing:
    """Where it is at the time `now`, in Unix seconds."""
    if not isinstance(planned, Experiment):
        missing = "file missing" if planned.sha256 is None else TO_DO
        said = published_state(paths.evaluate_folder(results_dir, planned.id), planned)
        return Standing(experiment=planned.id, state=said or missing)
    state = paths.state_folder(runs_dir, planned.id, planned.spec_hash)
    said = published_state(paths.train_folder(results_dir, planned.id), planned)
    if said is None:
        held = state.is_dir() and is_held(runs_dir / planned.id)
        said = RUNNING if held else BEGUN if state.is_dir() else TO_DO
    try:
        history = read_history(state / paths.HISTORY)
    except ResultError as error:
        return Standing(experiment=planned.id, state=f"{said}; {error}", epochs=planned.hyperparameters.epochs)
    return _with_history(planned, said, history, now)


def read_history(file: Path) -> tuple[EpochRecord, ...]:
    """The epochs of a training so far; none where there is no file yet. Raises ResultError."""
    if not file.exists():
        return ()
    with reading(file, ResultError):
        lines = file.read_bytes().splitlines()
    try:
        return tuple(adapter(EpochRecord).validate_json(line) for line in lines)
    except ValueError as error:
        raise ResultError(f"{file} is damaged, or of another version") from error


def published_state(folder: Path, planned: Experiment | Released) -> str | None:
    """`TRAINED` or `MEASURED`, or in words that it was so with other parameters; None where nothing was published.

    Args:
        folder: where the stage publishes it.
        planned: as params/ has it now.
    """
    metrics = folder / paths.METRICS
    if not metrics.is_file():
        return None
    content = read_json(metrics)
    current = isinstance(content, dict) and content.get("spec_hash") == planned.spec_hash
    done, other = (TRAINED, "") if isinstance(planned, Experiment) else (MEASURED, ", or another file")
    return done if current else f"{done} with other parameters{other}"


def is_measured(planned: Experiment, results_dir: Path) -> bool:
    """Whether the checkpoint that a training published was evaluated, with the parameters of now."""
    trained, measured = (
        read_object(folder(results_dir, planned.id) / paths.METRICS)
        for folder in (paths.train_folder, paths.evaluate_folder)
    )
    same = measured.get("checkpoint_sha256") == trained.get("checkpoint_sha256")
    return same and measured.get("spec_hash") == planned.spec_hash


def _with_history(planned: Experiment, state: str, history: Sequence[EpochRecord], now: float) -> Standing:
    epochs = planned.hyperparameters.epochs
    if not history:
        return Standing(experiment=planned.id, state=state, epochs=epochs)
    last, best = history[-1], max(history, key=lambda row: row.test_top1)
    finish = None
    if state == RUNNING:
        usual = statistics.fmean(row.seconds for row in history[-_LATEST:])
        finish = max(last.time / 1000 + (epochs - last.epoch - 1) * usual, now)
    return Standing(
        experiment=planned.id,
        state=state,
        epochs=epochs,
        epochs_done=last.epoch + 1,
        top1_last=last.test_top1,
        top1_best=best.test_top1,
        images_per_s=last.train_images_per_s,
        finish=finish,
    )
