"""Children of this process that run one command and may be killed at any moment.

PyTorch is imported once, before the first fork, so a try costs what the command itself costs and not the four seconds
of a new Python. Nothing here may compute with autograd in the parent: its threads would not survive the fork.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 180.0
"""The longest any command here may take before it counts as hanging."""

_HANGING = 70


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child ended."""

    code: int
    """Exit code; minus the signal's number where a signal ended it."""
    output: str
    seconds: float
    hung: bool = False

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it, and not its patience."""
        return self.code == -signal.SIGKILL and not self.hung

    def problem(self, *allowed: int) -> str | None:
        """Why this is not one of the `allowed` exit codes in a readable form; None where it is."""
        if self.hung:
            return f"hung for {self.seconds:.0f} s: {self._tail}"
        if "Traceback" in self.output:
            return f"traceback: {self._tail}"
        if self.code not in allowed:
            return f"exit code {self.code}, expected {' or '.join(map(str, allowed))}: {self._tail}"
        if self.code == 2 and sum(line.startswith("error: ") for line in self.output.splitlines()) != 1:
            return f"not one error line: {self._tail}"
        return None

    @property
    def _tail(self) -> str:
        return self.output.strip()[-1500:]


class Child:
    """One running child in a session of its own, so that what it starts dies with it."""

    def __init__(self, action: Callable[[], int]) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(action, self._output.fileno())
        self._handle = os.pidfd_open(self.pid)

    def send(self, number: int) -> None:
        """Signal the child alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill_session(self) -> None:
        """SIGKILL to the child, which was not waited for yet, and to all it started, as a power cut would."""
        self.kill_group()
        self.send(signal.SIGKILL)  # it may not have had the time to lead a group

    def kill_group(self) -> None:
        """SIGKILL to whatever the child started and is left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def ends_within(self, seconds: float) -> bool:
        """Wait up to `seconds`; whether it has ended."""
        ready, _, _ = select.select([self._handle], [], [], max(seconds, 0))
        return bool(ready)

    def output(self) -> str:
        """What it has printed so far."""
        return Path(f"/proc/self/fd/{self._output.fileno()}").read_bytes().decode(errors="replace")

    def wait(self, patience: float = PATIENCE_S) -> Ended:
        """Wait for its end; after `patience` seconds kill it and say that it hung."""
        hung = not self.ends_within(patience)
        if hung:
            self.kill_session()
        _, status = os.waitpid(self.pid, 0)
        os.close(self._handle)
        text = self.output()
        self._output.close()
        code = os.waitstatus_to_exitcode(status)
        return Ended(code=code, output=text, seconds=time.monotonic() - self._started, hung=hung)


def run(action: Callable[[], int], *, kill_after: float | None = None, patience: float = PATIENCE_S) -> Ended:
    """Run `action` in a child; its return value is the exit code.

    Args:
        action: what the child does.
        kill_after: seconds after which the child and all it started are killed.
        patience: seconds after which it counts as hanging.
    """
    child = Child(action)
    if kill_after is not None and not child.ends_within(kill_after):
        child.kill_session()
    return child.wait(patience)


def children_of(process: int) -> list[int]:
    """Processes that any thread of a process has started and that are there still (Linux)."""
    return [
        int(child)
        for task in Path(f"/proc/{process}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def _become(action: Callable[[], int], output: int) -> None:
    """Be the child; never returns."""
    code = _HANGING
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = action()
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
