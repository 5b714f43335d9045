"""How a run is described to the tracking store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from recu.data import Manifest
from recu.experiment.released import Released
from recu.experiment.resolving import Experiment
from recu.results.flatten import flatten_params
from recu.results.records import Provenance
from recu.tracking import DatasetDescription, RunDescription, rows_of


def describe_run(
    experiment: Experiment,
    stage: str,
    manifest: Manifest,
    provenance: Provenance,
    *,
    parent_run_id: str | None = None,
    parent_checkpoint: str | None = None,
    run_id: str | None = None,
    history: Iterable[Mapping[str, object]] = (),
) -> RunDescription:
    """The run of one stage ("train" or "evaluate") of an experiment.

    Args:
        experiment: gives name and parameters.
        stage: what is done.
        manifest: of the prepared data.
        provenance: of this process.
        parent_run_id: the run this one builds on.
        parent_checkpoint: SHA-256 of the checkpoint this one starts from, or measures.
        run_id: the run this one continues.
        history: the rows that a training has behind it.
    """
    trains = stage == "train"
    name = f"{experiment.network} {experiment.method} seed{experiment.seed}"
    return RunDescription(
        experiment=experiment.suite,
        stage=stage,
        experiment_id=experiment.id,
        spec_hash=experiment.spec_hash,
        checkpoint_sha256=None if trains else parent_checkpoint,
        run_name=name if trains else f"{name} {stage}",
        params=flatten_params(experiment.model_dump(mode="json")),
        tags=_tags(experiment, experiment.network, stage, provenance) | {"seed": str(experiment.seed)},
        dataset=DatasetDescription(name=experiment.dataset, digest=manifest.fingerprint, source=manifest.source.name),
        parent_run_id=parent_run_id,
        parent_checkpoint=parent_checkpoint,
        run_id=run_id,
        rows=rows_of(history) if trains else None,
    )


def describe_released_run(
    released: Released, network: str, manifest: Manifest, provenance: Provenance, *, checkpoint: str
) -> RunDescription:
    """The run that measures a released file.

    Args:
        released: gives name and parameters.
        network: family, variant as recognised, and model.
        manifest: of the prepared data.
        provenance: of this process.
        checkpoint: SHA-256 of the file.
    """
    return RunDescription(
        experiment=released.suite,
        stage="evaluate",
        experiment_id=released.id,
        spec_hash=released.spec_hash,
        checkpoint_sha256=checkpoint,
        run_name=f"{released.name} evaluate",
        params=flatten_params(released.model_dump(mode="json")),
        tags=_tags(released, network, "evaluate", provenance),
        dataset=DatasetDescription(name=released.dataset, digest=manifest.fingerprint, source=manifest.source.name),
    )


def _tags(job: Experiment | Released, network: str, stage: str, provenance: Provenance) -> dict[str, str]:
    tags = {
        "model": job.model,
        "network": network,
        "dataset": job.dataset,
        "method": job.method,
        "stage": stage,
        "git_commit": provenance.git_commit,
        "git_dirty": provenance.git_dirty,
        "device": provenance.device,
    }
    versions = {f"version.{name}": version for name, version in provenance.packages.items()}
    return {name: str(value) for name, value in (tags | versions).items()}
