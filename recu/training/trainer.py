"""One training from its first epoch to its last, through any number of interruptions, to the same bits.

What a training has reached stands in ONE file, `checkpoint.pth.tar`, written after each epoch (and within long ones).
Everything else in the folder (`history.jsonl`, `diagnostics.jsonl`, `model_best.pth.tar`) is derived from it and
written again when a training is continued, so there is no moment at which two files can disagree for good.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from recu.base.errors import CheckpointError, ConfigError, DataError, DivergenceError, Interrupted, ResultError
from recu.base.files import atomic_write_text, canonical_json
from recu.base.signals import TIME_LIMIT
from recu.binarisers.protocol import set_epoch_values
from recu.binarisers.recu import tau_at
from recu.experiment import paths
from recu.experiment.fit import check_batch_size, check_start_epoch
from recu.experiment.running import Running
from recu.experiment.schedules import delay_of, learning_rate_at
from recu.experiment.schema import Hyperparameters
from recu.nn import set_tau
from recu.results.records import (
    EpochAccuracy,
    EpochRecord,
    EpochWeights,
    Origins,
    Provenance,
    Reached,
    Shared,
    TrainedPiece,
    as_record,
)
from recu.training.checkpoint import RESUME_KEY, save_checkpoint, to_cpu, without_momenta, write_checkpoint
from recu.training.checkpoint_form import foreign_progress
from recu.training.diagnostics import WeightDiagnostics, has_histograms
from recu.training.evaluation import Evaluation, evaluate
from recu.training.loop import train_steps
from recu.training.momenta import load_momenta
from recu.training.optimizer import build_optimizer
from recu.training.position import Validity, keep_start, start_of
from recu.training.processes import ALONE, Processes
from recu.training.progress import Progress
from recu.training.replicas import replicate, take_first_buffers
from recu.training.seeding import random_states, restore_random_states
from recu.training.sums import RunningSums
from recu.training.weights import load_weights

FORMAT = 2
"""Of what is under the checkpoint's `recu` key. Since 2 it says what each epoch was trained with, and what a position
inside an epoch is valid for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a checkpoint must agree with to be continued exactly."""

    model: str
    experiment: str
    """`Experiment.canonical`."""
    spec_hash: str
    data_fingerprint: str
    classes: tuple[str, ...]
    """Names in label order."""
    seed: int
    validity: Validity
    """What a position inside an epoch is valid for."""
    provenance: Provenance
    """Code, environment and device that train from here on."""
    shared: Shared | None = None
    """How several devices share the batches from here on."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it runs, for the record; nothing in it changes a result beyond rounding."""
    network_code: str | None = None
    """`recu.experiment.own.own_hash` of users' code that the network is made of; None for none."""
    origins: Origins = field(default_factory=Origins)

    def as_plain(self) -> dict[str, Any]:
        """What every checkpoint says of itself."""
        return {
            "format": FORMAT,
            "experiment": self.experiment,
            "spec_hash": self.spec_hash,
            "data_fingerprint": self.data_fingerprint,
            "classes": list(self.classes),
            "seed": self.seed,
            **({} if self.network_code is None else {"network_code": self.network_code}),
        }

    def piece(self, epoch: int) -> TrainedPiece:
        """The record of one uninterrupted piece of training that begins with `epoch`."""
        return TrainedPiece(
            from_epoch=epoch,
            to_epoch=epoch,
            experiment=self.experiment,
            spec_hash=self.spec_hash,
            provenance=self.provenance,
            shared=self.shared,
            settings=self.settings,
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished training."""

    history: tuple[EpochRecord, ...]
    diagnostics: tuple[EpochWeights, ...]
    """Of the epochs after which the binary layers were measured."""
    best: EpochAccuracy
    """The first epoch with the highest top-1."""
    last: EpochAccuracy
    train_seconds: float
    segments: tuple[TrainedPiece, ...]
    """One entry for each uninterrupted piece of training that added to an epoch, in order. An epoch that was
    interrupted stands in two."""
    origins: Origins


@dataclass
class _State:
    """What has been reached."""

    epoch: int = 0
    """The epoch to train next, or the one that was interrupted."""
    history: list[EpochRecord] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """The JSON texts of the history's first epochs, as far as they were written."""
    diagnostics: list[str] = field(default_factory=list)
    """`EpochWeights` of the epochs that were measured, each as the JSON text that is written of it."""
    best_checkpoint: dict[str, Any] | None = None
    position: dict[str, Any] | None = None
    """Within the interrupted epoch: batches done, running sums, seconds, what it is valid for (see
    `recu.training.position`), the SHA-256 of the epoch's start, and the signs there, where they were noted."""
    segments: list[TrainedPiece] = field(default_factory=list)
    """See `Outcome.segments`."""
    train_seconds: float = 0.0
    earlier_best: float | None = None
    """Best top-1 that a checkpoint without our history claims."""


class Trainer:
    """Trains one network in one folder.

    Args:
        model: placed on its device (see `recu.training.device.place`) with its initial weights.
        loaders: `train` and `test` of `recu.data`.
        hyperparameters: of the experiment.
        identity: of the experiment and its data.
        folder: for checkpoint, history and best checkpoint.
        device: the network's.
        teacher: frozen network for distillation, placed; None for cross-entropy.
        running: nothing here changes a result.
        start_epoch: first epoch, counted from 0, of a training that continues nothing.
        processes: that train it together, each with a trainer of its own; the first alone reads and writes files.

    Raises:
        ConfigError: the last batch of an epoch would hold a single image, or `start_epoch` is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        loaders: Any,
        hyperparameters: Hyperparameters,
        identity: Identity,
        folder: Path,
        *,
        device: torch.device,
        teacher: nn.Module | None = None,
        running: Running | None = None,
        start_epoch: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        check_start_epoch(start_epoch, hyperparameters.epochs)
        self._model, self._loaders, self._recipe = model, loaders, hyperparameters
        self._identity, self._folder, self._device = identity, folder, device
        self._teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self._running = running or Running()
        parts = 1 if hyperparameters.sync_batch_norm else processes.count
        check_batch_size(hyperparameters.batch_size, loaders.train.num_images, parts)
        self._processes = processes
        self._optimizer = build_optimizer(
            model,
            hyperparameters.optimizer,
            hyperparameters.lr,
            hyperparameters.momentum,
            hyperparameters.weight_decay,
            hyperparameters.weight_decay_groups,
        )
        self._diagnostics = WeightDiagnostics(model) if self._running.diagnostics and processes.first else None
        self._replica = replicate(model, processes, synchronised=hyperparameters.sync_batch_norm)
        self._state = _State(epoch=start_epoch)
        self._saved_at = time.monotonic()
        self._in_place = False
        """Whether the folder's checkpoint file holds the state that is trained from."""
        self._noted = False
        """Whether the last segment is this piece of training."""
        self._began = -1, 0
        """Epoch and steps of it that were done when this piece began."""

    @property
    def history(self) -> tuple[EpochRecord, ...]:
        """Of the epochs finished so far."""
        return tuple(self._state.history)

    @property
    def segments(self) -> tuple[TrainedPiece, ...]:
        """What trained the epochs done so far; see `Outcome.segments`."""
        return tuple(self._state.segments)

    @property
    def parameters(self) -> int:
        """Number of the network's learnt values."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    @property
    def finished(self) -> bool:
        """Whether every epoch is done."""
        return self._state.epoch >= self._recipe.epochs

    def continue_from(self, checkpoint: Mapping[str, Any], *, in_place: bool = True) -> None:
        """Take up one of our own checkpoints where it stopped, random states included.

        Args:
            checkpoint: its position, if it has one, is valid (see `recu.training.position`).
            in_place: whether it is what the folder's checkpoint file holds.

        Raises:
            CheckpointError: it does not fit the network, or lacks a part.
        """
        ours = checkpoint[RESUME_KEY]
        load_weights(self._model, checkpoint["state_dict"])
        try:
            if ours["format"] != FORMAT:
                raise CheckpointError(
                    f"the checkpoint's format is {ours['format']}, expected {FORMAT}: another version of this program"
                    " wrote it; its weights can start a new training with --init_from FILE"
                )
            if checkpoint["epoch"] > self._recipe.epochs:
                raise CheckpointError(
                    f"the checkpoint has finished {checkpoint['epoch']} epochs, more than the {self._recipe.epochs}"
                    " asked for: give at least as many epochs"
                )
            position = ours["position"]
            if position is not None and position["step"] > self._loaders.train.num_batches:
                raise CheckpointError(
                    f"the checkpoint has done {position['step']} steps of an epoch of {self._loaders.train.num_batches}"
                )
            load_momenta(self._optimizer, checkpoint["optimizer"])
            restore_random_states(self._own_random(ours))
            reached = as_record({name: ours[name] for name in Reached.model_fields if name in ours}, Reached)
            if self._diagnostics is not None and position is not None:
                self._diagnostics.continue_epoch(position.get("positive_at_start", {}))
            self._state = _State(
                epoch=checkpoint["epoch"],
                history=list(reached.history),
                diagnostics=[_line(each) for each in reached.diagnostics],
                best_checkpoint=ours["best_checkpoint"],
                position=position,
                segments=list(reached.segments),
                train_seconds=reached.train_seconds,
                earlier_best=reached.earlier_best,
            )
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ResultError) as error:
            raise CheckpointError(f"the checkpoint cannot be continued: {type(error).__name__}: {error}") from error
        self._in_place = in_place

    def continue_from_foreign(self, checkpoint: Mapping[str, Any]) -> None:
        """Take weights, optimiser, epoch and best top-1 of a checkpoint that has nothing but the authors' keys.

        Raises:
            CheckpointError: it does not fit, or has no epoch left to train.
        """
        load_weights(self._model, checkpoint["state_dict"])
        epoch, best = foreign_progress(checkpoint)
        if not epoch < self._recipe.epochs:
            raise CheckpointError(
                f"the checkpoint has finished {epoch} epochs of {self._recipe.epochs}: give more epochs to continue it"
            )
        load_momenta(self._optimizer, checkpoint["optimizer"])
        self._state = _State(epoch=epoch, earlier_best=best)
        _log.warning(
            "the checkpoint holds no random states and no history: training continues at epoch %d, but not as the "
            "uninterrupted training would have; the best epoch is chosen among those trained from here on",
            epoch + 1,
        )

    def run(self, stop: Callable[[], bool]) -> Outcome:
        """Train the epochs that are left.

        Args:
            stop: asked before each step; once true, state is saved and `Interrupted` raised.

        Raises:
            DivergenceError: a loss is not finite; the checkpoint stays at the last good state.
            Interrupted: `stop` became true; running again continues.
            ConfigError: `stop` became true for a time limit that leaves too little time for any progress.
            OutputError: a file cannot be written.
        """
        kept = self._processes.from_first(lambda: self._in_place and self._checkpoint.exists())
        if not self.finished and not kept:
            # So that what is going to be trained is kept from the first moment.
            self._save()
        self._write_history()
        self._write_best()
        steps_done = self._state.position["step"] if self._state.position else 0
        self._began = self._state.epoch, steps_done
        images = self._loaders.train.num_images
        done = self._state.epoch * images + self._images_of(steps_done)
        bar = self._running.bar if self._processes.first else False
        epochs, estimate = self._recipe.epochs, self._running.time_estimate
        with Progress(epochs * images, done, epochs=epochs, estimate=estimate, bar=bar) as progress:
            while not self.finished:
                row = self._epoch(stop, progress)
                progress.epoch(row, epochs)
        return self._outcome()

    def _epoch(self, stop: Callable[[], bool], progress: Progress) -> EpochRecord:
        """Train and evaluate one epoch, or the rest of one; save."""
        epoch, recipe = self._state.epoch, self._recipe
        tau = tau_at(epoch, recipe.epochs, recipe.tau_min, recipe.tau_max)
        lr = learning_rate_at(
            epoch,
            epochs=recipe.epochs,
            lr=recipe.lr,
            lr_type=recipe.lr_type,
            warm_up=recipe.warm_up,
            lr_decay_step=recipe.lr_decay_step,
        )
        set_tau(self._model, tau)
        scheduled = set_epoch_values(self._model, epoch, recipe.epochs)
        if self._diagnostics is not None and self._state.position is None:
            self._diagnostics.begin()
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        sums, train_seconds = self._train(epoch, lr, stop, progress)
        started = time.monotonic()
        test = self._evaluate(epoch, lr, stop)
        if test is None:
            self._interrupt(stop, sums, self._loaders.train.num_batches, train_seconds)
        test_seconds = time.monotonic() - started
        sums = sums.over(self._processes)
        train = sums.read()
        row = EpochRecord(
            epoch=epoch,
            lr=lr,
            tau=tau,
            scheduled=scheduled,
            train_loss=train.loss,
            train_top1=train.top1,
            train_top5=train.top5,
            train_skipped=sums.unreadable,
            train_left_out=sums.left_out,
            test_loss=test.loss,
            test_top1=test.top1,
            test_top5=test.top5,
            train_images_per_s=train.n / max(train_seconds, 1e-9),
            test_images_per_s=test.n / max(test_seconds, 1e-9),
            seconds=train_seconds + test_seconds,
            time=int(time.time() * 1000),
        )
        self._finish_epoch(row)
        return row

    def _train(self, epoch: int, lr: float, stop: Callable[[], bool], progress: Progress) -> tuple[RunningSums, float]:
        """Train the batches that are left of an epoch; returns the whole epoch's sums and training seconds."""
        sums, first, earlier = RunningSums(self._device), 0, 0.0
        if self._state.position is not None:
            first, earlier = self._state.position["step"], self._state.position["seconds"]
            if self._processes.first:  # they are those of all processes
                sums.restore(self._state.position["sums"])
        started = time.monotonic()
        steps = self._loaders.train.num_batches
        if first < steps:
            steps_left = train_steps(
                self._replica,
                self._loaders.train,
                self._optimizer,
                sums,
                epoch=epoch,
                start=first,
                teacher=self._teacher,
                precision=self._recipe.precision,
                processes=self._processes,
                synchronised=self._recipe.sync_batch_norm,
                counted=self._recipe.skip_unreadable,
            )
            for step in self._with_place(steps_left, epoch, first, lr):
                progress.advance(self._images_of(step) - self._images_of(step - 1))
                if step % self._running.print_freq == 0 and step < steps:
                    so_far = sums.over(self._processes)
                    self._check_finite(so_far, epoch, lr)
                    progress.step(epoch, step, steps, so_far.read(), lr)
                seconds = earlier + time.monotonic() - started
                due = step < steps and time.monotonic() - self._saved_at >= 60 * self._running.save_minutes
                stopped, due = self._processes.any_of(stop() or self._processes.orphaned, due)
                if stopped:
                    self._interrupt(stop, sums, step, seconds)
                if due:
                    self._save_within(sums, step, seconds)
        take_first_buffers(self._model, self._processes)
        whole = sums.over(self._processes)
        self._check_finite(whole, epoch, lr)
        self._check_weights(epoch, steps - 1, lr)
        self._check_counts(whole, epoch)
        return sums, earlier + time.monotonic() - started

    def _images_of(self, steps: int) -> int:
        """How many images the first steps of an epoch see."""
        return min(steps * self._loaders.train.batch_size, self._loaders.train.num_images)

    def _with_place(self, steps: Iterator[int], epoch: int, first: int, lr: float) -> Iterator[int]:
        """The steps, with their place in the message where one overflows."""
        done = first
        try:
            for done in steps:
                yield done
        except DivergenceError as error:
            raise DivergenceError(
                f"{error}, at epoch {epoch + 1}, step {done + 1}, learning rate {lr:g}; {self._advice()}"
            ) from error

    def _check_counts(self, sums: RunningSums, epoch: int) -> None:
        """Every image of an epoch is seen once, or counted with why it was not."""
        images = self._loaders.train.num_images
        counted = sums.n + sums.unreadable + sums.left_out
        if counted != images or sums.unreadable < 0:
            raise DataError(
                f"epoch {epoch + 1} saw {sums.n} of {images} training images, {sums.unreadable} unreadable and"
                f" {sums.left_out} left out: each must count once; prepare the dataset again"
            )
        if not sums.n:
            raise DataError(
                f"epoch {epoch + 1} saw none of {images} training images, {sums.unreadable} of them are unreadable:"
                " prepare the dataset again from readable images"
            )

    def _evaluate(self, epoch: int, lr: float, stop: Callable[[], bool]) -> Evaluation | None:
        try:
            return evaluate(
                self._model,
                self._loaders.test,
                stop=lambda: stop() or self._processes.orphaned,
                processes=self._processes,
            )
        except DivergenceError as error:
            where = f"after epoch {epoch + 1} (learning rate {lr:g})"
            raise DivergenceError(f"{where}: {error}; {self._advice()}") from error

    def _check_finite(self, sums: RunningSums, epoch: int, lr: float) -> None:
        step = sums.first_bad_step()
        if step is not None:
            raise DivergenceError(
                f"the training loss is not finite at epoch {epoch + 1}, step {step + 1}, learning rate {lr:g};"
                f" {self._advice()}"
            )

    def _advice(self) -> str:
        return f"the last good state is kept in {self._checkpoint}; lower the learning rate"

    def _interrupt(self, stop: Callable[[], bool], sums: RunningSums, step: int, seconds: float) -> NoReturn:
        self._save_within(sums, step, seconds)
        reasons = self._processes.gather(getattr(stop, "reason", None))
        reason = next(filter(None, reasons), "the end of its launcher" if self._processes.orphaned else "request")
        if reason == TIME_LIMIT and (self._state.epoch, step) == self._began:
            raise ConfigError(
                f"the time limit ends this job within the evaluation of epoch {self._state.epoch + 1}, which is all it"
                " did: each job like it would end there; give it more time (in the workflow: runtime of rule train,"
                f" e.g. --set-resources train:runtime=120), it continues from {self._checkpoint}"
            )
        raise Interrupted(
            f"stopped by {reason} in epoch {self._state.epoch + 1} after {step} of {self._loaders.train.num_batches}"
            f" steps; state is saved in {self._checkpoint}: run the same command again to continue"
        )

    def _save_within(self, sums: RunningSums, step: int, seconds: float) -> None:
        """Save in the middle of an epoch, unless the loss has gone bad: then the older state is the good one."""
        lr = self._optimizer.param_groups[0]["lr"]
        take_first_buffers(self._model, self._processes)
        whole = sums.over(self._processes)
        self._check_finite(whole, self._state.epoch, lr)
        self._check_weights(self._state.epoch, step - 1, lr)
        start = self._processes.from_first(
            lambda: keep_start(self._checkpoint) if self._state.position is None else self._state.position["start"]
        )
        self._state.position = {
            "step": step,
            "seconds": seconds,
            "sums": whole.state(),
            "valid_for": self._identity.validity.as_plain(),
            "start": start,
        }
        if self._diagnostics is not None:
            self._state.position["positive_at_start"] = self._diagnostics.packed_start()
        self._note_piece(self._state.epoch)
        self._save()

    def _note_piece(self, epoch: int) -> None:
        """Record that this piece of training added to `epoch`."""
        segments = self._state.segments
        if not self._noted:
            segments.append(self._identity.piece(epoch))
            self._noted = True
        segments[-1] = segments[-1].model_copy(update={"to_epoch": epoch})

    def _check_weights(self, epoch: int, step: int, lr: float) -> None:
        """A sign makes zeros of what is not a number, so a network without shortcuts can hide it from its loss."""
        tensors = {name: value for name, value in self._model.state_dict().items() if value.is_floating_point()}
        finite = torch.stack([value.isfinite().all() for value in tensors.values()]).tolist()
        for name, good in zip(tensors, finite, strict=True):
            if not good:
                raise DivergenceError(
                    f"{name} is not finite at epoch {epoch + 1}, after step {step + 1}, learning rate {lr:g};"
                    f" {self._advice()}"
                )

    def _finish_epoch(self, row: EpochRecord) -> None:
        state = self._state
        best_so_far = max((earlier.test_top1 for earlier in state.history), default=float("-inf"))
        state.history.append(row)
        state.epoch, state.position = row.epoch + 1, None
        if self._diagnostics is not None:
            histograms = has_histograms(row.epoch, self._recipe.epochs)
            measured = self._diagnostics.measured(row.epoch, histograms=histograms)
            state.diagnostics += [] if measured is None else [_line(measured)]
        state.train_seconds += row.seconds
        self._note_piece(row.epoch)
        improved = row.test_top1 > best_so_far
        part = self._authors_part()
        if improved:
            best = part if self._running.keep_resumable else without_momenta(part)
            state.best_checkpoint = best | {
                RESUME_KEY: self._identity.as_plain()
                | {"row": row.result.as_plain(), "origins": self._identity.origins.as_plain()}
            }
        self._save(part)
        if self._processes.first:
            start_of(self._checkpoint).unlink(missing_ok=True)
        self._write_history()
        if improved:
            self._write_best()

    def _authors_part(self) -> dict[str, Any]:
        """The keys of the authors' checkpoints, tensors on the CPU."""
        state, recipe = self._state, self._recipe
        tops = [(row.test_top1, row.test_top5) for row in state.history]
        best_top1, best_top5 = max(tops, key=lambda top: top[0], default=(0.0, 0.0))
        lrs = [group["lr"] for group in self._optimizer.param_groups]
        return {
            "epoch": state.epoch,
            "model": self._identity.model,
            "state_dict": to_cpu(self._model.state_dict()),
            "best_prec1": max(best_top1, state.earlier_best or 0.0),
            "best_prec5": best_top5,
            "optimizer": to_cpu(self._optimizer.state_dict()),
            "lr_scheduler": {
                "base_lrs": [recipe.lr] * len(lrs),
                "last_epoch": max(state.epoch - delay_of(recipe.warm_up), 0),
                "_last_lr": lrs,
            },
        }

    def _save(self, authors_part: dict[str, Any] | None = None) -> None:
        """Write checkpoint.pth.tar; `authors_part` where it was already made: tensors of the best are stored once."""
        state, randoms = self._state, self._processes.gather(random_states())
        self._saved_at = time.monotonic()
        if not self._processes.first:
            return
        checkpoint = dict(authors_part or self._authors_part())
        checkpoint[RESUME_KEY] = self._identity.as_plain() | {
            "history": [row.as_plain() for row in state.history],
            "diagnostics": state.diagnostics,
            "best_checkpoint": state.best_checkpoint,
            "position": state.position,
            "segments": [piece.as_plain() for piece in state.segments],
            "origins": self._identity.origins.as_plain(),
            "random": randoms[0],
            "train_seconds": state.train_seconds,
            "earlier_best": state.earlier_best,
        }
        if len(randoms) > 1:
            checkpoint[RESUME_KEY]["random_of_others"] = randoms[1:]
        save_checkpoint(self._checkpoint, checkpoint)
        self._saved_at = time.monotonic()

    def _own_random(self, ours: Mapping[str, Any]) -> dict[str, Any]:
        """This process's random states of a checkpoint; those of the first where as many processes did not write it."""
        states: list[dict[str, Any]] = [ours["random"], *ours.get("random_of_others", ())]
        return states[self._processes.rank if len(states) == self._processes.count else 0]

    def _write_history(self) -> None:
        if not self._processes.first:
            return
        # What follows the training reads the history first, and then finds every epoch of it in the other file.
        if self._state.diagnostics:
            _write_lines(self._folder / paths.DIAGNOSTICS, self._state.diagnostics)
        else:
            # One that lies there is of a training that was removed.
            (self._folder / paths.DIAGNOSTICS).unlink(missing_ok=True)
        state = self._state
        state.lines += map(_line, state.history[len(state.lines) :])
        _write_lines(self._folder / paths.HISTORY, state.lines)

    def _write_best(self) -> None:
        if not self._processes.first:
            return
        best_file, best = self._folder / paths.BEST_CHECKPOINT, self._state.best_checkpoint
        if best is None:
            best_file.unlink(missing_ok=True)
        else:
            write_checkpoint(best_file, best)

    @property
    def _checkpoint(self) -> Path:
        return self._folder / paths.CHECKPOINT

    def _outcome(self) -> Outcome:
        history = self._state.history
        best = max(history, key=lambda row: row.test_top1)
        if self._state.best_checkpoint is None:
            raise CheckpointError(
                f"{self._checkpoint} holds no best checkpoint: move {self._checkpoint.parent} aside to train anew"
            )
        return Outcome(
            history=self.history,
            diagnostics=tuple(map(EpochWeights.model_validate_json, self._state.diagnostics)),
            best=best.tested,
            last=history[-1].tested,
            train_seconds=self._state.train_seconds,
            segments=self.segments,
            origins=self._identity.origins,
        )


def _line(record: EpochRecord | EpochWeights) -> str:
    return canonical_json(record.as_plain())


def _write_lines(file: Path, lines: Iterable[str]) -> None:
    atomic_write_text(file, "".join(f"{line}\n" for line in lines))
