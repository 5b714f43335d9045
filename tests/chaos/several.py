"""A training shared by two processes: signals to one or to all of them at any moment, and the same command again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.chaos import forking
from tests.chaos.laboratory import Laboratory, commands, trained_results
from tests.chaos.ledger import Ledger

_INTERRUPTED = 75
_WITHIN_S = 60
"""How long all may take to end."""
_OPTIONS = {"processes": "2", "stall_minutes": "0.1"}

LAUNCHER, FIRST, OTHER = "launcher", "0", "1"
FAULTS: dict[str, tuple[signal.Signals, tuple[str, ...]]] = {
    "shared training: SIGTERM to the launcher": (signal.SIGTERM, (LAUNCHER,)),
    "shared training: SIGTERM to one process": (signal.SIGTERM, (OTHER,)),
    "shared training: SIGTERM to all": (signal.SIGTERM, (FIRST, OTHER, LAUNCHER)),
    "shared training: SIGKILL of the launcher": (signal.SIGKILL, (LAUNCHER,)),
    "shared training: SIGKILL of the first process": (signal.SIGKILL, (FIRST,)),
    "shared training: SIGKILL of another process": (signal.SIGKILL, (OTHER,)),
    "shared training: one process hangs": (signal.SIGSTOP, (OTHER,)),
}


def faults_of_shared_trainings(lab: Laboratory, ledger: Ledger, times: int, rng: random.Random) -> None:
    """Each of `FAULTS` so many times, at a moment drawn among all that an undisturbed training takes."""
    whole = lab.fresh()
    ended = forking.run(commands(lab.train_command(whole, **_OPTIONS)))
    problem = ended.problem(0)
    wanted = None if problem else trained_results(lab.experiment, results=whole.results, runs=whole.runs)
    for fault, (number, whom) in [*FAULTS.items()] * times:
        place = lab.fresh()
        train = _returning(commands(lab.train_command(place, **_OPTIONS)))
        child = forking.Child(train)
        child.ends_within(rng.uniform(0.2, 1) * ended.seconds)
        processes = _processes(child.pid)
        for each in whom:
            with suppress(KeyError, ProcessLookupError):
                os.kill(processes[each], number)
        first = child.wait(3 * _WITHIN_S)
        what = problem or first.problem(0, _INTERRUPTED, -number) or _left(processes.values())
        what = what or forking.run(train).problem(0)
        if what is None and trained_results(lab.experiment, results=place.results, runs=place.runs) != wanted:
            what = "other results than undisturbed"
        ledger.add(fault, what)
        lab.drop(place)
    lab.drop(whole)


def _returning(action: Callable[[], int]) -> Callable[[], int]:
    """The action with the exit code of a launcher whose processes have said what is wrong."""

    def returning() -> int:
        try:
            return action()
        except SystemExit as ended:
            return int(ended.code or 0)

    return returning


def _processes(launcher: int) -> dict[str, int]:
    """The launcher and the processes it has started by now, by number."""
    found = {LAUNCHER: launcher}
    with suppress(FileNotFoundError, ProcessLookupError):
        for child in forking.children_of(launcher):
            for entry in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                if entry.startswith(b"RANK="):
                    found[entry[5:].decode()] = child
    return found


def _left(processes: Sequence[int]) -> str | None:
    """What is wrong where some of them are still there after a while."""
    until = time.monotonic() + _WITHIN_S
    while left := [process for process in processes if _runs(process)]:
        if time.monotonic() > until:
            for process in left:
                os.kill(process, signal.SIGKILL)
            return f"{len(left)} processes left"
        time.sleep(0.1)
    return None


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
