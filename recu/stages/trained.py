"""Publishing what a training produced, and reading it back only if it is what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recu.base.errors import ResultError
from recu.base.files import copy_file, hash_file, link_or_copy
from recu.experiment import paths
from recu.experiment.params import validate_model
from recu.experiment.remake import remake, suite_of
from recu.experiment.resolving import Experiment
from recu.results.seal import read_sealed_json, write_sealed_json


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A published training whose files agree with one another and with the parameters asked for."""

    checkpoint: Path
    metrics: dict[str, Any]

    @property
    def experiment(self) -> Experiment:
        """What was trained. Raises ConfigError where metrics.json was altered."""
        fields = {name: value for name, value in self.metrics["experiment"].items() if name != "id"}
        return validate_model(fields, Experiment, str(self.checkpoint.with_name(paths.METRICS)))

    @property
    def run_id(self) -> str | None:
        """Of its run in the tracking store."""
        return self.metrics.get("mlflow_run_id")

    def as_parent(self) -> dict[str, str]:
        """How a training that starts from this one names it."""
        return {
            "id": self.metrics["experiment"]["id"],
            "spec_hash": self.metrics["spec_hash"],
            "checkpoint_sha256": self.metrics["checkpoint_sha256"],
        }


def finish(state: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Write metrics.json beside the best checkpoint in a training's state: together they are the finished training.

    Args:
        state: folder of the state.
        metrics: content of metrics.json but for `checkpoint_sha256` and the self-check.

    Returns:
        The metrics as written.

    Raises:
        OutputError: the file cannot be written.
    """
    digest = hash_file(state / paths.BEST_CHECKPOINT)
    return write_sealed_json(state / paths.METRICS, dict(metrics) | {"checkpoint_sha256": digest})


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


def read_finished(folder: Path) -> dict[str, Any] | None:
    """The metrics.json of the finished training that lies whole in `folder`; None where there is none.

    Raises:
        ResultError: it was altered, or the best checkpoint beside it is not the one it names.
    """
    if not (folder / paths.METRICS).exists():
        return None
    return _read_whole(folder, again=f"move {folder} aside and run the same command")


def read_trained(results_dir: Path, experiment_id: str, spec_hash: str) -> Trained:
    """The published training of an experiment.

    Raises:
        ResultError: it is missing or altered, was made with other parameters than those of `spec_hash`, or its
            checkpoint is not the one that its metrics.json names.
    """
    folder = paths.train_folder(results_dir, experiment_id)
    file = folder / paths.METRICS
    again = remake([file], suites=[suite_of(experiment_id)], results_dir=results_dir)
    metrics = _read_whole(folder, again=again)
    found = metrics.get("spec_hash")
    if found != spec_hash:
        raise ResultError(
            f"{file} was made with other parameters (hash {found}, expected {spec_hash}): make it again: {again}"
        )
    return Trained(checkpoint=folder / paths.BEST_CHECKPOINT, metrics=metrics)


def _read_whole(folder: Path, *, again: str) -> dict[str, Any]:
    """metrics.json as it was published, if the checkpoint beside it is the one that it names. Raises ResultError."""
    checkpoint = folder / paths.BEST_CHECKPOINT
    metrics = read_sealed_json(folder / paths.METRICS, again=again)
    try:
        digest = hash_file(checkpoint)
    except OSError as error:
        raise ResultError(f"cannot read {checkpoint}: {error.strerror}: make it again: {again}") from error
    if digest != metrics.get("checkpoint_sha256"):
        raise ResultError(
            f"{checkpoint} is not the checkpoint that metrics.json beside it names (SHA-256 differs): make it again:"
            f" {again}"
        )
    return metrics
