"""The train stage: vanilla, finetune and every other method are this one training, with other initial weights."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recu.base.allocator import keep_freed_memory
from recu.base.errors import CheckpointError, OutputError, ResultError
from recu.base.files import atomic_write_json, check_ordinary, free_name, hash_file, remove_temporary_files
from recu.base.lock import only_one
from recu.base.place import ONLY, Place
from recu.experiment import paths
from recu.experiment.fit import choose_loader
from recu.experiment.networks import check_network, find_network
from recu.experiment.own import own_hash
from recu.experiment.resolving import Experiment, Origin, network_sources, own_sources
from recu.experiment.running import Running
from recu.experiment.schema import Dataset
from recu.results.records import (
    Origins,
    Provenance,
    ResumedFrom,
    Source,
    TrainedPiece,
    TrainingRecord,
    write_record,
)
from recu.results.sharing import shared_by, worded
from recu.stages.logfile import log_to
from recu.stages.networks import Taught, Teacher, Weights, build_network, network_cost, teacher_of, weights_of
from recu.stages.resume import (
    Found,
    check_may_continue,
    keep_foreign,
    note_changes,
    own_state,
    state_to_continue,
    why_foreign,
)
from recu.stages.trained import publish, read_finished, read_trained

if TYPE_CHECKING:
    import torch

    from recu.data import Loaders, Prepared
    from recu.tracking.description import RunDescription
    from recu.tracking.run import FollowedRun
    from recu.training.position import Validity
    from recu.training.processes import Processes
    from recu.training.trainer import Outcome, Trainer

_MOST_WAIT_S = 60.0
"""In a job of limited time; a job that was just ended elsewhere is gone by then."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One training with everything it starts from."""

    experiment: Experiment
    dataset: Dataset
    prepared: Prepared
    state: Path
    """Folder of the resumable state."""
    results: Path
    """Folder the finished training is published into."""
    running: Running
    initial: Weights | None = None
    build_teacher: Callable[[Sequence[str]], Taught] | None = None
    """From the classes, names in label order, to the teacher."""
    teacher_checkpoint: str | None = None
    """SHA-256 of the published checkpoint that teaches; None for another teacher or none."""
    start_epoch: int = 0


def train(
    experiment: Experiment,
    *,
    dataset: Dataset,
    prepared: Prepared,
    results_dir: Path,
    runs_dir: Path,
    teacher_weights: Path | None = None,
    running: Running | None = None,
    processes: Processes | None = None,
) -> None:
    """Train an experiment of the workflow, or continue it, and publish the result into its results folder.

    Args:
        experiment: what to train.
        dataset: its dataset's entry.
        prepared: the data.
        results_dir: where parents are read from and the result is published.
        runs_dir: where the resumable state lives.
        teacher_weights: local file of a torchvision teacher's published weights; None downloads them.
        running: how to run it.
        processes: that share it, of which this is the first; None for this one alone.

    Raises:
        RecuError: one line each: bad data, missing or altered parents, a diverging loss, an unwritable folder.
        Interrupted: a signal came; the same call continues.
    """
    check_network(
        experiment.model,
        family=experiment.family,
        variant=experiment.variant,
        stage=experiment.hyperparameters.stage,
        image_size=dataset.image_size,
        binariser=experiment.hyperparameters.binariser,
    )
    results = paths.train_folder(results_dir, experiment.id)
    check_writable(results)
    initial, teacher_checkpoint = None, None
    build_teacher: Callable[[Sequence[str]], Taught] | None = None
    if experiment.init_from is not None:
        parent = read_trained(results_dir, experiment.init_from.id, experiment.init_from.spec_hash)
        initial = weights_of(parent, experiment)
    if experiment.teacher is not None and experiment.pretrained_teacher is not None:
        pretrained = Teacher(name=experiment.pretrained_teacher, weights=teacher_weights)
        pretrained.check(experiment.teacher)
        build_teacher = pretrained.build
    elif experiment.teacher is not None:
        teacher = read_trained(results_dir, experiment.teacher.id, experiment.teacher.spec_hash)
        build_teacher = functools.partial(teacher_of, teacher)
        teacher_checkpoint = teacher.record.checkpoint_sha256
    job = _Job(
        experiment=experiment,
        dataset=dataset,
        prepared=prepared,
        state=paths.state_folder(runs_dir, experiment.id, experiment.spec_hash),
        results=results,
        running=running or Running(),
        initial=initial,
        build_teacher=build_teacher,
        teacher_checkpoint=teacher_checkpoint,
    )
    # The experiment's folder and not the parameters': trainings that publish into one place must take turns.
    with only_one(runs_dir / experiment.id, f"experiment {experiment.id}", wait_s=_patience(job.running)):
        _set_foreign_state_aside(job)
        _run(job, own_state(job.state), processes)


def train_in_folder(
    experiment: Experiment,
    *,
    dataset: Dataset,
    prepared: Prepared,
    folder: Path,
    running: Running | None = None,
    resume: Path | bool = False,
    start_epoch: int = 0,
    initial: Weights | None = None,
    teacher: Teacher | None = None,
    processes: Processes | None = None,
) -> None:
    """Train as the authors' program does, with state and result in one folder; the same call again continues.

    Args:
        experiment: what to train.
        dataset: its dataset's entry.
        prepared: the data.
        folder: for state and result.
        running: how to run it.
        resume: checkpoint to continue, of this program or the authors'; True for the folder's own; False begins a new
            training, or continues the folder's own if that is the very same.
        start_epoch: first epoch of a training that continues nothing.
        initial: initial weights; None for random ones.
        teacher: for distillation.
        processes: as for `train`.

    Raises:
        RecuError: as `train`.
        Interrupted: a signal came; the same call continues.
    """
    check_writable(folder)
    running = running or Running()
    with only_one(folder, f"folder {folder}", wait_s=_patience(running)):
        found = state_to_continue(folder, resume)
        fingerprint = prepared.manifest.fingerprint
        if found is not None:
            check_may_continue(
                found, experiment, asked=resume is not False, start_epoch=start_epoch, fingerprint=fingerprint
            )
        if found is not None and _is_published(found, experiment, folder):
            _log.info(
                "%s is finished: all %d epochs are done and published, nothing to do", folder, found.content["epoch"]
            )
            if (folder / paths.CHECKPOINT).exists() and not running.keep_resumable:
                _log.info("%s is removed: only continuing needs it, --keep_resumable keeps it", paths.CHECKPOINT)
            _free(folder, running)
            return
        keep_foreign(found)
        job = _Job(
            experiment=experiment,
            dataset=dataset,
            prepared=prepared,
            state=folder,
            results=folder,
            running=running,
            initial=initial,
            build_teacher=None if teacher is None else teacher.build,
            start_epoch=start_epoch,
        )
        _run(job, found, processes)


def _patience(running: Running) -> float:
    """How long to wait for another process at the same work: not in a place that a scheduler could give to others."""
    return _MOST_WAIT_S if running.end_time else math.inf


def check_writable(folder: Path) -> None:
    """Raise OutputError if `folder` could not be made or written; nothing is created."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise OutputError(f"cannot write into {folder}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write into {folder}: {existing} is read-only; choose another place or change permissions"
        )


def check_writable_file(file: Path) -> None:
    """Raise OutputError if `file` could not be written, or is a folder or a device, which must not be replaced."""
    check_writable(file.parent)
    try:
        if file.exists():
            check_ordinary(file)
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror}; choose another place") from error


def _is_published(found: Found, experiment: Experiment, folder: Path) -> bool:
    """Whether a finished training's result lies in its folder, whole."""
    if not (found.own and found.finished(experiment.hyperparameters.epochs)):
        return False
    try:
        record = read_finished(folder)
    except ResultError:
        return False
    return record is not None and record.spec_hash == experiment.spec_hash


def _free(state: Path, running: Running) -> None:
    """Remove what only continuing a finished training needs, unless it is to be kept."""
    from recu.training.checkpoint import free_state

    if not running.keep_resumable:
        free_state(state / paths.CHECKPOINT)


def _run(job: _Job, found: Found | None, processes: Processes | None) -> None:
    """Train what is left after `found` and publish, with a log beside the state and a mirror in the tracking store."""
    # Under the lock nobody else writes there, so what is left of killed processes may go.
    for folder in (job.state, job.results):
        remove_temporary_files(folder)
    with log_to(job.state / paths.LOG), followed_run(job.running, job.state, job.results) as run:
        record = None if found is None else found.record
        if record is not None:
            _log.info("all %d epochs are done", record.epochs)
            with run.recorded(_description(job, record.provenance, record.segments)):
                _conclude(job, record, run)
        else:
            _run_mirrored(job, found, run, processes)


def _run_mirrored(job: _Job, found: Found | None, run: FollowedRun, processes: Processes | None) -> None:
    """The work of `_run`, with its imports of PyTorch."""
    from recu.base.signals import stop_on_signals
    from recu.training.processes import ALONE

    processes = processes or ALONE
    processes.call_others(_assist, job, found)
    trainer, origin = _ready(job, found, processes)
    _write_experiment(job)
    if trainer.finished:
        origin = trainer.segments[-1].provenance
    with stop_on_signals(job.running.end_time) as stop, run.recorded(_description(job, origin, trainer.segments)):
        with processes.in_words():
            outcome = trainer.run(stop)
        _conclude(job, _record(job, outcome), run)


def _assist(processes: Processes, job: _Job, found: Found | None) -> None:
    """What every process but the first does of a training: its part of each step and evaluation, and no file."""
    from recu.base.signals import stop_on_signals

    with stop_on_signals(job.running.end_time) as stop:
        trainer, _ = _ready(job, found, processes)
        trainer.run(stop)


def _ready(job: _Job, found: Found | None, processes: Processes) -> tuple[Trainer, Provenance]:
    """The trainer where an earlier run stopped, and what trains from here on."""
    from recu.training.device import choose_device, origin_of

    device = choose_device(job.running.gpus, processes)
    use_threads(job.running.threads, processes)
    loaders = _build_loaders(job, device, processes)
    experiment, recipe = job.experiment, job.experiment.hyperparameters
    # Before seeding, so that a teacher changes nothing in the student's random numbers.
    taught = None if job.build_teacher is None else job.build_teacher(job.prepared.manifest.classes)
    own = own_sources(experiment.model, recipe.binariser, experiment.data, recipe)
    origin = origin_of(device, processes, own if taught is None else own + taught.sources)
    _log.info("training %s (%s) on %s", experiment.id, experiment.spec_hash, origin.device)
    if taught is not None and len(set(processes.gather(taught.weights_sha256))) > 1:
        raise CheckpointError(
            f"{_teacher_of(experiment).id} has other weights on some of the machines: give them the same file"
        )
    return _prepare_trainer(job, found, loaders, device, taught, origin, processes), origin


def _description(job: _Job, provenance: Provenance, segments: Sequence[TrainedPiece]) -> RunDescription:
    from recu.tracking.description import describe_run

    return describe_run(
        job.experiment,
        "train",
        job.prepared.manifest,
        provenance,
        parent_checkpoint=_parent_checkpoint(job),
        segments=segments,
    )


def _conclude(job: _Job, record: TrainingRecord, run: FollowedRun) -> None:
    """Publish a finished training, and keep of its state what is asked for.

    Killed at any point of it, the same command finds the training finished and does the rest.
    """
    record = record.model_copy(update={"mlflow_run_id": run.id() or record.mlflow_run_id})
    write_record(job.state / paths.METRICS, record)
    publish(job.results, job.state)
    _free(job.state, job.running)
    _log.info(
        "finished: best epoch %d with top-1 %.2f %%, last top-1 %.2f %%; published in %s",
        record.best.epoch + 1,
        record.best.top1,
        record.last.top1,
        job.results,
    )


def _parent_checkpoint(job: _Job) -> str | None:
    """SHA-256 of the checkpoint that gives the initial weights; None for random ones."""
    return job.initial.parent.checkpoint_sha256 if job.initial and job.initial.parent else None


def _prepare_trainer(
    job: _Job,
    found: Found | None,
    loaders: Loaders,
    device: torch.device,
    taught: Taught | None,
    provenance: Provenance,
    processes: Processes,
) -> Trainer:
    """The trainer with initial weights, or where an earlier run stopped.

    Initial weights, in this order: the checkpoint being continued, the parent's, random ones of the seed.
    """
    from recu.models.cost import check_costs
    from recu.training.device import check_precision, place
    from recu.training.position import carry_start, usable_state
    from recu.training.seeding import make_deterministic, seed_everything
    from recu.training.trainer import Identity, Trainer

    experiment = job.experiment
    check_precision(experiment.hyperparameters.precision, device)
    make_deterministic(compiles=experiment.hyperparameters.compile is not None)
    if device.type == "cpu":
        keep_freed_memory()
    teacher = None if taught is None else place(taught.network, device, kernels=job.running.kernels)
    seed_everything(experiment.seed)
    model = build_network(experiment)
    # Its costs are published at the end: now is the time to find that a layer does not say them.
    check_costs(model)
    if job.initial is not None and found is None:
        job.initial.load_into(model)
    validity = _validity(job, loaders, processes)
    recipe = experiment.hyperparameters
    shared = shared_by(recipe, processes.count)
    identity = Identity(
        model=experiment.model,
        experiment=experiment.canonical,
        spec_hash=experiment.spec_hash,
        data_fingerprint=loaders.manifest.fingerprint,
        classes=loaders.manifest.classes,
        seed=experiment.seed,
        network_code=own_hash(network_sources(experiment.model, recipe.binariser)),
        validity=validity,
        provenance=provenance,
        settings={
            "batch_size_test": experiment.hyperparameters.batch_size_test,
            "loader": validity.loader,
            "workers": job.running.workers,
            "threads": job.running.threads,
            "kernels": job.running.kernels,
        },
        shared=shared,
        origins=_origins(job, found, taught),
    )
    trainer = Trainer(
        place(model, device, compile_as=experiment.hyperparameters.compile, kernels=job.running.kernels),
        loaders,
        experiment.hyperparameters,
        identity,
        job.state,
        device=device,
        teacher=teacher,
        running=job.running,
        start_epoch=job.start_epoch,
        processes=processes,
    )
    text = worded(shared, recipe.batch_size, recipe.replicas)
    if text is not None:
        _log.info("trained on %s", text)
    if found is None:
        return trainer
    if not found.exact:
        trainer.continue_from_foreign(found.content)
        return trainer
    state = processes.from_first(lambda: usable_state(found.content, found.file, validity))
    in_place = processes.from_first(lambda: found.own and state is found.content)
    if not found.own and processes.first:
        carry_start(found.file, job.state / paths.CHECKPOINT)
    trainer.continue_from(state, in_place=in_place)
    if trainer.finished:
        _log.info("all %d epochs are done", state["epoch"])
    else:
        note_changes(found, experiment, provenance, shared)
        _log.info("continuing at epoch %d of %d", state["epoch"] + 1, experiment.hyperparameters.epochs)
    return trainer


def _validity(job: _Job, loaders: Loaders, processes: Processes) -> Validity:
    from recu.training.position import Validity

    assert loaders.train is not None, "a training asks for it"
    recipe = job.experiment.hyperparameters
    # Resolved below, or without a part in a training step.
    others = recipe.model_dump(mode="json", exclude={"augmentation", "loader", "batch_size_test", "init_from"})
    others["taught_by"] = job.experiment.teacher and job.experiment.teacher.spec_hash
    own = own_hash(own_sources(job.experiment.model, recipe.binariser, job.experiment.data, recipe))
    return Validity(
        # States of trainings without code of a user's have no such entry.
        recipe=others | ({} if own is None else {"own_code": own[:16]}),
        batch_size=recipe.batch_size,
        seed=job.experiment.seed,
        augmentation=recipe.augmentation or job.dataset.augmentation,
        loader=choose_loader(recipe.loader, job.dataset, loaders.manifest.storage, recipe.augmentation),
        skip_unreadable=recipe.skip_unreadable,
        data_fingerprint=loaders.manifest.fingerprint,
        num_images=loaders.train.num_images,
        world_size=processes.count,
    )


def _origins(job: _Job, found: Found | None, taught: Taught | None) -> Origins:
    """What the training started from and learns from; what it started from never changes while it goes on.

    Raises:
        CheckpointError: the teacher is the same by name and has other weights than before.
    """
    from recu.training.checkpoint_form import foreign_progress

    origins = Origins(parent=job.initial.parent if job.initial else None, start_epoch=job.start_epoch)
    teacher = None if taught is None else _taught_by(_teacher_of(job.experiment), taught)
    if found is not None and "origins" in found.ours:
        origins, before = found.origins, found.origins.teacher
        if (
            before is not None
            and teacher is not None
            and before.spec_hash == teacher.spec_hash
            and before.weights_sha256 != teacher.weights_sha256
        ):
            raise CheckpointError(
                f"{found.file} was taught by other weights of {teacher.id} (SHA-256"
                f" {before.weights_sha256 or 'none':.12}, now {teacher.weights_sha256:.12}): give those again, or move"
                f" {job.state} aside to train afresh"
            )
    resumed_from = origins.resumed_from
    if found is not None and (found.identity is None or not found.own):
        resumed_from = ResumedFrom(
            file=found.file.name,
            sha256=hash_file(found.file),
            epoch=foreign_progress(found.content)[0],
            spec_hash=found.identity.spec_hash if found.identity else None,
        )
    return origins.model_copy(update={"teacher": teacher, "resumed_from": resumed_from})


def _teacher_of(experiment: Experiment) -> Origin:
    assert experiment.teacher is not None, "it is taught"
    return experiment.teacher


def _taught_by(teacher: Origin, taught: Taught) -> Source:
    return Source(
        id=teacher.id,
        spec_hash=teacher.spec_hash,
        checkpoint_sha256=taught.checkpoint_sha256,
        weights_sha256=taught.weights_sha256,
    )


def _set_foreign_state_aside(job: _Job) -> None:
    """Where the state is not this experiment's on this data, start afresh and keep it beside."""
    if not job.state.exists():
        return
    reason, name = _why_foreign(job)
    if reason is None:
        return
    aside = free_name(job.state.with_name(f"{job.state.name}-{name}"))
    _log.warning(
        "the state of %s in %s is not taken up: %s; starting afresh, it is kept in %s",
        job.experiment.id,
        job.state,
        reason,
        aside,
    )
    try:
        job.state.rename(aside)
    except OSError as error:
        raise OutputError(f"cannot move {job.state} aside: {error.strerror}; check permissions") from error


def _why_foreign(job: _Job) -> tuple[str | None, str]:
    """Why the state is not to be taken up, None where it is; and how the folder that keeps it is told from others."""
    try:
        found = own_state(job.state)
    except CheckpointError as error:
        return str(error), "aside"
    if found is None:
        return None, ""
    fingerprint = job.prepared.manifest.fingerprint
    reason = why_foreign(
        found,
        job.experiment,
        fingerprint=fingerprint,
        parent=_parent_checkpoint(job),
        teacher=job.teacher_checkpoint,
    )
    theirs = fingerprint if found.identity is None else found.identity.data_fingerprint
    return reason, "aside" if theirs == fingerprint else f"data-{theirs:.12}"


def use_threads(threads: int, place: Place = ONLY) -> None:
    """Set the number of CPU threads of torch, for all processes of this machine; 0 leaves its choice to one process."""
    if threads or place.count > 1:
        import torch

        torch.set_num_threads(place.of_this_machine(threads or torch.get_num_threads()))


def _build_loaders(job: _Job, device: torch.device, processes: Processes) -> Loaders:
    from recu.data import build_loaders

    recipe = job.experiment.hyperparameters
    return build_loaders(
        job.prepared,
        job.dataset,
        batch_size=recipe.batch_size,
        batch_size_test=recipe.batch_size_test,
        loader=recipe.loader,
        seed=job.experiment.seed,
        device=device,
        workers=processes.of_this_machine(job.running.workers),
        augmentation=recipe.augmentation,
        skip_unreadable=recipe.skip_unreadable,
        share=processes.share,
    )


def _write_experiment(job: _Job) -> None:
    experiment = job.experiment
    content = {"id": experiment.id, "spec_hash": experiment.spec_hash} | experiment.model_dump(mode="json")
    atomic_write_json(job.state / paths.EXPERIMENT, content)


def _record(job: _Job, outcome: Outcome) -> TrainingRecord:
    experiment, last = job.experiment, outcome.segments[-1]
    return TrainingRecord(
        **dict(outcome.origins),
        experiment={"id": experiment.id} | experiment.model_dump(mode="json"),
        spec_hash=experiment.spec_hash,
        data_fingerprint=job.prepared.manifest.fingerprint,
        checkpoint_sha256=hash_file(job.state / paths.BEST_CHECKPOINT),
        best=outcome.best,
        last=outcome.last,
        epochs=experiment.hyperparameters.epochs,
        train_seconds=outcome.train_seconds,
        history=outcome.history,
        diagnostics=outcome.diagnostics,
        provenance=last.provenance,
        settings=last.settings,
        segments=outcome.segments,
        mlflow_run_id=None,
        shortcut=find_network(experiment.model, family=experiment.family, variant=experiment.variant).shortcut,
        cost=network_cost(experiment),
    )


def followed_run(running: Running, state: Path, results: Path) -> closing[FollowedRun]:
    """The run of a job in the store that `running` says, as `recu.tracking.run.FollowedRun`."""
    from recu.tracking import resolve_tracking_uri
    from recu.tracking.run import FollowedRun

    return closing(FollowedRun(resolve_tracking_uri(running.tracking_uri), state, results))
