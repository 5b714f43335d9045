"""A position inside an epoch: what it is valid for, and the state at the epoch's start to fall back on.

A position says how many batches of an epoch are done. Which images those were, and what was done with them, depends on
what is stored with it. Where anything of that has changed, the epoch is trained anew from its start, whose state is
kept beside the checkpoint as long as the epoch lasts. So each epoch sees its images once, under one set of parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recu.base.errors import CheckpointError, OutputError
from recu.base.files import copy_file, hash_file, link_or_copy
from recu.experiment import paths
from recu.experiment.resolving import later_defaults
from recu.experiment.schema import Hyperparameters
from recu.training.checkpoint import RESUME_KEY, read_checkpoint

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Validity:
    """Everything that decides what an epoch's batch number n holds, and what a step makes of it."""

    batch_size: int
    seed: int
    augmentation: str
    loader: str
    """Input pipeline; each draws in its own way."""
    skip_unreadable: bool
    data_fingerprint: str
    num_images: int
    """Training images."""
    world_size: int = 1
    """Processes that share each batch."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The other hyper-parameters that decide a training step, by name."""

    def as_plain(self) -> dict[str, Any]:
        """For a checkpoint: one value a name."""
        fields = asdict(self)
        return fields.pop("recipe") | fields


def start_of(checkpoint: Path) -> Path:
    """Where the state at the start of an interrupted epoch is kept: `checkpoint.epoch-start.pth.tar`."""
    return paths.beside(checkpoint, "epoch-start")


def keep_start(checkpoint: Path) -> str:
    """Keep the checkpoint of an epoch's start before one within the epoch replaces it; returns its SHA-256.

    A checkpoint that somebody has removed meanwhile cannot be kept, which is no reason to stop: "" is returned then.

    Args:
        checkpoint: the file, which now holds the state at the epoch's start.

    Raises:
        OutputError: it cannot be kept.
    """
    start = start_of(checkpoint)
    try:
        link_or_copy(checkpoint, start)
        return hash_file(start)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise OutputError(f"cannot write {start}: {error.strerror or error}; check space and permissions") from error


def carry_start(source: Path, checkpoint: Path) -> None:
    """Copy the kept start of an epoch beside `checkpoint`, which is going to continue the checkpoint `source`."""
    if start_of(source).exists():
        copy_file(start_of(source), start_of(checkpoint))


def usable_state(checkpoint: dict[str, Any], file: Path, validity: Validity) -> dict[str, Any]:
    """The state to continue: `checkpoint` itself, or the start of its epoch where its position is not valid now.

    Args:
        checkpoint: one of ours, with random states.
        file: where it was read, for the start that is kept beside it.
        validity: what holds from now on.

    Raises:
        CheckpointError: the position is not valid, and the start of its epoch is not there.
    """
    position = checkpoint[RESUME_KEY]["position"]
    if position is None:
        return checkpoint
    then, now = later_defaults(Hyperparameters) | position["valid_for"], validity.as_plain()
    changed = ", ".join(f"{name} {then.get(name)} -> {value}" for name, value in now.items() if then.get(name) != value)
    if not changed:
        return checkpoint
    epoch, start = checkpoint["epoch"], start_of(file)
    if not _is_start(start, position):
        raise CheckpointError(
            f"{file} stopped inside epoch {epoch + 1}, which has to be trained as it was begun ({changed}), and"
            f" {start}, the state at the epoch's start, is not there: continue with what it had, and change this after"
            " the epoch"
        )
    _log.warning("epoch %d begins anew, since it has to be trained as it was begun: %s", epoch + 1, changed)
    return read_checkpoint(start)


def _is_start(start: Path, position: Mapping[str, Any]) -> bool:
    try:
        return hash_file(start) == position["start"]
    except OSError:
        return False
