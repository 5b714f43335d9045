"""What a checkpoint of this program says of itself, and whether that agrees with what is asked for.

The names of a network's tensors tell neither what it binarises nor how its images were normalised: a file that says so
is believed, and whatever contradicts it is refused. The authors' files say nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from recu.base.errors import CheckpointError, ConfigError
from recu.base.files import hash_text
from recu.experiment.binarisers import USUAL
from recu.experiment.networks import Stage
from recu.experiment.own import own_hash
from recu.experiment.params import validate_model
from recu.experiment.resolving import network_name, network_sources
from recu.experiment.schema import Dataset
from recu.results.records import Accuracy, EpochResult, as_record
from recu.training.checkpoint import RESUME_KEY, read_checkpoint

_Channels = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class CheckpointIdentity:
    """Which network was trained how on what, as the file has it."""

    model: str
    family: str
    variant: str | None
    stage: int
    """What the network binarises; see `recu.experiment.networks.STAGES`."""
    binariser: str
    """What binarises it."""
    dataset: str
    """Name in params/datasets.yaml."""
    num_classes: int
    image_size: int
    mean: _Channels
    std: _Channels
    test_view: Any
    """Of the dataset; None in files of versions that did not write it."""
    data: Mapping[str, Any]
    """`recu.experiment.schema.Dataset.identity()`, possibly of an earlier version of this program."""
    method: str
    seed: int
    experiment: str
    """`Experiment.canonical`, possibly of an earlier version of this program."""
    spec_hash: str
    data_fingerprint: str
    classes: tuple[str, ...] | None
    """Names in label order; None in files of versions that did not write them."""
    network_code: str | None
    """`recu.experiment.own.own_hash` of users' code that the network was made of; None for none, and in files of
    versions that did not write it."""
    trained: Accuracy | None
    """`top1`, `top5` and `loss` that its training measured with these very weights; None within an epoch."""

    @property
    def network(self) -> str:
        """As `recu.experiment.resolving.network_name`."""
        return network_name(self.family, self.variant, self.model)

    @property
    def seen(self) -> Dataset | None:
        """Its dataset, as far as it decides how an image becomes the network's input; None where the file says less."""
        if self.test_view is None:
            return None
        try:
            return validate_model({"title": self.dataset, "family": self.family, **self.data}, Dataset, "checkpoint")
        except ConfigError:  # of another version, which knows other kinds of data
            return None


def describe_checkpoint(path: Path) -> CheckpointIdentity | None:
    """What the checkpoint at `path` says of itself; None for the authors' and other foreign files, which say nothing.

    Raises:
        CheckpointError: it cannot be read, or what it says is contradictory or not of the expected form.
    """
    return identity_of(read_checkpoint(path), path)


def identity_of(checkpoint: Mapping[str, Any], path: Path) -> CheckpointIdentity | None:
    """As `describe_checkpoint`, of a checkpoint that was read from `path`."""
    ours = checkpoint.get(RESUME_KEY)
    if ours is None:
        return None
    try:
        own = _Own.model_validate(ours)
        experiment = _Experiment.model_validate_json(own.experiment)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "experiment"
        raise CheckpointError(
            f"{path} does not say what it is: {key} of its part {RESUME_KEY!r}: {first['msg']}; {_ANOTHER_FILE}"
        ) from error
    stated = (own.spec_hash, own.seed, checkpoint.get("model", experiment.model))
    data = experiment.data
    counted = data.num_classes if own.classes is None else len(own.classes)
    if (*stated, counted) != (hash_text(own.experiment), experiment.seed, experiment.model, data.num_classes):
        raise CheckpointError(
            f"{path} contradicts itself: its hash, seed, model or classes are not those of the experiment it names;"
            f" {_ANOTHER_FILE}"
        )
    return CheckpointIdentity(
        model=experiment.model,
        family=experiment.family,
        variant=experiment.variant,
        stage=experiment.hyperparameters.stage,
        binariser=experiment.hyperparameters.binariser,
        dataset=experiment.dataset,
        num_classes=data.num_classes,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        test_view=data.test_view,
        data=json.loads(own.experiment)["data"],
        method=experiment.method,
        seed=experiment.seed,
        experiment=own.experiment,
        spec_hash=own.spec_hash,
        data_fingerprint=own.data_fingerprint,
        classes=None if own.classes is None else tuple(own.classes),
        network_code=own.network_code,
        trained=_trained(ours),
    )


def check_agrees(
    identity: CheckpointIdentity,
    path: Path,
    asked: Mapping[str, Any],
    *,
    by: str,
    advice: str = "leave them out, or give the file that was meant",
) -> None:
    """Refuse a file that is not what is asked for.

    Args:
        identity: what the file says.
        path: the file, for the message.
        asked: fields of `CheckpointIdentity` and the values wanted; only those that somebody really asked for.
        by: who asks, as the message has it, e.g. "the options".
        advice: what to do, as the message has it.

    Raises:
        CheckpointError: naming what the file says and what is asked for.
    """
    differing = [name for name, value in asked.items() if getattr(identity, name) != value]
    if differing:
        holds = ", ".join(f"{name} {_word(getattr(identity, name))}" for name in differing)
        wanted = ", ".join(f"{name} {_word(asked[name])}" for name in differing)
        raise CheckpointError(f"{path} says that it has {holds}, but {by} would have {wanted}: {advice}")


def check_data(identity: CheckpointIdentity, path: Path, name: str, dataset: Dataset) -> None:
    """Refuse to measure a network on images that are brought into another form than those it was trained on.

    On another dataset than its own, classes and normalisation must fit; on its own, image size and test view too, since
    its entry in params/datasets.yaml has changed otherwise.

    Args:
        identity: what the file says.
        path: the file, for the message.
        name: of the dataset to measure on.
        dataset: its entry.

    Raises:
        CheckpointError: naming both values.
    """
    fields = ["num_classes", "mean", "std"]
    if name == identity.dataset:
        fields.append("image_size")
        fields += ["test_view"] if identity.test_view is not None else []
    now = dataset.identity()
    differing = [field for field in fields if _plain(getattr(identity, field)) != _plain(now.get(field))]
    if differing:
        trained = ", ".join(f"{field} {_word(getattr(identity, field))}" for field in differing)
        found = ", ".join(f"{field} {_word(now.get(field))}" for field in differing)
        raise CheckpointError(
            f"{path} was trained on {identity.dataset} with {trained}, but dataset {name} in params/datasets.yaml has"
            f" {found}: take a dataset whose entry has the same values"
        )


def check_classes(identity: CheckpointIdentity, path: Path, classes: Sequence[str]) -> None:
    """Refuse a network for images whose labels stand for other classes than those it was trained on.

    Labels follow the order of the names: folders that are called otherwise may give each class another label.

    Args:
        identity: what the file says.
        path: the file, for the message.
        classes: of the images, names in label order.

    Raises:
        CheckpointError: naming the first label that stands for another class.
    """
    names = classes if identity.classes is None else identity.classes
    label = next((label for label, pair in enumerate(zip(names, classes, strict=True)) if pair[0] != pair[1]), None)
    if label is not None:
        raise CheckpointError(
            f"{path} was trained with class {names[label]!a} as label {label}, which is {classes[label]!a} in the data:"
            " take data whose classes have the same names"
        )


def check_code(identity: CheckpointIdentity, path: Path) -> None:
    """Refuse a network that would be made of other code of its user's than the one that was trained.

    Args:
        identity: what the file says.
        path: the file, for the message.

    Raises:
        CheckpointError: naming the files of code.
    """
    changed = other_code(identity)
    if changed is not None:
        raise CheckpointError(f"{path} {changed}: put the code back as it was then, or train again")


def other_code(identity: CheckpointIdentity) -> str | None:
    """How the code of a user's network or binariser is other now than what was trained, in words; None where it is
    not, or where the file names none."""
    if identity.network_code is None:
        return None
    sources = network_sources(identity.model, identity.binariser)
    now = own_hash(sources)
    if now == identity.network_code:
        return None
    return (
        f"was trained with other code than {', '.join(sorted(each.name for each in sources))} now (SHA-256"
        f" {identity.network_code:.12}, now {now or 'none':.12}), which may be another network"
    )


_ANOTHER_FILE = "give another copy of the file, or train again"


def _trained(ours: Mapping[str, Any]) -> Accuracy | None:
    history = ours.get("history") if ours.get("position") is None else None
    row = ours.get("row") or (history[-1] if history else None)
    return None if row is None else as_record(row, EpochResult).tested


class _Lenient(BaseModel):
    # Other versions of this program write more fields or fewer; only what is needed here must be right.
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _Own(_Lenient):
    experiment: str
    spec_hash: str
    data_fingerprint: str
    classes: list[str] | None = None
    network_code: str | None = None
    seed: int


class _Data(_Lenient):
    num_classes: int
    image_size: int
    mean: _Channels
    std: _Channels
    test_view: Any = None


class _Recipe(_Lenient):
    stage: Stage
    binariser: str = USUAL


class _Experiment(_Lenient):
    model: str
    family: str
    variant: str | None
    dataset: str
    method: str
    seed: int
    data: _Data
    hyperparameters: _Recipe


def _word(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(str, value))})"
    return "none" if value is None else str(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
