"""A clock that goes back, folders that may not be written, two processes at once, a loader worker that hangs."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from recu.base.files import read_json
from recu.experiment import paths
from tests.chaos import forking
from tests.chaos.kills import finish
from tests.chaos.laboratory import Laboratory, Place, Stage, commands
from tests.chaos.ledger import Ledger

_YEAR_S = 365 * 86400
_NOBODY = 65534
_READABLE_REFUSAL = 2
_INTERRUPTED = 75


def clock_goes_back(lab: Laboratory, ledger: Ledger, times: int, rng: random.Random) -> None:
    """Kill a stage, and let the clock stand a year earlier, and going back while it runs, when it is run again."""
    for stage in lab.stages.values():
        for _ in range(times):
            place = stage.fresh()
            forking.run(stage.action(place), kill_after=rng.uniform(0.2, 0.8) * stage.seconds)
            problem = forking.run(_a_year_ago(stage, place)).problem(0) or lab.difference(stage.name, place)
            ledger.add("clock goes back", problem and f"{stage.name}: {problem}")
            lab.drop(place)


def read_only(lab: Laboratory, ledger: Ledger, times: int) -> None:
    """Take away the right to write a stage's folders: one readable line; with the right back everything works."""
    for stage in lab.stages.values():
        for _ in range(times):
            place = stage.fresh()
            problem = forking.run(_without_rights(stage, place)).problem(_READABLE_REFUSAL) or stage.half_done(place)
            problem = problem or finish(lab, stage, place)
            ledger.add("folder may not be written", problem and f"{stage.name}: {problem}")
            lab.drop(place)


def two_at_once(lab: Laboratory, ledger: Ledger, times: int, rng: random.Random) -> None:
    """Start each stage twice at once: both end well, with the result of one."""
    for stage in lab.stages.values():
        for _ in range(times):
            place = stage.fresh()
            first = forking.Child(stage.action(place))
            first.ends_within(rng.uniform(0, 0.5) * stage.seconds)
            second = forking.Child(stage.action(place))
            problem = first.wait().problem(0) or second.wait().problem(0) or lab.difference(stage.name, place)
            ledger.add("two processes, same parameters", problem and f"{stage.name}: {problem}")
            lab.drop(place)


def two_with_other_parameters(lab: Laboratory, ledger: Ledger, times: int) -> None:
    """While one training runs, start one of the same name with other parameters: it says so, waits, and gives ITS
    result."""
    stage = lab.stages["train"]
    other = lab.other_experiment(lr=0.025, epochs=1)
    for _ in range(times):
        place = stage.fresh()
        first = forking.Child(stage.action(place))
        holder = place.runs / lab.experiment.id / ".lock-holder"
        while not holder.exists() and not first.ends_within(0.005):
            pass
        second = forking.Child(commands(lab.train_command(place, other)))
        one, two = first.wait(), second.wait()
        problem = one.problem(0) or two.problem(0)
        if problem is None and f"in use by process {first.pid}" not in two.output:
            problem = f"the second did not name the first: {two.output}"
        metrics = read_json(paths.train_folder(place.results, other.id) / paths.METRICS)
        if problem is None and (metrics["spec_hash"], metrics["epochs"]) != (other.spec_hash, 1):
            problem = "the second's result is not its own"
        # The first one's parameters again: its state was kept apart, and the other's result is not taken for its own.
        problem = problem or finish(lab, stage, place)
        ledger.add("two processes, other parameters", problem)
        lab.drop(place)


def hung_worker(lab: Laboratory, ledger: Ledger, times: int) -> None:
    """Let a loader worker hang for ever: the training ends by itself after a while, or at two signals, or when the
    worker is killed, and the same command continues it."""
    experiment = lab.other_experiment(loader="torchvision")
    whole = lab.fresh()
    command = {"workers": "1"}
    reference = forking.run(commands(lab.train_command(whole, experiment, **command))).problem(0)
    wanted = _best(whole, experiment.id) if reference is None else None
    ends = {
        "hung loader worker, left alone": _leave_alone,
        "hung loader worker, two signals": _send_two_signals,
        "loader worker killed": _kill_worker,
    }
    for number, (fault, end) in [*enumerate(ends.items())] * times:
        place = lab.fresh()
        train = commands(lab.train_command(place, experiment, **command))
        patience = 5 if end is _leave_alone else 600
        child = forking.Child(_with_hanging_worker(train, after=5 + 7 * number, patience=patience))
        state = paths.state_folder(place.runs, experiment.id, experiment.spec_hash)
        _wait_until_nothing_happens(child, state / paths.CHECKPOINT)
        allowed = end(child)
        ended = child.wait()
        child.kill_group()  # the worker may outlive its trainer
        problem = reference or ended.problem(*allowed) or forking.run(train).problem(0)
        if problem is None and _best(place, experiment.id) != wanted:
            problem = "other weights than undisturbed"
        ledger.add(fault, problem)
        lab.drop(place)
    lab.drop(whole)


def _leave_alone(child: forking.Child) -> tuple[int, ...]:
    """How it may end."""
    return (_INTERRUPTED,)


def _send_two_signals(child: forking.Child) -> tuple[int, ...]:
    for _ in range(2):
        child.send(signal.SIGTERM)
        child.ends_within(3)
    return (-signal.SIGTERM, _INTERRUPTED)


def _kill_worker(child: forking.Child) -> tuple[int, ...]:
    for worker in forking.children_of(child.pid):
        os.kill(worker, signal.SIGKILL)
    return (_INTERRUPTED,)


def _best(place: Place, identifier: str) -> bytes:
    return (paths.train_folder(place.results, identifier) / paths.BEST_CHECKPOINT).read_bytes()


def _a_year_ago(stage: Stage, place: Place) -> Callable[[], int]:
    run = stage.action(place)

    def action() -> int:
        now, asked = time.time, [0]

        def earlier() -> float:
            asked[0] += 1
            return now() - _YEAR_S - 3600 * asked[0]

        time.time = earlier
        return run()

    return action


def _without_rights(stage: Stage, place: Place) -> Callable[[], int]:
    run = stage.action(place)
    folders = [place.folder, *(entry for entry in place.folder.rglob("*") if entry.is_dir())]

    def action() -> int:
        if os.geteuid() == 0:  # whom permissions do not stop
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
            return run()
        for folder in folders:
            folder.chmod(0o555)
        try:
            return run()
        finally:
            for folder in folders:
                folder.chmod(0o755)

    return action


def _with_hanging_worker(train: Callable[[], int], after: int, patience: int) -> Callable[[], int]:
    def action() -> int:
        from recu.data.load import torchvision_loader
        from recu.data.load.torchvision_loader import ArrayImages

        torchvision_loader.PATIENCE_S = patience
        read, count = ArrayImages.read, [0]

        def hang(images: ArrayImages, index: int) -> object:
            count[0] += 1
            if count[0] > after:
                time.sleep(3600)
            return read(images, index)

        ArrayImages.read = hang
        return train()

    return action


def _wait_until_nothing_happens(child: forking.Child, file: Path, quiet_s: float = 4.0) -> None:
    """Until no checkpoint was written for a while, which is how a hang looks from outside."""
    last, since = None, time.monotonic()
    while time.monotonic() - since < quiet_s and not child.ends_within(0.1):
        now = file.stat().st_mtime_ns if file.exists() else None
        if now != last or now is None:
            last, since = now, time.monotonic()
        if child.ends_within(0):
            return
