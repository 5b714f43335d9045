"""What a training continues: its folder's own checkpoint or another file, and whether it may go on as asked."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recu.base.errors import CheckpointError, OutputError, ResultError
from recu.base.files import copy_file, hash_file
from recu.experiment import paths
from recu.experiment.resolving import Experiment, Origin, network_sources
from recu.results.flatten import flatten_params
from recu.results.records import Origins, Provenance, Shared, TrainedPiece, TrainingRecord, as_record
from recu.results.sharing import worded
from recu.stages.trained import read_finished

if TYPE_CHECKING:
    from recu.training.checkpoint_identity import CheckpointIdentity

_log = logging.getLogger(__name__)

_OURS = (paths.CHECKPOINT, paths.BEST_CHECKPOINT, paths.HISTORY, paths.METRICS)
_FIXED = (
    *("family", "variant", "model", "seed", "hyperparameters.stage", "hyperparameters.binariser"),
    *("init_from", "data."),
)
"""Beginnings of what makes another training of it, and not the same with other parameters."""
_FREE = ("data.augmentation",)
_NO_STATE = (
    "keeps no state to continue: train anew under another --save, with --keep_resumable if it is to be continued, or"
    " start from its weights with --init_from"
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A checkpoint that may be continued."""

    file: Path
    content: dict[str, Any]
    identity: CheckpointIdentity | None
    """What it says of itself; None for files that this program did not write."""
    own: bool
    """Whether it is that of the training's own folder."""
    record: TrainingRecord | None = None
    """Of a finished training that keeps no state to continue; `content` is made from it."""

    @property
    def ours(self) -> Mapping[str, Any]:
        """What only this program writes; empty for the authors' files."""
        from recu.training.checkpoint import RESUME_KEY

        return self.content.get(RESUME_KEY) or {}

    @property
    def exact(self) -> bool:
        """Whether it can be continued to the same bits. A model_best.pth.tar of ours holds no random states."""
        return self.identity is not None and "random" in self.ours

    @property
    def origins(self) -> Origins:
        """What its training started from and learns from, as it was recorded."""
        return as_record(self.ours.get("origins") or {}, Origins)

    @property
    def segments(self) -> tuple[TrainedPiece, ...]:
        """What trained its epochs; see `recu.training.trainer.Outcome.segments`."""
        return as_record(self.ours.get("segments") or [], tuple[TrainedPiece, ...])

    @property
    def init_from(self) -> Origin | None:
        """What gave the initial weights."""
        origin = None if self.identity is None else json.loads(self.identity.experiment).get("init_from")
        return None if origin is None else Origin(**origin)

    def finished(self, epochs: int) -> bool:
        """Whether no epoch is left to train."""
        return (self.exact or self.record is not None) and self.content["epoch"] >= epochs


def own_state(folder: Path, *, repair: bool = True) -> Found | None:
    """The state in a training's own folder, or what a finished one left there; None where there is neither.

    Args:
        folder: of the state.
        repair: whether a damaged checkpoint is moved aside, which only the lock's holder may do.

    Raises:
        CheckpointError: every checkpoint there is damaged, or says of itself what cannot be; what a finished training
            left was altered.
    """
    file = folder / paths.CHECKPOINT
    if not any(each.exists() for each in paths.state_files(file)):
        return _finished(folder)  # without importing PyTorch where there is none
    from recu.training.checkpoint import load_latest

    content = load_latest(file) if repair else _look_at_latest(file)
    return _finished(folder) if content is None else _found(file, content, own=True)


def state_to_continue(folder: Path, resume: Path | bool, *, repair: bool = True) -> Found | None:
    """The checkpoint that a command line continues; None for a new training.

    Args:
        folder: of the training.
        resume: a file; True for the folder's own checkpoint; False where nothing was said.
        repair: as for `own_state`.

    Raises:
        CheckpointError: what is to be continued is not there or damaged.
        OutputError: the folder holds something that must not be overwritten.
    """
    own = own_state(folder, repair=repair)
    file = folder / paths.CHECKPOINT
    if isinstance(resume, bool) or _same_file(resume, file):
        if own is None and not isinstance(resume, bool):
            _read(resume)  # says what is wrong with it
        if own is None and resume:
            raise CheckpointError(f"--resume: there is no {file} to continue; leave --resume out to begin a training")
        if own is None:
            _check_new(folder)
        return own
    given = given_state(resume)
    if own is None:
        _check_new(folder)
        return given
    begun = own.origins.resumed_from
    if begun is not None and begun.sha256 == hash_file(resume):
        return own
    raise OutputError(
        f"{folder} already holds a training, which did not begin with {resume}: --resume without a file continues it,"
        " or choose another --save"
    )


def given_state(file: Path) -> Found:
    """A checkpoint that was given as a file. Raises CheckpointError if it cannot be read, or not be continued."""
    from recu.training.checkpoint import lacks_momenta

    if file.name == paths.CHECKPOINT and not file.exists() and _finished(file.parent) is not None:
        raise CheckpointError(f"{file} is not there: its training has finished and {_NO_STATE}")
    found = _found(file, _read(file), own=False)
    if found.identity is not None and lacks_momenta(found.content):
        raise CheckpointError(
            f"{file} holds the weights of a finished training and nothing of its optimiser: --init_from {file} starts"
            " another training from them; --keep_resumable keeps the rest"
        )
    return found


def check_may_continue(
    found: Found, experiment: Experiment, *, asked: bool, start_epoch: int = 0, fingerprint: str | None = None
) -> None:
    """Refuse what would make a record that is not true, naming what differs.

    Args:
        found: what is to be continued.
        experiment: what is asked for now.
        asked: whether it was said that something is to be continued; if not, only the very same is.
        start_epoch: as asked for; 0 where nothing was said.
        fingerprint: of the prepared data; None where it is not prepared yet.

    Raises:
        CheckpointError: another network, or other code of a user's; another seed, data or start; or nothing is left to
            train with other parameters.
        OutputError: the folder holds a training with other parameters, and nobody said that it is to go on.
    """
    if found.identity is None:
        if not asked:
            raise OutputError(
                f"{found.file} does not say what it is a checkpoint of: --resume continues it, or choose another --save"
            )
        return
    if fingerprint is not None and found.identity.data_fingerprint != fingerprint:
        raise CheckpointError(
            f"{found.file} was trained on other data (fingerprint {found.identity.data_fingerprint[:12]}, prepared is"
            f" {fingerprint[:12]}): give the data it was trained on, or train afresh under another --save"
        )
    changes = changes_between(found.identity.experiment, experiment)
    if found.own and start_epoch and found.origins.start_epoch != start_epoch:
        changes["start_epoch"] = f"{found.origins.start_epoch} -> {start_epoch}"
    fixed = {name: change for name, change in changes.items() if _is_fixed(name)}
    if fixed:
        raise CheckpointError(
            f"{found.file} is of another training ({_listed(fixed | changes)}): give it what it had, or train afresh"
            " under another --save"
        )
    if (changed := _other_code(found, experiment)) is not None:
        raise CheckpointError(
            f"{found.file} {changed}: put the code back as it was then, or train afresh under another --save"
        )
    done, epochs = found.content.get("epoch"), experiment.hyperparameters.epochs
    if changes and found.record is not None:
        raise CheckpointError(
            f"{found.file} has finished {done} epochs with other parameters ({_listed(changes)}) and {_NO_STATE}"
        )
    if changes and found.finished(epochs):
        raise CheckpointError(
            f"{found.file} has finished {done} epochs with other parameters ({_listed(changes)}), and none of the"
            f" {epochs} is left to train with these: --resume with --epochs above {done} continues it, or train afresh"
            " under another --save"
        )
    if changes and not asked:
        raise OutputError(
            f"{found.file.parent} already holds a training with other parameters ({_listed(changes)}): --resume"
            " continues it with these, or choose another --save"
        )


def why_foreign(
    found: Found, experiment: Experiment, *, fingerprint: str, parent: str | None, teacher: str | None
) -> str | None:
    """Why the state in an experiment's folder is not the experiment's own; None where it is.

    Args:
        found: the state.
        experiment: the experiment.
        fingerprint: of the prepared data.
        parent: SHA-256 of the checkpoint that gives the initial weights; None for random ones.
        teacher: SHA-256 of the published checkpoint that teaches; None for another teacher or none.
    """
    from recu.training.trainer import FORMAT

    if found.identity is None or not (found.exact or found.record is not None):
        return "it is not a state that this program wrote"
    if found.exact and found.ours.get("format") != FORMAT:
        return f"it has format {found.ours.get('format')} of another version, expected {FORMAT}"
    if found.identity.experiment != experiment.canonical:
        return f"it is another experiment's ({_listed(changes_between(found.identity.experiment, experiment))})"
    if found.identity.data_fingerprint != fingerprint:
        return (
            f"the prepared data has changed (fingerprint {fingerprint:.12}, was {found.identity.data_fingerprint:.12})"
        )
    if (changed := _other_code(found, experiment)) is not None:
        return f"it {changed}"
    for role, source, now in (("parent", found.origins.parent, parent), ("teacher", found.origins.teacher, teacher)):
        then = source and source.checkpoint_sha256
        if now is not None and then != now:
            return f"its {role} has been trained again (checkpoint {now:.12}, was {then or 'none':.12})"
    return None


def keep_foreign(found: Found | None) -> None:
    """Give the checkpoints of another program second names, before this one's take theirs.

    Args:
        found: what is to be continued.

    Raises:
        OutputError: those names are taken by others, or cannot be given.
    """
    if found is None or found.identity is not None or not found.own:
        return
    for file in (found.file, found.file.with_name(paths.BEST_CHECKPOINT)):
        kept = file.with_name(f"before-{file.name}")
        if file.exists() and kept.exists() and hash_file(kept) != hash_file(file):
            raise OutputError(f"{kept} keeps another file than {file}, which is to be continued: move one of them away")
        if file.exists() and not kept.exists():
            copy_file(file, kept)
            _log.info("%s, which this program did not write, is kept as %s", file, kept.name)


def changes_between(before: str, experiment: Experiment) -> dict[str, str]:
    """By name of a parameter, `OLD -> NEW` where an experiment differs from an earlier one.

    Args:
        before: `Experiment.canonical` of the earlier one, possibly of another version of this program.
        experiment: the present one.
    """
    old, new = flatten_params(json.loads(before)), flatten_params(experiment.hashed)
    names = dict.fromkeys([*new, *old])
    return {
        name: f"{old.get(name, 'absent')} -> {new.get(name, 'absent')}"
        for name in names
        if old.get(name) != new.get(name)
    }


def note_changes(found: Found, experiment: Experiment, provenance: Provenance, shared: Shared | None = None) -> None:
    """Log what is other from here on: parameters, code, environment and device; metrics.json has it as `segments`."""
    if found.identity is None:
        return
    changes = changes_between(found.identity.experiment, experiment)
    epoch = found.content["epoch"] + 1  # from here on, counted from 1
    if changes:
        _log.warning("continuing with other parameters than before, from epoch %d on: %s", epoch, _listed(changes))
    if "hyperparameters.epochs" in changes:
        _log.warning("learning rate and tau follow the schedule of the new number of epochs from epoch %d on", epoch)
    if not found.segments:
        return
    shared_before = found.segments[-1].shared
    if shared_before != shared:
        recipe = experiment.hyperparameters
        old, new = (worded(each, recipe.batch_size, 1) or "1 device" for each in (shared_before, shared))
        _log.warning("continuing on %s, was %s: the bits differ from those of an uninterrupted training", new, old)
    before = found.segments[-1].provenance
    for name, what in (("device", "device"), ("code_hash", "code"), ("environment_hash", "environment")):
        then, now = getattr(before, name), getattr(provenance, name)
        if then != now:
            shown = slice(None if name == "device" else 12)
            _log.warning(
                "continuing with another %s (%s, was %s): the bits may differ from those of an uninterrupted training",
                what,
                now[shown],
                then[shown],
            )


def _other_code(found: Found, experiment: Experiment) -> str | None:
    """How the code of the user's network or binariser is other than what trained so far, in words; None where it is
    not, or where there is none."""
    if not network_sources(experiment.model, experiment.hyperparameters.binariser):
        return None
    from recu.training.checkpoint_identity import describe_checkpoint, other_code

    # The record of a finished training does not say it, its best checkpoint does.
    best = found.file.with_name(paths.BEST_CHECKPOINT)
    identity = found.identity if found.record is None else describe_checkpoint(best)
    return None if identity is None else other_code(identity)


def _read(file: Path) -> dict[str, Any]:
    from recu.training.checkpoint import read_checkpoint

    return read_checkpoint(file)


def _found(file: Path, content: dict[str, Any], *, own: bool) -> Found:
    from recu.training.checkpoint_identity import identity_of

    return Found(file=file, content=content, identity=identity_of(content, file), own=own)


def _finished(folder: Path) -> Found | None:
    """What a finished training left in its folder that keeps no state to continue."""
    try:
        record = read_finished(folder)
    except ResultError as error:
        raise CheckpointError(str(error)) from error
    if record is None or not record.segments:  # of a version that freed nothing
        return None
    from recu.training.checkpoint import RESUME_KEY

    stated = record.as_plain()
    ours = {
        **{name: stated[name] for name in ("spec_hash", "data_fingerprint", "segments")},
        "experiment": record.segments[-1].experiment,
        "seed": record.parameters["seed"],
        "origins": record.origins.as_plain(),
    }
    file = folder / paths.METRICS
    return replace(_found(file, {"epoch": record.epochs, RESUME_KEY: ours}, own=True), record=record)


def _look_at_latest(file: Path) -> dict[str, Any] | None:
    """As `load_latest`, changing nothing."""
    from recu.training.checkpoint import previous_of, read_checkpoint

    failure: CheckpointError | None = None
    for candidate in (file, previous_of(file)):
        if candidate.exists():
            try:
                return read_checkpoint(candidate)
            except CheckpointError as error:
                failure = failure or error
    if failure is not None:
        raise failure
    return None


def _check_new(folder: Path) -> None:
    """Raise OutputError if `folder` holds parts of a training, which must not be overwritten."""
    existing = next((name for name in _OURS if (folder / name).exists()), None)
    if existing is not None:
        raise OutputError(
            f"{folder} already holds a training ({existing}) without the {paths.CHECKPOINT} to continue it: choose"
            " another --save"
        )


def _is_fixed(name: str) -> bool:
    return name.startswith(_FIXED) and name not in _FREE


def _listed(changes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {change}" for name, change in changes.items())


def _same_file(first: Path, second: Path) -> bool:
    return first.absolute().parent.resolve() == second.absolute().parent.resolve() and first.name == second.name
