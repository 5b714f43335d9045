"""Building the networks a stage needs: the one that is trained, the one it starts from, and its teacher."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recu.base.errors import CheckpointError, ConfigError
from recu.experiment.fit import check_pretrained_teacher
from recu.experiment.own import CodeFile
from recu.experiment.paths import user_path
from recu.experiment.resolving import TORCHVISION_WEIGHTS, Experiment, Origin, TeacherWeights, network_sources
from recu.results.records import Cost, Source

if TYPE_CHECKING:
    from torch import nn

    from recu.experiment.schema import Dataset
    from recu.stages.trained import Trained
    from recu.training.checkpoint import CheckpointFile

_log = logging.getLogger(__name__)
_TEACHER_WEIGHTS = "the teacher's weights"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a network's initial weights come from."""

    checkpoint: Path
    allow_missing: Sequence[str] = ()
    """See `recu.training.weights.load_weights`."""
    parent: Source | None = None
    """How metrics.json names it."""

    def load_into(self, model: nn.Module, what: str = "initial weights") -> str:
        """Copy the weights and report, calling them `what`; returns the SHA-256 of the bytes they were read from.

        Raises:
            CheckpointError: naming the file: it cannot be read, does not fit, is not the one that `parent` names, or is
                of a user's network whose code was another.
        """
        from recu.training.checkpoint_identity import check_code, identity_of

        file = _opened(self.checkpoint, self.parent)
        says = identity_of(file.content, self.checkpoint)
        if says is not None:
            check_code(says, self.checkpoint)
        _load(file, model, what, self.allow_missing)
        return file.sha256


@dataclass(frozen=True, kw_only=True)
class Taught:
    """A distillation teacher, ready to teach."""

    network: nn.Module
    """In evaluation mode."""
    weights_sha256: str
    """Of the tensors loaded."""
    checkpoint_sha256: str | None
    """Of their file; None where it is none of this program."""
    sources: tuple[CodeFile, ...] = ()
    """Users' code that the network is made of."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A distillation teacher, given in one of three ways.

    Args:
        name: a torchvision network's name, or a checkpoint that this program wrote.
        weights: local weights of the torchvision network; None downloads torchvision's own.
    """

    name: str
    weights: Path | None = None

    @property
    def origin(self) -> Origin:
        """What the experiment's hash sees: the name and the weights' content."""
        label = user_path(self.name).name if self._is_file else f"torchvision.{self.name}"
        return Origin(id=label, spec_hash=TeacherWeights(str(self._file or "")).spec_hash)

    def check(self, planned: Origin) -> None:
        """Raise ConfigError if the weights are not those that an experiment was planned with."""
        found = TeacherWeights(str(self._file or "")).spec_hash
        if found != planned.spec_hash:
            raise ConfigError(
                f"the weights of teacher {planned.id} ({self._file or 'those that torchvision publishes'}, hash"
                f" {found}) are not those that the experiment was planned with (hash {planned.spec_hash}): plan again"
                " with teacher_weights in params/config.yaml as it should be, which gives the experiment another hash"
            )

    def check_fits(self, name: str, dataset: Dataset) -> None:
        """Raise ConfigError or CheckpointError for a teacher that is unknown, or made for other classes or images.

        Args:
            name: of the dataset that is trained on.
            dataset: its entry.
        """
        from recu.training.checkpoint_identity import check_data, describe_checkpoint

        if not self._is_file or self.weights is not None:
            check_pretrained_teacher(self.name, dataset.num_classes, self.weights is not None)
            return
        says = describe_checkpoint(user_path(self.name))
        if says is not None:
            check_data(says, user_path(self.name), name, dataset)

    def build(self, classes: Sequence[str]) -> Taught:
        """The teacher of these classes (names in label order) with its weights, and their hashes.

        Raises:
            ConfigError: unknown name, or weights that cannot be downloaded.
            CheckpointError: weights that do not fit, e.g. of other classes.
        """
        if self._is_file and self.weights is None:
            return _teacher_from_checkpoint(user_path(self.name), classes)
        return _torchvision_teacher(self.name, self.weights, len(classes))

    @property
    def _file(self) -> Path | None:
        return self.weights or (user_path(self.name) if self._is_file else None)

    @property
    def _is_file(self) -> bool:
        return Path(self.name).suffix != "" or "/" in self.name


def _opened(path: Path, parent: Source | None) -> CheckpointFile:
    from recu.training.checkpoint import open_checkpoint

    file = open_checkpoint(path)
    if parent is not None and file.sha256 != parent.checkpoint_sha256:
        raise CheckpointError(f"{path} changed while it was read: run the same command again")
    return file


def _load(file: CheckpointFile, model: nn.Module, what: str, allow_missing: Sequence[str] = ()) -> None:
    from recu.training.weights import load_weights

    try:
        report = load_weights(model, file.content["state_dict"], allow_missing=allow_missing)
    except CheckpointError as error:
        raise CheckpointError(f"{file.path}: {error}") from error
    _log.info("%s from %s: %s", what, file.path, report)


def build_network(experiment: Experiment) -> nn.Module:
    """A freshly initialised network of an experiment, from torch's global generator."""
    from recu.models import build_model

    return build_model(
        experiment.model,
        family=experiment.family,
        num_classes=experiment.data["num_classes"],
        variant=experiment.variant,
        stage=experiment.hyperparameters.stage,
        binariser=experiment.hyperparameters.binariser,
    )


def network_cost(experiment: Experiment) -> Cost:
    """What one image costs the experiment's network."""
    return describe_cost(build_network(experiment), experiment.data["image_size"])


def describe_cost(network: nn.Module, image_size: int) -> Cost:
    """What one image of `image_size` pixels a side costs a network."""
    from recu.models.cost import measure_cost

    cost = measure_cost(network, image_size)
    return Cost(**asdict(cost), operations=cost.operations)


def weights_of(parent: Trained, experiment: Experiment) -> Weights:
    """The initial weights of `experiment` from its published parent."""
    return Weights(
        checkpoint=parent.checkpoint,
        allow_missing=missing_from_stage(parent.record.resolved.hyperparameters.stage, experiment),
        parent=parent.record.as_source(),
    )


def missing_from_stage(stage: int, experiment: Experiment) -> Sequence[str]:
    """What weights of a stage may lack when they start an experiment's network."""
    from recu.models.build import further_state

    recipe = experiment.hyperparameters
    return further_state(experiment.family, recipe.binariser, stage, recipe.stage) if stage < recipe.stage else ()


def teacher_of(parent: Trained, classes: Sequence[str]) -> Taught:
    """A published training's network as teacher of these classes, names in label order."""
    return _teacher_from_checkpoint(parent.checkpoint, classes, parent=parent.record.as_source())


def _taught(network: nn.Module, file_digest: str | None, sources: tuple[CodeFile, ...] = ()) -> Taught:
    return Taught(network=network, weights_sha256=hash_weights(network), checkpoint_sha256=file_digest, sources=sources)


def hash_weights(network: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of a network's tensors, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _teacher_from_checkpoint(file: Path, classes: Sequence[str], parent: Source | None = None) -> Taught:
    """The network that a file of this program says it is; `parent` as in `Weights`."""
    from recu.models import build_model
    from recu.training.checkpoint_identity import check_classes, check_code, identity_of

    opened = _opened(file, parent)
    says = identity_of(opened.content, file)
    if says is None:
        raise CheckpointError(
            f"teacher {file} does not say what network it is (only this program's checkpoints do): name a torchvision"
            " network with --teacher and give the file as --teacher_weights"
        )
    if says.num_classes != len(classes):
        raise ConfigError(f"teacher {file} has {says.num_classes} classes, the dataset has {len(classes)}")
    check_classes(says, file, classes)
    check_code(says, file)
    network = build_model(
        says.model,
        family=says.family,
        num_classes=len(classes),
        variant=says.variant,
        stage=says.stage,
        binariser=says.binariser,
    )
    _load(opened, network, _TEACHER_WEIGHTS)
    return _taught(network.eval(), opened.sha256, network_sources(says.model, says.binariser))


def _torchvision_teacher(name: str, weights: Path | None, num_classes: int) -> Taught:
    import torchvision

    check_pretrained_teacher(name, num_classes, weights is not None)
    if weights is not None:
        model = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
        digest = Weights(checkpoint=weights).load_into(model, _TEACHER_WEIGHTS)
        return _taught(model.eval(), digest)
    try:
        return _taught(torchvision.models.get_model(name, weights=TORCHVISION_WEIGHTS).eval(), None)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot get torchvision's weights of {name} ({error}): download them and give --teacher_weights FILE"
        ) from error
