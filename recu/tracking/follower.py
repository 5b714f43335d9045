"""The process that mirrors one run's folder into MLflow while a job works, and once more when it has ended.

Importing MLflow takes as long as importing PyTorch. Here the two happen side by side, and a training's threads never
wait for those of a client.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from filelock import FileLock, Timeout

from recu.base.addresses import sqlite_file
from recu.base.signals import SIGNALS
from recu.experiment import paths
from recu.tracking.client import import_mlflow
from recu.tracking.mirror import bring, worded
from recu.tracking.store import empty_log, prepare_store
from recu.tracking.wanted import Folders

LOCK = ".mirror.lock"
"""In a run's state folder: held while it is mirrored, and by a follower as long as it lives."""
_POLL_S = 2.0
_PAUSE_S = 60.0
"""Between two attempts once the store has failed."""
_LAST_LOCK_S = 5.0


def lock_of(state: Path) -> FileLock:
    """The lock of the run in `state`; the system frees it when its holder ends."""
    return FileLock(state / LOCK, timeout=0, thread_local=False)


class _Job:
    """The job that is followed, as far as it says something.

    Args:
        requests: lines of the job: the store and the folders, "begin" when the run is noted, "end".
        answers: for what became of each attempt, a line of JSON each.
    """

    def __init__(self, requests: BinaryIO, answers: TextIO) -> None:
        self._requests, self._answers = requests, answers
        self._parent = os.getppid()
        address, *folders = json.loads(requests.readline())
        self.address, self.folders = address, Folders(*map(Path, folders))
        self.begun = self.ended = False

    def listen(self) -> None:
        """Wait for the next word, for a while only. A job that is gone has ended."""
        if select.select([self._requests], [], [], _POLL_S)[0]:
            self.begun |= (line := self._requests.readline()) == b"begin\n"
            self.ended = line != b"begin\n"
        self.ended |= os.getppid() != self._parent

    def answer(self, **said: object) -> None:
        """Say what happened, if anybody listens."""
        with suppress(OSError):
            print(json.dumps(said), file=self._answers, flush=True)


def _follow(job: _Job) -> None:
    with suppress(Exception):  # what fails here fails again when it is used, and is answered then
        import_mlflow(job.address)
        _make_new(job.address)
    job.answer()
    lock, seen, not_before, machine = lock_of(job.folders.state), None, 0.0, _Machine(job.address)
    while not job.ended:
        job.listen()
        if job.ended:
            machine.finish()
        stamps = _stamps(job.folders)
        if not job.begun or not (job.ended or (stamps != seen and time.monotonic() >= not_before)):
            continue
        try:
            if not lock.is_locked:
                lock.acquire(timeout=_LAST_LOCK_S if job.ended else 0)
            done = bring(job.folders, job.address, live=not job.ended)
        except Timeout:
            # An earlier job's follower, or `recu sync`, is at it.
            continue
        except Exception as error:
            not_before = time.monotonic() + _PAUSE_S
            job.answer(left=[worded(error)], last=job.ended)
        else:
            seen = stamps
            machine.watch(done.run_id)
            job.answer(run_id=done.run_id, left=done.left, last=job.ended)
    file = sqlite_file(job.address)
    if file is not None and seen is not None:
        empty_log(file)


class _Machine:
    """MLflow's own measurements of the whole machine, where its own variable asks for them.

    They are taken by a thread of this process, every ten seconds; a store that fails ends them, and nothing else.

    Args:
        address: of the store.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._monitor: Any = None

    def watch(self, run_id: str) -> None:
        """Begin with the first run that is told, and go on where an earlier job of it ended."""
        with suppress(Exception):
            from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            if self._monitor is None and MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
                self._monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=self._address)
                self._monitor.start()

    def finish(self) -> None:
        """Send what is measured, before the run's end is told."""
        if self._monitor is not None:
            self._monitor.finish()


def _make_new(address: str) -> None:
    """Make a SQLite store that is not there yet: its tables take longer than any answer that a job waits for."""
    file = sqlite_file(address)
    if file is not None and not file.exists():
        prepare_store(address, [])


def _stamps(folders: Folders) -> list[int | None]:
    """What changes when there is something to mirror."""
    files = (folders.state / paths.RUN, folders.state / paths.HISTORY, folders.results / paths.METRICS)
    return [file.stat().st_mtime_ns if file.exists() else None for file in files]


def follow(requests: int, answers: int) -> None:
    """Follow the job at the other ends of two pipes, until it ends.

    Args:
        requests: file descriptor to read from.
        answers: file descriptor to write to.
    """
    # The job that is followed decides when to end; this process sees that.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # Without a buffer, which could hold a line that select() then waits for.
    with open(requests, "rb", buffering=0) as asked, os.fdopen(answers, "w") as said:
        _follow(_Job(asked, said))


def _main() -> None:
    # What a library prints must not stand between the answers.
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    follow(0, answers)
    # Looking through all of MLflow for garbage takes two seconds.
    gc.freeze()


if __name__ == "__main__":
    _main()
