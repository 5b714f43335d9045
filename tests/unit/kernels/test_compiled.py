"""Loops over samples in several threads."""

import os
import signal
import time

import numpy as np

from recu.kernels.compiled import in_threads


def double(first: int, stop: int, values: np.ndarray) -> None:
    time.sleep(0.01)  # so that no thread does the work of two
    values[first:stop] *= 2


def test_a_fork_has_threads_of_its_own() -> None:
    values = np.ones(5)
    in_threads(double, 3, 5, values)
    child = os.fork()
    if not child:
        signal.alarm(20)  # ends a process that waits for threads which it does not have
        in_threads(double, 3, 5, values)
        os._exit(int(values.sum()))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 20 and values.tolist() == [2.0] * 5
