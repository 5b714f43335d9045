"""How a run is described to MLflow: what was run, on which data and, for an evaluation, of which checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from recu.base.redaction import redact
from recu.data import Manifest
from recu.experiment.resolving import Planned, labelled, network_name
from recu.results.flatten import flatten_params
from recu.results.records import Provenance, TrainedPiece

CHECKPOINT_TAG = "checkpoint_sha256"
"""Of the checkpoint that a training published, or that an evaluation measures."""
_NOTE = "mlflow.note.content"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDescription:
    """Everything that is known about a run when it starts.

    A training that is repeated has the same identity, and still a run of its own: its epochs tell the two apart.
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
    parent_checkpoint: str | None = None
    """SHA-256 of the checkpoint that this run starts from or measures."""
    run_name: str
    """For people; need not be unique."""
    params: Mapping[str, str] = field(default_factory=dict)
    """All resolved parameters that have a value, flat, hyper-parameters by their own names."""
    tags: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""
    data_fingerprint: str = ""
    """Of the prepared data."""
    data_source: str = ""
    """Where the data came from, in words; never an address with credentials."""

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

    def redacted(self) -> RunDescription:
        """The same without credentials in any free text."""
        return replace(
            self,
            run_name=redact(self.run_name),
            params={name: redact(value) for name, value in self.params.items()},
            tags={name: redact(value) for name, value in self.tags.items()},
            data_source=redact(self.data_source),
        )


def describe_run(
    planned: Planned,
    stage: str,
    manifest: Manifest,
    provenance: Provenance,
    *,
    parent_checkpoint: str | None = None,
    segments: Iterable[TrainedPiece] = (),
    network: str | None = None,
) -> RunDescription:
    """The run of one stage ("train" or "evaluate") of an experiment or a released file.

    Args:
        planned: gives name and parameters.
        stage: what is done.
        manifest: of the prepared data.
        provenance: of this process.
        parent_checkpoint: SHA-256 of the checkpoint this one starts from, or measures.
        segments: what trained the epochs behind a training.
        network: family, variant and model where they do not all stand in the parameters.
    """
    subject = {"id": planned.id, "spec_hash": planned.spec_hash} | planned.model_dump(mode="json")
    pieces = [(piece.from_epoch, piece.to_epoch, piece.spec_hash) for piece in segments]
    data = (manifest.fingerprint, manifest.source.name)
    return _described(stage, subject, data, provenance.as_plain(), parent_checkpoint, network=network, pieces=pieces)


def describe_published(metrics: Mapping[str, Any]) -> RunDescription:
    """The run of a published training, from its metrics.json alone; also of one that an earlier version published.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is no training's.
    """
    subject = {"spec_hash": metrics["spec_hash"]} | metrics["experiment"]
    parent = (metrics.get("parent") or {}).get("checkpoint_sha256")
    pieces = [(piece["from_epoch"], piece["to_epoch"], piece["spec_hash"]) for piece in metrics.get("segments") or ()]
    return _described("train", subject, (metrics["data_fingerprint"], ""), metrics["provenance"], parent, pieces=pieces)


def _described(
    stage: str,
    subject: Mapping[str, Any],
    data: tuple[str, str],
    provenance: Mapping[str, Any],
    parent_checkpoint: str | None,
    *,
    network: str | None = None,
    pieces: Iterable[tuple[int, int, str]] = (),
) -> RunDescription:
    network = network or network_name(subject["family"], subject["variant"], subject["model"])
    fingerprint, source = data
    return RunDescription(
        experiment=subject["suite"],
        stage=stage,
        experiment_id=subject["id"],
        spec_hash=subject["spec_hash"],
        checkpoint_sha256=None if stage == "train" else parent_checkpoint,
        parent_checkpoint=parent_checkpoint,
        run_name=_run_name(subject, network, stage),
        params=_params(subject),
        tags=_tags(subject, network, stage, provenance) | _tags_of_pieces(pieces, subject["spec_hash"]),
        dataset=subject["dataset"],
        data_fingerprint=fingerprint,
        data_source=source,
    ).redacted()


def _run_name(subject: Mapping[str, Any], network: str, stage: str) -> str:
    """A name whose first 15 characters, which are all that MLflow's table shows, tell a suite's runs apart.

    They are the model, or the name of the suite's row, two characters of the method, the seed, "e" for an evaluation,
    and the beginning of the parameters' hash, for families, variants and parameters: "resnet20 va1 3f", "resnet20
    va1e3f".
    """
    trains = stage == "train"
    if "name" in subject:
        return subject["name"] if trains else f"{subject['name']} {stage}"
    model = _shortened(subject.get("row") or subject["model"].removesuffix("_1w1a"), 8)
    short = f"{model} {_shortened(subject['method'], 2)}{subject['seed']}{' ' if trains else 'e'}"
    whole = f"{labelled(network, subject.get('row'))} {subject['method']} seed{subject['seed']}"
    return f"{short}{subject['spec_hash'][:2]} | {whole if trains else f'{whole} {stage}'}"


def _shortened(name: str, size: int) -> str:
    """The first letters and the digits at its end, at most `size` characters: "step2" to two is "s2"."""
    letters, digits = re.sub(r"[^A-Za-z0-9]|\d+$", "", name), re.sub(r".*\D", "", name)
    return letters[: max(0, size - len(digits))] + digits[-size:]


def _params(subject: Mapping[str, Any]) -> dict[str, str]:
    """Flat, hyper-parameters by their own names, and only what has a value."""
    flat = flatten_params({key: value for key, value in subject.items() if key not in ("id", "spec_hash")})
    flat = {name: value for name, value in flat.items() if value != "null"}
    plain = {name: name.removeprefix("hyperparameters.") for name in flat}
    return {name if name != short and short in flat else short: flat[name] for name, short in plain.items()}


def _tags(subject: Mapping[str, Any], network: str, stage: str, provenance: Mapping[str, Any]) -> dict[str, str]:
    tags = {name: subject[name] for name in ("model", "dataset", "row", "method", "seed") if name in subject}
    tags |= {"network": network, "stage": stage}
    tags[_NOTE] = _note(subject, network, stage)
    tags |= {name: provenance[name] for name in ("git_commit", "git_dirty", "device")}
    if provenance["git_commit"] is not None:
        tags["mlflow.source.git.commit"] = provenance["git_commit"]
    if provenance.get("slurm_job"):
        tags["slurm_job"] = provenance["slurm_job"]
    tags |= {f"version.{name}": version for name, version in provenance["packages"].items()}
    return {name: str(value) for name, value in tags.items()}


def _note(subject: Mapping[str, Any], network: str, stage: str) -> str:
    """What MLflow shows as the run's description, in Markdown."""
    done = "Training" if stage == "train" else "Evaluation of the best checkpoint"
    what = subject.get("name") or f"{network}, method {subject['method']}, seed {subject['seed']}"
    return f"{done}: {what}, on {subject['dataset']}.\n\nExperiment `{subject['id']}` (`{subject['spec_hash']}`)."


def _tags_of_pieces(pieces: Iterable[tuple[int, int, str]], spec_hash: str) -> dict[str, str]:
    """Which epochs of the run, counted from 1, were trained with other parameters than it shows, if any were."""
    others = [
        f"epochs {first + 1} to {last + 1}: spec_hash {other}" for first, last, other in pieces if other != spec_hash
    ]
    return {"trained_with_other_parameters": "; ".join(others)} if others else {}
