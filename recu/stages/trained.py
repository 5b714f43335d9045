"""Publishing what a training produced, and reading it back only if it is what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recu.base.errors import ResultError
from recu.base.files import hash_file
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


def publish(folder: Path, best_checkpoint: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Write model_best.pth.tar and then, as the sign of completeness, metrics.json into `folder`.

    Args:
        folder: made right before writing, since Snakemake may have removed it while training ran.
        best_checkpoint: content of the checkpoint.
        metrics: content of metrics.json but for `checkpoint_sha256` and the self-check.

    Returns:
        The metrics as written.

    Raises:
        OutputError: a file cannot be written.
    """
    from recu.training.checkpoint import write_checkpoint

    file = folder / paths.BEST_CHECKPOINT
    write_checkpoint(file, best_checkpoint)
    return write_sealed_json(folder / paths.METRICS, dict(metrics) | {"checkpoint_sha256": hash_file(file)})


def read_trained(results_dir: Path, experiment_id: str, spec_hash: str) -> Trained:
    """The published training of an experiment.

    Raises:
        ResultError: it is missing or altered, was made with other parameters than those of `spec_hash`, or its
            checkpoint is not the one that its metrics.json names.
    """
    folder = paths.train_folder(results_dir, experiment_id)
    file, checkpoint = folder / paths.METRICS, folder / paths.BEST_CHECKPOINT
    again = remake([file], suites=[suite_of(experiment_id)], results_dir=results_dir)
    metrics = read_sealed_json(file, again=again)
    found = metrics.get("spec_hash")
    if found != spec_hash:
        raise ResultError(
            f"{file} was made with other parameters (hash {found}, expected {spec_hash}): make it again: {again}"
        )
    try:
        digest = hash_file(checkpoint)
    except OSError as error:
        raise ResultError(f"cannot read {checkpoint}: {error.strerror}: make it again: {again}") from error
    if digest != metrics.get("checkpoint_sha256"):
        raise ResultError(
            f"{checkpoint} is not the checkpoint that metrics.json beside it names (SHA-256 differs): make it again:"
            f" {again}"
        )
    return Trained(checkpoint=checkpoint, metrics=metrics)
