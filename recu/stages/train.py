"""The train stage: vanilla, finetune and every other method are this one training, with other initial weights."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recu import paths
from recu.config import Dataset
from recu.errors import CheckpointError, Interrupted, OutputError
from recu.experiments import Experiment, parse_experiment
from recu.files import atomic_write_json, check_ordinary, remove_temporary_files
from recu.registry import check_network, find_network
from recu.stages.lock import only_one
from recu.stages.logfile import log_to
from recu.stages.networks import Taught, Teacher, Weights, build_network, network_cost, teacher_of, weights_of
from recu.stages.trained import publish, read_trained

if TYPE_CHECKING:
    import torch

    from recu.data import Loaders, Manifest, Prepared
    from recu.engine.trainer import Outcome, Settings, Trainer
    from recu.tracking import Tracker

_log = logging.getLogger(__name__)
_OURS = (paths.CHECKPOINT, paths.BEST_CHECKPOINT, paths.HISTORY, paths.METRICS)


@dataclass(frozen=True, kw_only=True)
class Running:
    """How and where a training runs; nothing here changes a result."""

    gpus: str = ""
    """As for `recu.engine.device.choose_device`."""
    workers: int = 2
    """Loader processes, for datasets that are not held in memory."""
    threads: int = 0
    """CPU threads of torch; 0 leaves its choice."""
    tracking_uri: str | None = None
    """MLflow store; None or empty: none. MLFLOW_TRACKING_URI in the environment wins."""
    print_freq: int = 100
    time_estimate: bool = True
    save_every_seconds: float = 600.0

    def settings(self) -> Settings:
        """The trainer's share of it."""
        from recu.engine.trainer import Settings

        return Settings(
            print_freq=self.print_freq,
            time_estimate=self.time_estimate,
            save_every_seconds=self.save_every_seconds,
        )


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
    build_teacher: Callable[[int], Taught] | None = None
    """From the number of classes to the teacher."""
    start_epoch: int = 0
    resume: Path | None = None
    """A checkpoint to continue, where it is not the state folder's own."""


def train(
    experiment: Experiment,
    *,
    dataset: Dataset,
    prepared: Prepared,
    results_dir: Path,
    runs_dir: Path,
    teacher_weights: Path | None = None,
    running: Running | None = None,
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
    )
    results = paths.train_folder(results_dir, experiment.id)
    check_writable(results)
    initial, build_teacher = None, None
    if experiment.init_from is not None:
        parent = read_trained(results_dir, experiment.init_from.id, experiment.init_from.spec_hash)
        initial = weights_of(parent, experiment)
    if experiment.pretrained_teacher is not None:
        pretrained = Teacher(name=experiment.pretrained_teacher, weights=teacher_weights)
        pretrained.check(experiment.teacher)
        build_teacher = pretrained.build
    elif experiment.teacher is not None:
        teacher = read_trained(results_dir, experiment.teacher.id, experiment.teacher.spec_hash)
        build_teacher = _teacher_builder(teacher)
    job = _Job(
        experiment=experiment,
        dataset=dataset,
        prepared=prepared,
        state=paths.state_folder(runs_dir, experiment.id, experiment.spec_hash),
        results=results,
        running=running or Running(),
        initial=initial,
        build_teacher=build_teacher,
    )
    # The experiment's folder and not the parameters': trainings that publish into one place must take turns.
    with only_one(runs_dir / experiment.id, f"experiment {experiment.id}"):
        _set_other_data_aside(job)
        _run(job)


def train_in_folder(
    experiment: Experiment,
    *,
    dataset: Dataset,
    prepared: Prepared,
    folder: Path,
    running: Running | None = None,
    resume: Path | None = None,
    start_epoch: int = 0,
    initial: Weights | None = None,
    teacher: Teacher | None = None,
) -> None:
    """Train as the authors' program does, with state and result in one folder.

    Args:
        experiment: what to train.
        dataset: its dataset's entry.
        prepared: the data.
        folder: for state and result.
        running: how to run it.
        resume: checkpoint to continue, of this program or the authors'.
        start_epoch: first epoch of a training that continues nothing.
        initial: initial weights; None for random ones.
        teacher: for distillation.

    Raises:
        RecuError: as `train`.
        Interrupted: a signal came; resuming the folder's checkpoint continues.
    """
    check_writable(folder)
    with only_one(folder, f"folder {folder}"):
        _check_folder(folder, resume)
        job = _Job(
            experiment=experiment,
            dataset=dataset,
            prepared=prepared,
            state=folder,
            results=folder,
            running=running or Running(),
            initial=initial,
            build_teacher=None if teacher is None else teacher.build,
            start_epoch=start_epoch,
            resume=resume,
        )
        _run(job)


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


def check_new(folder: Path) -> None:
    """Raise OutputError if `folder` already holds a training, which must not be overwritten."""
    existing = next((name for name in _OURS if (folder / name).exists()), None)
    if existing is not None:
        raise OutputError(
            f"{folder} already holds a training ({existing}): continue it with --resume {folder / paths.CHECKPOINT},"
            " or choose another --save"
        )


def _run(job: _Job) -> None:
    """Train what is left and publish, with a log beside the state and a mirror in the tracking store."""
    # Under the lock nobody else writes there, so what is left of killed processes may go.
    for folder in (job.state, job.results):
        remove_temporary_files(folder)
    with log_to(job.state / paths.LOG), opened_tracker(job.running, job.state / paths.OUTBOX, job.results) as tracker:
        _run_mirrored(job, tracker)


def _run_mirrored(job: _Job, tracker: Tracker) -> None:
    """The work of `_run`, with its imports of PyTorch."""
    from recu import provenance
    from recu.engine.device import choose_device, describe
    from recu.engine.signals import stop_on_signals
    from recu.stages.description import describe_run

    device = choose_device(job.running.gpus)
    use_threads(job.running.threads)
    loaders = _build_loaders(job, device)
    origin = provenance.collect(describe(device))
    experiment = job.experiment
    _log.info("training %s (%s) on %s", experiment.id, experiment.spec_hash, origin["device"])
    _write_experiment(job)
    # Before seeding, so that a teacher changes nothing in the student's random numbers.
    taught = None if job.build_teacher is None else job.build_teacher(experiment.data["num_classes"])
    trainer, run_id = _prepare_trainer(job, loaders, device, taught)
    with stop_on_signals() as stop, tracked(tracker):
        tracker.start(
            describe_run(
                experiment,
                "train",
                loaders.manifest,
                origin,
                parent_run_id=job.initial.run_id if job.initial else None,
                parent_checkpoint=job.initial.parent["checkpoint_sha256"]
                if job.initial and job.initial.parent
                else None,
                run_id=run_id,
                history=trainer.history,
            )
        )
        tracker.log_history(trainer.history)
        outcome = trainer.run(
            stop,
            run_id=lambda: tracker.run_id or run_id,
            on_epoch=lambda row: tracker.log_epoch(row["epoch"], row),
        )
        metrics = _metrics(job, outcome, loaders.manifest, origin, tracker.wait_for_run_id() or run_id)
        metrics["teacher"] = None if taught is None else experiment.teacher.model_dump() | taught.digests
        published = publish(job.results, outcome.best_checkpoint, metrics)
        _log.info(
            "finished: best epoch %d with top-1 %.2f %%, last top-1 %.2f %%; published in %s",
            outcome.best["epoch"],
            outcome.best["top1"],
            outcome.last["top1"],
            job.results,
        )
        _mirror_result(tracker, job, outcome, published["checkpoint_sha256"])


def _prepare_trainer(
    job: _Job, loaders: Loaders, device: torch.device, taught: Taught | None
) -> tuple[Trainer, str | None]:
    """The trainer with initial weights, or where an earlier run stopped, and that run's id in the tracking store.

    Initial weights, in this order: the checkpoint being continued, the parent's, random ones of the seed.
    """
    from recu.engine.checkpoint import RESUME_KEY
    from recu.engine.device import place
    from recu.engine.seeding import make_deterministic, seed_everything
    from recu.engine.trainer import Identity, Trainer
    from recu.models.cost import check_costs

    experiment = job.experiment
    make_deterministic(compiles=experiment.hyperparameters.compile is not None)
    teacher = None if taught is None else place(taught.network, device)
    seed_everything(experiment.seed)
    model = build_network(experiment)
    # Its costs are published at the end: now is the time to find that a layer does not say them.
    check_costs(model)
    checkpoint = _checkpoint_to_continue(job)
    if job.initial is not None and checkpoint is None:
        job.initial.load_into(model)
    trainer = Trainer(
        place(model, device, compile_as=experiment.hyperparameters.compile),
        loaders,
        experiment.hyperparameters,
        Identity(
            model=experiment.model,
            experiment=experiment.canonical,
            spec_hash=experiment.spec_hash,
            data_fingerprint=loaders.manifest.fingerprint,
            seed=experiment.seed,
        ),
        job.state,
        device=device,
        teacher=teacher,
        settings=job.running.settings(),
        start_epoch=job.start_epoch,
    )
    if checkpoint is None:
        return trainer, None
    ours = checkpoint.get(RESUME_KEY)
    if not _is_resumable(ours):
        trainer.continue_from_foreign(checkpoint)
        return trainer, None
    _check_same_data(job, ours["data_fingerprint"], loaders.manifest.fingerprint)
    _note_differences(experiment, ours["experiment"])
    trainer.continue_from(checkpoint)
    _log.info("continuing at epoch %d of %d", checkpoint["epoch"], experiment.hyperparameters.epochs)
    return trainer, ours["mlflow_run_id"] if ours["spec_hash"] == experiment.spec_hash else None


def _checkpoint_to_continue(job: _Job) -> dict[str, Any] | None:
    from recu.engine.checkpoint import load_latest, read_checkpoint

    own = job.state / paths.CHECKPOINT
    if job.resume is not None and not _same_file(job.resume, own):
        return read_checkpoint(job.resume)
    return load_latest(own)


def _is_resumable(ours: Any) -> bool:
    # A model_best.pth.tar of ours has our key, but like the authors' files no random states.
    return isinstance(ours, dict) and "random" in ours


def _set_other_data_aside(job: _Job) -> None:
    """Where the state was reached on other data than is prepared now, start afresh and keep the old state beside."""
    if not job.state.exists():
        return
    from recu.engine.checkpoint import RESUME_KEY, load_latest

    checkpoint = load_latest(job.state / paths.CHECKPOINT)
    if checkpoint is None or not _is_resumable(checkpoint.get(RESUME_KEY)):
        return
    before, now = checkpoint[RESUME_KEY].get("data_fingerprint"), job.prepared.manifest.fingerprint
    if before == now:
        return
    aside = _free_name(job.state.with_name(f"{job.state.name}-data-{str(before)[:12]}"))
    _log.warning(
        "the prepared data has changed since %s was begun (fingerprint %.12s, was %.12s): starting afresh; the earlier"
        " state is kept in %s",
        job.experiment.id,
        now,
        before,
        aside,
    )
    try:
        job.state.rename(aside)
    except OSError as error:
        raise OutputError(f"cannot move {job.state} aside: {error.strerror}; check permissions") from error


def _free_name(wanted: Path) -> Path:
    candidates = (wanted if not number else wanted.with_name(f"{wanted.name}-{number}") for number in range(1_000_000))
    return next(candidate for candidate in candidates if not candidate.exists())


def _check_same_data(job: _Job, before: str, now: str) -> None:
    if before != now:
        raise CheckpointError(
            f"{job.resume or job.state} was trained on other data (fingerprint {before[:12]}, prepared is {now[:12]}):"
            " give the data it was trained on, or train afresh under another --save"
        )


def _note_differences(experiment: Experiment, before: str) -> None:
    if before == experiment.canonical:
        return
    old, new = _flat(parse_experiment(before)), _flat(experiment)
    changes = [f"{name} {old.get(name)} -> {new.get(name)}" for name in new if old.get(name) != new.get(name)]
    _log.warning("continuing with other parameters than before: %s", ", ".join(changes))


def _flat(experiment: Experiment) -> dict[str, str]:
    from recu.tracking import flatten_params

    return flatten_params(experiment.model_dump(mode="json"))


def _check_folder(folder: Path, resume: Path | None) -> None:
    """Refuse to write over a training that is not the one being continued."""
    if resume is not None and resume.absolute().parent.resolve() == folder.resolve():
        return
    check_new(folder)


def _same_file(first: Path, second: Path) -> bool:
    return first.absolute().parent.resolve() == second.absolute().parent.resolve() and first.name == second.name


def _teacher_builder(trained: Any) -> Callable[[int], Taught]:
    return lambda num_classes: teacher_of(trained, num_classes)


def use_threads(threads: int) -> None:
    """Set the number of CPU threads of torch; 0 leaves its choice."""
    if threads:
        import torch

        torch.set_num_threads(threads)


def _build_loaders(job: _Job, device: torch.device) -> Loaders:
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
        workers=job.running.workers,
        augmentation=recipe.augmentation,
        skip_unreadable=recipe.skip_unreadable,
    )


def _write_experiment(job: _Job) -> None:
    experiment = job.experiment
    content = {"id": experiment.id, "spec_hash": experiment.spec_hash} | experiment.model_dump(mode="json")
    atomic_write_json(job.state / paths.EXPERIMENT, content)


def _metrics(
    job: _Job, outcome: Outcome, manifest: Manifest, origin: dict[str, Any], run_id: str | None
) -> dict[str, Any]:
    """Content of metrics.json but for the checkpoint's SHA-256."""
    experiment = job.experiment
    return {
        "experiment": {"id": experiment.id} | experiment.model_dump(mode="json"),
        "spec_hash": experiment.spec_hash,
        "data_fingerprint": manifest.fingerprint,
        "best": outcome.best,
        "last": outcome.last,
        "epochs": experiment.hyperparameters.epochs,
        "train_seconds": outcome.train_seconds,
        "history": outcome.history,
        "provenance": origin,
        "mlflow_run_id": run_id,
        "parent": job.initial.parent if job.initial else None,
        "shortcut": find_network(experiment.model, family=experiment.family, variant=experiment.variant).shortcut,
        "cost": network_cost(experiment),
    }


def opened_tracker(running: Running, outbox: Path, results: Path) -> closing[Tracker]:
    """The tracker of one run. To be opened before PyTorch is imported: MLflow takes as long, and is imported meanwhile.

    Args:
        running: says which store.
        outbox: file for what the store does not take.
        results: the folder that the run publishes into.
    """
    from recu.tracking import open_tracker, resolve_tracking_uri

    return closing(open_tracker(resolve_tracking_uri(running.tracking_uri), outbox, results))


@contextmanager
def tracked(tracker: Tracker) -> Iterator[None]:
    """Close the run with the status that tells how the block ended."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        tracker.finish("KILLED")
        raise
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish("FINISHED")


def _mirror_result(tracker: Tracker, job: _Job, outcome: Outcome, checkpoint_sha256: str) -> None:
    from recu.tracking import CHECKPOINT_TAG

    for kind, summary in (("best", outcome.best), ("last", outcome.last)):
        tracker.log_metrics({f"{kind}_{name}": value for name, value in summary.items()})
    tracker.log_metrics({"train_seconds": outcome.train_seconds})
    tracker.log_tags({CHECKPOINT_TAG: checkpoint_sha256})
    for file in (job.results / paths.BEST_CHECKPOINT, job.state / paths.EXPERIMENT, job.state / paths.LOG):
        tracker.log_artifact(file)
