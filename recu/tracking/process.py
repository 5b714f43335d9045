"""MLflow in a process of its own.

Importing it takes as long as importing PyTorch. Here the two happen side by side, and a training's threads never wait
for those of a client.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, BinaryIO

from recu.base.errors import RecuError
from recu.tracking.mlflow_tracker import MlflowTracker, Refused
from recu.tracking.tracker import RunDescription, Status, Tracker

_END = "end"
"""The last request."""
_LONGEST_END_S = 3.0
"""How long the process may take to close its store and end."""


class StoreError(Exception):
    """What went wrong in the other process, or that it has ended."""


class ProcessTracker(Tracker):
    """An `MlflowTracker` in another process, which ends with this one, however that ends.

    Every method raises `StoreError` or `Refused`. Making one costs milliseconds, and may raise OSError too.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._run_id: str | None = None
        # In a group of its own Ctrl-C does not reach it, so that it can still be told how the run ended.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
        )
        # Not an argument: an address may hold credentials, and arguments are shown to everyone on the machine.
        self._send(tracking_uri)

    @property
    def run_id(self) -> str | None:
        """Known from `start` on."""
        return self._run_id

    def load(self) -> None:
        """Waits for MLflow's import, which begins when the process does."""
        self._ask("load")

    def start(self, description: RunDescription) -> None:
        """As `MlflowTracker.start`."""
        self._run_id = self._ask("start", description)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """As `MlflowTracker.log_epoch`."""
        self._ask("log_epoch", epoch, metrics)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """As `MlflowTracker.log_metrics`."""
        self._ask("log_metrics", metrics)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """As `MlflowTracker.log_tags`."""
        self._ask("log_tags", tags)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """As `MlflowTracker.log_artifact`."""
        self._ask("log_artifact", path.absolute(), folder)

    def finish(self, status: Status) -> None:
        """As `MlflowTracker.finish`."""
        self._ask("finish", status)

    def close(self) -> None:
        """Let the process close its store and end; after a few seconds end it, whatever it is doing."""
        # Its requests need not end when this end is closed: a process that loads images may still hold another copy.
        with suppress(StoreError):
            self._send(_END)
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_LONGEST_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, method: str, *arguments: Any) -> str | None:
        self._send((method, arguments))
        try:
            run_id, refusal, failure = pickle.load(self._process.stdout)
        except (OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise _ended() from error
        if refusal is not None:
            raise Refused(refusal)
        if failure is not None:
            raise StoreError(failure)
        return run_id

    def _send(self, message: Any) -> None:
        try:
            _write(message, self._process.stdin)
        except (OSError, ValueError) as error:
            raise _ended() from error


def _ended() -> StoreError:
    return StoreError("the process that sends to the store has ended")


def _write(message: Any, stream: BinaryIO) -> None:
    stream.write(pickle.dumps(message))
    stream.flush()


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The other process: carry out requests, until there are no more.

    An answer is the run's id, why the store refuses, and what went wrong, in words: errors of MLflow itself would have
    to be imported where they arrive.
    """
    with suppress(EOFError, BrokenPipeError), closing(MlflowTracker(pickle.load(requests))) as tracker:
        # What fails here fails again when it is asked for, and is answered then.
        with suppress(Exception):
            tracker.load()
        while (request := pickle.load(requests)) != _END:
            method, arguments = request
            refusal = failure = None
            try:
                getattr(tracker, method)(*arguments)
            except Refused as error:
                refusal = str(error)
            except Exception as error:
                failure = str(error) if isinstance(error, RecuError) else f"{type(error).__name__}: {error}"
            _write((tracker.run_id, refusal, failure), answers)


def _main() -> None:
    # The process that sends the requests decides when to end; this one sees the end of its requests then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # What a library prints must not stand between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _serve(sys.stdin.buffer, answers)
    # Looking through all of MLflow for garbage takes two seconds.
    gc.freeze()


if __name__ == "__main__":
    _main()
