"""Pieces of steps are done once each and in order, by the threads that come; an error reaches the caller."""

from __future__ import annotations

import threading
import time

import pytest

from recu.kernels.compiled import pool
from recu.kernels.pieces import done, draw, in_pieces, wait_for

STEPS = (3, 1, 5, 2)
FIRST = [sum(STEPS[:number]) for number in range(len(STEPS) + 1)]


def loop(numbers, helps, do) -> None:
    while (piece := draw(numbers, helps)) < FIRST[-1]:
        step = max(number for number in range(len(STEPS)) if FIRST[number] <= piece)
        wait_for(numbers, FIRST[step])
        do(piece)
        done(numbers)
    if not helps:
        wait_for(numbers, FIRST[-1])


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_each_piece_once_and_steps_in_their_order(threads) -> None:
    for _ in range(50):
        finished: list[int] = []

        def do(piece: int, finished: list[int] = finished) -> None:
            before = FIRST[max(number for number in range(len(STEPS)) if FIRST[number] <= piece)]
            assert set(range(before)) <= set(finished)
            finished.append(piece)

        in_pieces(loop, threads, do)
        assert sorted(finished) == list(range(FIRST[-1]))


def test_a_thread_that_is_busy_elsewhere_delays_nothing() -> None:
    leave, finished = threading.Event(), list[int]()
    busy = pool(1).submit(leave.wait)
    try:
        in_pieces(loop, 2, finished.append)
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

    in_pieces(loop, 2, do)
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
        in_pieces(loop, 2, do)
    # The threads are free again.
    finished: list[int] = []
    in_pieces(loop, 2, finished.append)
    assert sorted(finished) == list(range(FIRST[-1]))
