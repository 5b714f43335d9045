"""A job's run: what it is and how it ended, noted in its folder, and a process that mirrors the folder meanwhile.

The job's own process neither imports MLflow nor speaks with a store: what is to be shown stands in files, and whatever
the mirror misses, `recu sync` finds there.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

from recu.base import preloaded
from recu.base.errors import Interrupted, OutputError, ResultError
from recu.base.files import atomic_write_json
from recu.base.redaction import redact
from recu.base.signals import SIGNALS
from recu.experiment import paths
from recu.tracking.description import RunDescription
from recu.tracking.wanted import Folders, Noted, Status, read_noted

_log = logging.getLogger(__name__)

_PATIENCE_S = 10.0
"""How long a job waits for a store, in all."""
_ANSWER_S = 5.0
"""How much of it for the run's id, before it publishes."""
_LOAD_WAIT_S = 60.0
"""The longest that anything waits for imports, which on a busy machine take longer than any answer of a store."""


class FollowedRun:
    """The run of one job. Make it before PyTorch is imported: MLflow takes as long, and is imported meanwhile.

    Nothing here breaks a job, or holds it up longer than said.

    Args:
        tracking_uri: the store; None for none.
        state: the folder of the job's state.
        results: the folder that it publishes into.
    """

    def __init__(self, tracking_uri: str | None, state: Path, results: Path) -> None:
        self._folders = Folders(state, results)
        self._address = redact(tracking_uri or "")
        self._process: subprocess.Popen[bytes] | _Fork | None = None
        self._patience_s = _PATIENCE_S
        # Everything below is shared with the thread that listens and guarded by the condition.
        self._changed = threading.Condition()
        self._loaded = self._answered = self._ended = self._whole = False
        self._run_id: str | None = None
        if tracking_uri is not None:
            self._start(tracking_uri)

    def _start(self, tracking_uri: str) -> None:
        # In a session of its own neither Ctrl-C nor a lost terminal reaches it, so that it can still see how the run
        # ended. A scheduler signals each process of a job, this one even before it can say that it ignores that: it
        # begins with those signals blocked.
        allowed = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._process = _Fork() if preloaded.ADDRESS in os.environ else _new_process()
            listener = threading.Thread(
                target=self._listen, args=(self._process.stdout,), name="recu-tracking", daemon=True
            )
            listener.start()
        except (OSError, RuntimeError) as error:
            _log.warning("tracking: nothing is sent while this job runs (%s); `recu sync` does it later", error)
            self.close()
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, allowed)
        # Not an argument: an address may hold credentials, and arguments are shown to everyone on the machine.
        self._tell(json.dumps([tracking_uri, *(str(folder.absolute()) for folder in self._folders)]))

    @contextmanager
    def recorded(self, description: RunDescription) -> Iterator[None]:
        """Note that the run runs, and at the block's end how it ended; then wait for the mirror, seconds at most."""
        description = description.redacted()
        started_ns = self._started_ns(description)
        self._note(Noted(description=description, started_ns=started_ns, status="RUNNING"))
        self._tell("begin")
        status: Status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except (Interrupted, KeyboardInterrupt):
            status = "KILLED"
            raise
        finally:
            self._note(Noted(description=description, started_ns=started_ns, status=status))
            self._end()

    def id(self) -> str | None:
        """The store's id of the run; None where it has not answered in time."""
        self._wait_for_load()
        self._wait(lambda: self._answered or self._ended, _ANSWER_S)
        return self._run_id

    def close(self) -> None:
        """End the mirroring process, whatever it is doing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            _requests_of(process).close()

    def _end(self) -> None:
        if self._process is None:
            return
        self._tell("end")
        # A process that loads images may still hold another copy, so that closing it is not enough.
        _requests_of(self._process).close()
        self._wait_for_load()
        self._wait(lambda: self._ended, self._patience_s)
        if not self._whole:
            _log.warning(
                "tracking: %s does not show all of this run, which stands in %s; send it with: recu sync --runs_dir %s",
                self._address,
                self._folders.state,
                shlex.quote(str(self._folders.state)),
            )
        self.close()

    def _started_ns(self, description: RunDescription) -> int:
        """A run that was begun before and is the same goes on."""
        with suppress(ResultError):
            earlier = read_noted(self._folders.state)
            if earlier is not None and earlier.description.identity == description.identity:
                return earlier.started_ns
        return time.time_ns()

    def _note(self, noted: Noted) -> None:
        try:
            atomic_write_json(self._folders.state / paths.RUN, asdict(noted))
        except OutputError as error:
            # A full disk stops a training where it saves its state, and not here.
            _log.warning("tracking: %s", error)

    def _tell(self, line: str) -> None:
        if self._process is not None:
            with suppress(OSError, ValueError):
                _requests_of(self._process).write(f"{line}\n".encode())

    def _wait_for_load(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._process is None or self._loaded or self._ended, _LOAD_WAIT_S)

    def _wait(self, done: Callable[[], bool], longest_s: float) -> None:
        begin = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self._process is None or done(), min(longest_s, self._patience_s))
        self._patience_s = max(0.0, self._patience_s - (time.monotonic() - begin))

    def _listen(self, answers: IO[bytes]) -> None:
        """The thread: what the mirroring process says."""
        warned = False
        with answers:
            for line in answers:
                said = json.loads(line)
                with self._changed:
                    self._loaded = True
                    self._answered = self._answered or "left" in said
                    self._run_id = said.get("run_id") or self._run_id
                    self._whole = said.get("left") == [] and said["last"]
                    self._changed.notify_all()
                if said.get("left") and not warned:
                    _log.warning(
                        "tracking: %s does not take everything (%s); the job goes on, and its files hold it",
                        self._address,
                        "; ".join(said["left"])[:1000],
                    )
                    warned = True
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _new_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "recu.tracking.follower"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )


class _Fork:
    """As `_new_process`, of a job that is a fork itself: it has MLflow imported already, and no threads yet."""

    def __init__(self) -> None:
        requests, ours = os.pipe()
        answered, answers = os.pipe()
        self.stdin: IO[bytes] = os.fdopen(ours, "wb", buffering=0)
        self.stdout: IO[bytes] = os.fdopen(answered, "rb", buffering=0)
        fork = multiprocessing.get_context("fork")
        self._process = fork.Process(target=_follow_from_fork, args=(requests, answers, (ours, answered)))
        try:
            self._process.start()
        finally:
            os.close(requests)
            os.close(answers)

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> None:
        self._process.join()


def _follow_from_fork(requests: int, answers: int, of_the_job: tuple[int, int]) -> None:
    from recu.tracking.follower import follow

    os.setsid()
    for number in of_the_job:
        os.close(number)
    # Those are the job's.
    logging.getLogger("recu").handlers.clear()
    follow(requests, answers)


def _requests_of(process: subprocess.Popen[bytes] | _Fork) -> IO[bytes]:
    """The pipe that the mirroring process reads."""
    assert process.stdin is not None, "it was started with one"
    return process.stdin
