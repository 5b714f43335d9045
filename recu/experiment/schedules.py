"""The learning rate as a pure function of the epoch; only the epoch has to be checkpointed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from recu.base.errors import ConfigError
from recu.experiment.own import find_own

WARM_UP_EPOCHS = 5
LearningRateType = Literal["cos", "step", "linear", "linear_start"]


def learning_rate_at(
    epoch: int,
    *,
    epochs: int,
    lr: float,
    lr_type: str,
    warm_up: bool,
    lr_decay_step: Sequence[int] = (),
) -> float:
    """Learning rate of one epoch.

    With warm-up, epochs 0 to 4 use lr * (e + 1) / 5 and the schedule takes its first step after epoch 4: the
    epoch it sees is e - 4, and a cosine runs over E - 4 epochs. Without, it sees e and runs over E.

    Args:
        epoch: e, counted from 0.
        epochs: E, the length of the run in epochs.
        lr: initial learning rate.
        lr_type: one's own, of which `recu.experiment.own` knows: times its value at the epoch that the schedule sees;
            "cos"; "step" (times 0.1 at every epoch of `lr_decay_step`, counted after warm-up); "linear"
            (towards 0; after warm-up it starts ABOVE `lr`, at lr * (E - 1) / (E - 4): a property of the
            authors' program, kept); "linear_start" (the competitor's: linear to 0, stepped at the START of
            each epoch, so that epoch e uses lr * (1 - (e + 1) / E), the full `lr` is never used and the last
            epoch trains with 0).
        warm_up: whether the first five epochs warm up; not defined for "linear_start".
        lr_decay_step: epochs at which "step" decays; other types ignore it.

    Returns:
        The learning rate.

    Raises:
        ConfigError: unknown `lr_type`, or one's own gives no rate; `epoch` outside 0..epochs, or warm-up with
            "linear_start".
    """
    check_epoch(epoch, epochs)
    if warm_up:
        check_warm_up(lr_type)
    if warm_up and epoch < WARM_UP_EPOCHS:
        return lr * (epoch + 1) / WARM_UP_EPOCHS
    delay = delay_of(warm_up)
    return lr * _decay(lr_type, epoch - delay, epochs, epochs - delay, lr_decay_step)


def delay_of(warm_up: bool) -> int:
    """Epochs by which a warm-up delays the schedule."""
    # The scheduler steps after epoch 4 for the first time: one epoch of the five counts as its epoch 0.
    return WARM_UP_EPOCHS - 1 if warm_up else 0


def own_schedule(lr_type: str) -> Callable[[int, int], float] | None:
    """A user's function of epoch and epochs; None for a type of the package. Raises ConfigError for an unknown one."""
    known = get_args(LearningRateType)
    if lr_type in known:
        return None
    schedule: Callable[[int, int], float] = find_own("learning-rate schedule", lr_type, known).value
    if not callable(schedule):
        raise ConfigError(
            f"lr_type {lr_type!r} is a {type(schedule).__name__}: expected a function of epoch and epochs"
        )
    return schedule


def check_warm_up(lr_type: str) -> None:
    """Raise ConfigError for a shape of the learning rate that cannot follow a warm-up."""
    if lr_type == "linear_start":
        raise ConfigError("warm_up is not defined for lr_type 'linear_start': set warm_up to false")


def check_epoch(epoch: int, epochs: int) -> None:
    """Raise ConfigError for an epoch outside 0..epochs, or a training of no epochs."""
    if epochs < 1 or not 0 <= epoch <= epochs:
        raise ConfigError(f"epoch {epoch} of {epochs}: expected at least one epoch and 0 <= epoch <= epochs")


def _decay(lr_type: str, step: int, epochs: int, horizon: int, lr_decay_step: Sequence[int]) -> float:
    if lr_type == "cos":
        return (1.0 + math.cos(math.pi * step / horizon)) / 2.0
    if lr_type == "step":
        return 0.1 ** sum(decay <= step for decay in lr_decay_step)
    if lr_type == "linear":
        # The numerator is the whole run's length although the denominator is shortened by the warm-up.
        return (epochs - step) / horizon
    if lr_type == "linear_start":
        return max(0.0, 1.0 - (step + 1) / epochs)
    schedule = own_schedule(lr_type)
    assert schedule is not None, "every type of the package is above"
    value = schedule(step, horizon)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigError(
            f"lr_type {lr_type!r} gives {value!r} at epoch {step} of {horizon}: expected a number from 0 on, which"
            " multiplies lr"
        )
    return float(value)
