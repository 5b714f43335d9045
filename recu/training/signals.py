"""Turning SIGTERM, SIGINT and SIGUSR1 into a request to stop at the next step."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Slurm's and a shutdown's; Ctrl-C; Slurm's early warning (`--signal=USR1@300`)."""


@dataclass
class StopRequest:
    """Whether, and by which signal, this process was asked to stop."""

    signal_name: str | None = None

    def __call__(self) -> bool:
        """True once a signal has come."""
        return self.signal_name is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block, a first signal is recorded in the request; a second one ends the process at once.

    The handlers found are put back afterwards. Outside the main thread, where Python allows no handlers, the request
    simply never becomes true.
    """
    request = StopRequest()

    def record(number: int, _frame: FrameType | None) -> None:
        if request():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        request.signal_name = signal.Signals(number).name

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, record) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            # None stands for a handler that was not installed from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
