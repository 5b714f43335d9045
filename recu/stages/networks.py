"""Building the networks a stage needs: the one that is trained, the one it starts from, and its teacher."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recu.errors import CheckpointError, ConfigError
from recu.experiments import TORCHVISION_WEIGHTS, Experiment, Origin, TeacherWeights, parse_experiment
from recu.files import hash_file
from recu.fit import check_pretrained_teacher
from recu.paths import user_path

if TYPE_CHECKING:
    from torch import nn

    from recu.stages.trained import Trained

_log = logging.getLogger(__name__)
_TEACHER_WEIGHTS = "the teacher's weights"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a network's initial weights come from."""

    checkpoint: Path
    allow_missing: Sequence[str] = ()
    """See `recu.engine.weights.load_weights`."""
    parent: dict[str, str] | None = None
    """How metrics.json names it."""
    run_id: str | None = None
    """Of its run in the tracking store."""

    def load_into(self, model: nn.Module, what: str = "initial weights") -> None:
        """Copy the weights and report, calling them `what`. Raises CheckpointError naming the file."""
        from recu.engine.checkpoint import read_checkpoint
        from recu.engine.weights import load_weights

        state_dict = read_checkpoint(self.checkpoint)["state_dict"]
        try:
            report = load_weights(model, state_dict, allow_missing=self.allow_missing)
        except CheckpointError as error:
            raise CheckpointError(f"{self.checkpoint}: {error}") from error
        _log.info("%s from %s: %s", what, self.checkpoint, report)


@dataclass(frozen=True, kw_only=True)
class Taught:
    """A distillation teacher, ready to teach."""

    network: nn.Module
    """In evaluation mode."""
    digests: dict[str, str]
    """What metrics.json says of its weights: SHA-256 of the tensors loaded (`weights_sha256`), and of their file
    where there is one (`checkpoint_sha256`)."""


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

    def check_classes(self, num_classes: int) -> None:
        """Raise ConfigError or CheckpointError for a teacher that is unknown, or of another number of classes."""
        from recu.engine.checkpoint_identity import describe_checkpoint

        if not self._is_file or self.weights is not None:
            check_pretrained_teacher(self.name, num_classes, self.weights is not None)
            return
        says = describe_checkpoint(user_path(self.name))
        if says is not None and says.num_classes != num_classes:
            raise ConfigError(f"teacher {self.name} has {says.num_classes} classes, the dataset has {num_classes}")

    def build(self, num_classes: int) -> Taught:
        """The teacher with its weights, and their digests.

        Raises:
            ConfigError: unknown name, or weights that cannot be downloaded.
            CheckpointError: weights that do not fit, e.g. of another number of classes.
        """
        if self._is_file and self.weights is None:
            network = _teacher_from_checkpoint(user_path(self.name), num_classes)
        else:
            network = _torchvision_teacher(self.name, self.weights, num_classes)
        return _taught(network, None if self._file is None else hash_file(self._file))

    @property
    def _file(self) -> Path | None:
        return self.weights or (user_path(self.name) if self._is_file else None)

    @property
    def _is_file(self) -> bool:
        return Path(self.name).suffix != "" or "/" in self.name


def build_network(experiment: Experiment) -> nn.Module:
    """A freshly initialised network of an experiment, from torch's global generator."""
    from recu.models import build_model

    return build_model(
        experiment.model,
        family=experiment.family,
        num_classes=experiment.data["num_classes"],
        variant=experiment.variant,
        stage=experiment.hyperparameters.stage,
    )


def network_cost(experiment: Experiment) -> dict[str, float]:
    """What one image costs the experiment's network: the fields of `recu.models.cost.Cost` and its OPs."""
    return describe_cost(build_network(experiment), experiment.data["image_size"])


def describe_cost(network: nn.Module, image_size: int) -> dict[str, float]:
    """What one image of `image_size` pixels a side costs a network; as `network_cost`."""
    from recu.models.cost import measure_cost

    cost = measure_cost(network, image_size)
    return asdict(cost) | {"operations": cost.operations}


def weights_of(parent: Trained, experiment: Experiment) -> Weights:
    """The initial weights of `experiment` from its published parent."""
    return Weights(
        checkpoint=parent.checkpoint,
        allow_missing=missing_from_stage(parent.experiment.hyperparameters.stage, experiment.hyperparameters.stage),
        parent=parent.as_parent(),
        run_id=parent.run_id,
    )


def missing_from_stage(stage: int, following: int) -> Sequence[str]:
    """What weights of one stage may lack when they start another one."""
    from recu.engine.weights import STAGE_2_ONLY

    return STAGE_2_ONLY if following == 2 and stage < 2 else ()


def teacher_of(parent: Trained, num_classes: int) -> Taught:
    """A published training's network as teacher."""
    network = _load_teacher(parent.experiment, parent.checkpoint, num_classes)
    return _taught(network, parent.metrics["checkpoint_sha256"])


def _taught(network: nn.Module, file_digest: str | None) -> Taught:
    file = {} if file_digest is None else {"checkpoint_sha256": file_digest}
    return Taught(network=network, digests=file | {"weights_sha256": hash_weights(network)})


def hash_weights(network: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of a network's tensors, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _teacher_from_checkpoint(file: Path, num_classes: int) -> nn.Module:
    from recu.engine.checkpoint import RESUME_KEY, read_checkpoint

    ours = read_checkpoint(file).get(RESUME_KEY)
    if not isinstance(ours, dict) or not isinstance(ours.get("experiment"), str):
        raise CheckpointError(
            f"teacher {file} does not say what network it is (only this program's checkpoints do): name a torchvision"
            " network with --teacher and give the file as --teacher_weights"
        )
    return _load_teacher(parse_experiment(ours["experiment"]), file, num_classes)


def _load_teacher(experiment: Experiment, file: Path, num_classes: int) -> nn.Module:
    classes = experiment.data["num_classes"]
    if classes != num_classes:
        raise ConfigError(f"the teacher {experiment.id} has {classes} classes, the dataset has {num_classes}")
    model = build_network(experiment)
    Weights(checkpoint=file).load_into(model, _TEACHER_WEIGHTS)
    return model.eval()


def _torchvision_teacher(name: str, weights: Path | None, num_classes: int) -> nn.Module:
    import torchvision

    check_pretrained_teacher(name, num_classes, weights is not None)
    if weights is not None:
        model = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
        Weights(checkpoint=weights).load_into(model, _TEACHER_WEIGHTS)
        return model.eval()
    try:
        return torchvision.models.get_model(name, weights=TORCHVISION_WEIGHTS).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot get torchvision's weights of {name} ({error}): download them and give --teacher_weights FILE"
        ) from error
