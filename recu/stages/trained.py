"""Publishing what a training produced, and reading it back only if it is what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recu.base.errors import ResultError
from recu.base.files import copy_file, hash_file, link_or_copy, reading
from recu.experiment import paths
from recu.experiment.remake import remake, suite_of
from recu.experiment.resolving import Planned
from recu.results.records import ReleasedRecord, TrainingRecord, read_training


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A published training whose files agree with one another and with the parameters asked for."""

    checkpoint: Path
    record: TrainingRecord


def publish(results: Path, state: Path) -> None:
    """Give a finished training's best checkpoint and then, as the sign of completeness, its metrics.json to `results`.

    The checkpoint lies on disk once: both folders name one file, where the file system has hard links.

    Args:
        results: made right before writing, since Snakemake may have removed it while training ran.
        state: folder of the state, which may be the same.

    Raises:
        OutputError: a file cannot be written.
    """
    if results.absolute() == state.absolute():
        return
    link_or_copy(state / paths.BEST_CHECKPOINT, results / paths.BEST_CHECKPOINT)
    # Snakemake compares times, and the file is as old as the best epoch.
    (results / paths.BEST_CHECKPOINT).touch()
    copy_file(state / paths.METRICS, results / paths.METRICS)


def read_finished(folder: Path) -> TrainingRecord | None:
    """The record of the finished training that lies whole in `folder`; None where there is none.

    Raises:
        ResultError: it was altered, or the best checkpoint beside it is not the one it names.
    """
    if not (folder / paths.METRICS).exists():
        return None
    return _of_ours(read_whole(folder, again=f"move {folder} aside and run the same command"), folder)


def read_trained(results_dir: Path, experiment_id: str, spec_hash: str) -> Trained:
    """The published training of an experiment.

    Raises:
        ResultError: it is missing or altered, was made with other parameters than those of `spec_hash`, or its
            checkpoint is not the one that its metrics.json names.
    """
    folder = paths.train_folder(results_dir, experiment_id)
    record = _of_ours(_read_published(folder, experiment_id, spec_hash, results_dir), folder)
    return Trained(checkpoint=folder / paths.BEST_CHECKPOINT, record=record)


def published_checkpoint(results_dir: Path, planned: Planned) -> tuple[Path, str]:
    """What a training or a released file published, and its SHA-256. Raises ResultError as `read_trained`."""
    folder = paths.train_folder(results_dir, planned.id)
    record = _read_published(folder, planned.id, planned.spec_hash, results_dir)
    return folder / paths.BEST_CHECKPOINT, record.checkpoint_sha256


def _read_published(
    folder: Path, identifier: str, spec_hash: str, results_dir: Path
) -> TrainingRecord | ReleasedRecord:
    file = folder / paths.METRICS
    again = remake([file], suites=[suite_of(identifier)], results_dir=results_dir)
    record = read_whole(folder, again=again)
    if record.spec_hash != spec_hash:
        raise ResultError(
            f"{file} was made with other parameters (hash {record.spec_hash}, expected {spec_hash}): make it again:"
            f" {again}"
        )
    return record


def _of_ours(record: TrainingRecord | ReleasedRecord, folder: Path) -> TrainingRecord:
    if isinstance(record, ReleasedRecord):
        raise ResultError(f"{folder} holds the released file {record.id}, expected a training: give another folder")
    return record


def read_whole(folder: Path, *, again: str) -> TrainingRecord | ReleasedRecord:
    """metrics.json as it was published, if the checkpoint beside it is the one that it names.

    Args:
        folder: of a training or a released file.
        again: what makes it again, said where it is refused.

    Raises:
        ResultError: it is missing, altered or of another form, or the checkpoint is another.
    """
    checkpoint = folder / paths.BEST_CHECKPOINT
    record = read_training(folder / paths.METRICS, again=again)
    with reading(checkpoint, ResultError, f": make it again: {again}"):
        digest = hash_file(checkpoint)
    if digest != record.checkpoint_sha256:
        raise ResultError(
            f"{checkpoint} is not the checkpoint that metrics.json beside it names (SHA-256 differs): make it again:"
            f" {again}"
        )
    return record
