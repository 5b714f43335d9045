"""Pieces of steps are done once each and in order, by the threads that come; an error reaches the caller."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from recu.kernels.compiled import pool
from recu.kernels.pieces import done, draw, in_pieces, wait_for

STEPS = (3, 1, 5, 2)
FIRST = [sum(STEPS[:number]) for number in range(len(STEPS) + 1)]


def loop(numbers, helps, do) -> None:
    for step, pieces in enumerate(STEPS):
        while (piece := draw(numbers, helps, step, pieces)) >= 0:
            wait_for(numbers, FIRST[step])
            do(FIRST[step] + piece)
            done(numbers)
    if not helps:
        wait_for(numbers, FIRST[-1])


def test_the_caller_begins_at_the_front_and_who_helps_at_the_back() -> None:
    numbers = np.zeros(32, np.int64)
    helps = (False, True, True, False, True, False, True)
    assert [draw(numbers, each, 3, 5) for each in helps] == [0, 4, 3, 1, 2, -1, -1]
    assert draw(numbers, True, 4, 1) == 0 and draw(numbers, False, 4, 1) == -1


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_each_piece_once_and_steps_in_their_order(threads) -> None:
    for _ in range(50):
        finished: list[int] = []

        def do(piece: int, finished: list[int] = finished) -> None:
            before = FIRST[max(number for number in range(len(STEPS)) if FIRST[number] <= piece)]
            assert set(range(before)) <= set(finished)
            finished.append(piece)

        in_pieces(loop, threads, len(STEPS), do)
        assert sorted(finished) == list(range(FIRST[-1]))


def test_a_thread_that_is_busy_elsewhere_delays_nothing() -> None:
    leave, finished = threading.Event(), list[int]()
    busy = pool(1).submit(leave.wait)
    try:
        in_pieces(loop, 2, len(STEPS), finished.append)
    finally:
        leave.set()
    assert finished == list(range(FIRST[-1]))
    assert busy.result(timeout=60)


def test_a_thread_that_stops_for_long_is_not_given_more() -> None:
    caller, slept, done_by = threading.get_ident(), list[int](), dict[int, bool]()

    def do(piece: int) -> None:
        done_by[piece] = threading.get_ident() == caller
        if done_by[piece]:
            # Until the other one has its first piece.
            while all(done_by.values()) and piece == 0:
                time.sleep(0.001)
        elif not slept:
            slept.append(piece)
            time.sleep(0.3)

    in_pieces(loop, 2, len(STEPS), do)
    assert sorted(done_by) == list(range(FIRST[-1]))
    assert slept and all(done_by[piece] for piece in range(FIRST[1], FIRST[-1]))


@pytest.mark.parametrize("failing", ["caller", "other"])
def test_an_error_of_any_thread_ends_all_and_is_raised(failing) -> None:
    caller, both, came = threading.get_ident(), threading.Barrier(2), set[int]()

    def do(_piece: int) -> None:
        thread = threading.get_ident()
        if thread not in came:
            came.add(thread)
            both.wait(60)
        if (thread == caller) == (failing == "caller"):
            raise MemoryError

    with pytest.raises(MemoryError):
        in_pieces(loop, 2, len(STEPS), do)
    # The threads are free again.
    finished: list[int] = []
    in_pieces(loop, 2, len(STEPS), finished.append)
    assert sorted(finished) == list(range(FIRST[-1]))
