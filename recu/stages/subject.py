"""Which network a checkpoint file holds: what it says of itself or, for foreign files, what the user says.

Nothing is guessed that would change a number: an earlier form shows in the names of the tensors, but a network's stage
may not, and then it must be given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from recu.base.errors import CheckpointError, ConfigError
from recu.experiment.binarisers import USUAL, find_binariser
from recu.experiment.networks import check_network, find_network
from recu.experiment.released import Released
from recu.experiment.resolving import network_name
from recu.experiment.schema import Dataset

if TYPE_CHECKING:
    from torch import nn

    from recu.training.checkpoint import CheckpointFile
    from recu.training.checkpoint_identity import CheckpointIdentity
    from recu.training.weights import LoadReport


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A checkpoint file and which network it is taken for."""

    file: CheckpointFile
    identity: CheckpointIdentity | None
    """What the file says; None for a foreign file."""
    model: str
    family: str
    variant: str | None
    stage: int
    binariser: str

    @property
    def network(self) -> str:
        """As `recu.experiment.resolving.network_name`."""
        return network_name(self.family, self.variant, self.model)

    def build(self, num_classes: int) -> nn.Module:
        """The network, freshly initialised."""
        from recu.models import build_model

        where = {name: getattr(self, name) for name in ("family", "variant", "stage", "binariser")}
        return build_model(self.model, num_classes=num_classes, **where)


def recognise(
    file: CheckpointFile,
    asked: Mapping[str, Any],
    name: str,
    dataset: Dataset,
    *,
    by: str = "the options",
    advice: str = "leave them out, or give the file that was meant",
    stage_key: str = "--stage",
) -> Subject:
    """Which network the file is to be measured as on a dataset.

    Args:
        file: as read.
        asked: `model`, `family`, `variant`, `stage` and `binariser` as far as somebody named them.
        name: of the dataset.
        dataset: its entry.
        by: who asked, for messages.
        advice: what to do where the file says otherwise, for messages.
        stage_key: where a stage is given that the file does not say, for messages.

    Raises:
        CheckpointError: the file says otherwise, or was trained for other images or classes.
        ConfigError: a foreign file of which too little is known, an unknown network, or images that it cannot take.
    """
    from recu.training.checkpoint_identity import check_agrees, check_data, identity_of

    identity = identity_of(file.content, file.path)
    if identity is None:
        subject = _foreign(file, asked, dataset, stage_key)
    else:
        check_agrees(identity, file.path, asked, by=by, advice=advice)
        check_data(identity, file.path, name, dataset)
        known = {key: getattr(identity, key) for key in ("model", "family", "variant", "stage", "binariser")}
        subject = Subject(file=file, identity=identity, **known)
    check_network(
        subject.model,
        family=subject.family,
        variant=subject.variant,
        stage=subject.stage,
        image_size=dataset.image_size,
        binariser=subject.binariser,
    )
    return subject


def recognise_released(file: CheckpointFile, released: Released, dataset: Dataset) -> Subject:
    """A released file as its entry names it; of our own, only if it says the same of itself. Raises as `recognise`."""
    given = {name: getattr(released, name) for name in ("stage", "binariser")}
    return recognise(
        file,
        {"model": released.model, "family": released.family}
        | {name: value for name, value in given.items() if value is not None},
        released.dataset,
        dataset,
        by=released.entry,
        advice="correct the entry",
        stage_key=f"`stage` in {released.entry}",
    )


def load(subject: Subject, classes: Sequence[str]) -> tuple[nn.Module, LoadReport]:
    """The network with the file's weights, and what became of its tensors.

    Args:
        subject: the file.
        classes: of the images to measure on, names in label order.

    Raises:
        CheckpointError: naming the file: it does not fit, or was trained on other classes.
    """
    from recu.training.checkpoint_identity import check_classes

    if subject.identity is not None:
        check_classes(subject.identity, subject.file.path, classes)
    return load_network(subject, len(classes))


def load_network(subject: Subject, num_classes: int) -> tuple[nn.Module, LoadReport]:
    """As `load`, where it is not yet known which classes the images to measure on have."""
    from recu.training.weights import load_weights

    network = subject.build(num_classes)
    try:
        report = load_weights(network, subject.file.content["state_dict"])
    except CheckpointError as error:
        raise CheckpointError(f"{subject.file.path} as {subject.network}: {error}") from error
    return network, report


def _foreign(file: CheckpointFile, asked: Mapping[str, Any], dataset: Dataset, stage_key: str) -> Subject:
    from recu.models import recognise_variant

    family = asked.get("family", dataset.family)
    model = asked.get("model", file.content.get("model"))
    if not isinstance(model, str):
        raise ConfigError(f"--model is missing: {file.path} does not say which network it holds")
    try:
        variant = asked.get("variant") or recognise_variant(file.content["state_dict"])
    except CheckpointError as error:
        raise CheckpointError(f"{file.path}: {error}") from error
    binariser = asked.get("binariser", USUAL)
    subject = Subject(
        file=file, identity=None, model=model, family=family, variant=variant, stage=2, binariser=binariser
    )
    stage = asked["stage"] if "stage" in asked else _stage(subject, dataset.num_classes, stage_key)
    return replace(subject, stage=stage)


def _stage(subject: Subject, num_classes: int, key: str) -> int:
    """The stage whose network has the file's tensors. Raises ConfigError where several have."""
    from recu.models import canonical_names

    given = _without_counters(canonical_names(subject.file.content["state_dict"]).values())
    network = find_network(subject.model, family=subject.family, variant=subject.variant)
    own = find_binariser(subject.binariser, family=subject.family).stages
    stages = [stage for stage in network.stages if stage in own]
    fitting = [stage for stage in stages if _names(subject, stage, num_classes) == given]
    if len(fitting) > 1:
        listed = " and ".join(map(str, fitting))
        raise ConfigError(
            f"{subject.file.path} does not say its stage, and its tensors are those of stages {listed}: give {key}"
            " (0 full precision, 1 binary activations, 2 binary activations and weights)"
        )
    # Where none fits, loading says what differs from the network that was most likely meant.
    return fitting[0] if fitting else stages[-1]


def _names(subject: Subject, stage: int, num_classes: int) -> frozenset[str]:
    import torch

    with torch.device("meta"):
        return _without_counters(replace(subject, stage=stage).build(num_classes).state_dict())


def _without_counters(names: Any) -> frozenset[str]:
    from recu.training.weights import COUNTERS, NEVER_USED

    return frozenset(name for name in names if name.rpartition(".")[2] not in (*COUNTERS, *NEVER_USED))
