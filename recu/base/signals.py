"""Turning SIGTERM, SIGINT, SIGUSR1 and the end of a job's time into a request to stop at the next step."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Slurm's and a shutdown's; Ctrl-C; Slurm's early warning (`--signal=USR1@300`)."""
TIME_LIMIT = "the time limit"
_MOST_RESERVED_S = 60.0
_RESERVED_PART = 0.1
_ONE_REQUEST_S = 2.0
"""Signals this close together are one request: Slurm sends a preempted job SIGTERM twice within milliseconds."""


class StopRequest:
    """Whether, and by what, this process was asked to stop.

    Args:
        end_time: Unix time in seconds at which a scheduler is going to end this process; 0 for never. The request comes
            as long before it as the longest time between two askings (a step, a save, a batch of an evaluation), and
            a tenth of the time left now, one minute at most, for the last save and the end of the process.
    """

    def __init__(self, end_time: float = 0) -> None:
        self.reason: str | None = None
        """Name of the signal, or `TIME_LIMIT`."""
        left = end_time - time.time() if end_time else float("inf")
        self._last_moment = time.monotonic() + left - min(_MOST_RESERVED_S, _RESERVED_PART * max(left, 0))
        self._asked: float | None = None
        self._longest_s = 0.0

    def __call__(self) -> bool:
        """True once a signal has come, or the time is over."""
        now = time.monotonic()
        if self._asked is not None:
            self._longest_s = max(self._longest_s, now - self._asked)
        self._asked = now
        if self.reason is None and now + self._longest_s >= self._last_moment:
            self.reason = TIME_LIMIT
        return self.reason is not None


@contextmanager
def stop_on_signals(end_time: float = 0) -> Iterator[StopRequest]:
    """Within the block, a first signal is recorded in the request; one more, later, ends the process at once.

    The handlers found are put back afterwards. Outside the main thread, where Python allows no handlers, signals never
    make the request true.

    Args:
        end_time: see `StopRequest`.
    """
    request = StopRequest(end_time)
    first = math.inf

    def record(number: int, _frame: FrameType | None) -> None:
        nonlocal first
        first = min(first, time.monotonic())
        if time.monotonic() > first + _ONE_REQUEST_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        request.reason = signal.Signals(number).name

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
