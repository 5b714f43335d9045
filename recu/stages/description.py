"""How a run is described to the tracking store."""

from __future__ import annotations

from typing import Any

from recu.data import Manifest
from recu.experiments import Experiment
from recu.tracking import DatasetDescription, RunDescription, flatten_params


def describe_run(
    experiment: Experiment,
    stage: str,
    manifest: Manifest,
    provenance: dict[str, Any],
    *,
    parent_run_id: str | None = None,
    run_id: str | None = None,
) -> RunDescription:
    """The run of one stage ("train" or "evaluate") of an experiment.

    Args:
        experiment: gives name and parameters.
        stage: what is done.
        manifest: of the prepared data.
        provenance: of `recu.provenance.collect`.
        parent_run_id: the run this one builds on.
        run_id: the run this one continues.
    """
    name = f"{experiment.network} {experiment.method} seed{experiment.seed}"
    return RunDescription(
        experiment=experiment.suite,
        stage=stage,
        experiment_id=experiment.id,
        spec_hash=experiment.spec_hash,
        run_name=name if stage == "train" else f"{name} {stage}",
        params=flatten_params(experiment.model_dump(mode="json")),
        tags=_tags(experiment, stage, manifest, provenance),
        dataset=DatasetDescription(name=experiment.dataset, digest=manifest.fingerprint, source=manifest.source.name),
        parent_run_id=parent_run_id,
        run_id=run_id,
    )


def _tags(experiment: Experiment, stage: str, manifest: Manifest, provenance: dict[str, Any]) -> dict[str, str]:
    tags = {
        "model": experiment.model,
        "network": experiment.network,
        "dataset": experiment.dataset,
        "method": experiment.method,
        "seed": experiment.seed,
        "stage": stage,
        "data_fingerprint": manifest.fingerprint,
        "git_commit": provenance["git_commit"],
        "git_dirty": provenance["git_dirty"],
        "device": provenance["device"],
    }
    versions = {f"version.{name}": version for name, version in provenance["packages"].items()}
    return {name: str(value) for name, value in (tags | versions).items()}
