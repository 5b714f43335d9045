"""Loops over samples in several threads."""

import os
import signal
import threading
import time

import numpy as np
import pytest

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


@pytest.mark.parametrize("count", [0, 1, 2, 7, 64, 1000])
@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_every_sample_is_worked_on_once(count, threads) -> None:
    values = np.zeros(count)

    def add_one(first: int, stop: int) -> None:
        assert first < stop
        values[first:stop] += 1

    in_threads(add_one, threads, count)
    assert (values == 1).all()


def test_a_thread_that_is_held_up_leaves_its_work_to_the_other() -> None:
    done: dict[int, int] = {}
    held_up = threading.Event()

    def work(first: int, stop: int) -> None:
        if first == 0:
            held_up.wait(20)
        thread = threading.get_ident()
        done[thread] = done.get(thread, 0) + stop - first
        if sum(done.values()) == 100 - 25:
            held_up.set()

    in_threads(work, 2, 100)
    assert held_up.is_set() and sorted(done.values()) == [25, 75]


def test_an_error_in_any_thread_is_raised_when_all_have_ended() -> None:
    for bad in (0, 99):
        done = []

        def work(first: int, stop: int, bad: int = bad, done: list[int] = done) -> None:
            if first <= bad < stop:
                raise ValueError("bad sample")
            done.extend(range(first, stop))

        with pytest.raises(ValueError, match="bad sample"):
            in_threads(work, 2, 100)
        assert bad not in done and len(set(done)) == len(done)


def test_when_an_error_is_raised_no_thread_works_on() -> None:
    together, failed = threading.Barrier(4), threading.Event()
    good, late = [], []

    def work(first: int, stop: int) -> None:
        if failed.is_set():
            late.append(stop)
            return
        place = together.wait(20)
        if threading.current_thread() is not threading.main_thread() and place:
            failed.set()
            raise ValueError("bad sample")
        time.sleep(0.2)
        good.append(first)

    with pytest.raises(ValueError, match="bad sample"):
        in_threads(work, 4, 100)
    at_once = len(good)
    time.sleep(0.3)
    assert not late and len(good) == at_once
