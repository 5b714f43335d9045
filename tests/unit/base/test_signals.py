"""Signals become a request, and the handlers found are put back. (A second signal: test_trainer.)"""

import os
import signal
import threading

import pytest

from recu.base import signals
from recu.base.signals import SIGNALS, TIME_LIMIT, StopRequest, stop_on_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_recorded(number):
    with stop_on_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop() and stop.reason == signal.Signals(number).name


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_on_signals():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_outside_the_main_thread_nothing_is_installed():
    seen = []

    def body():
        with stop_on_signals() as stop:
            seen.append(stop())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [False]


class Clock:
    """In place of the module `time`: it stands at what it is set to."""

    now = 0.0

    def time(self):
        return 1e9 + self.now

    def monotonic(self):
        return self.now


@pytest.mark.parametrize(
    ("end", "between", "asked_first_at"),
    [
        (0, 1, None),
        (3600, 1, 3539),
        (100, 1, 89),
        (3600, 30, 3510),  # a step of 30 s begins no later than 90 s before the end
        (-5, 1, 0),
    ],
)
def test_the_end_of_the_time_comes_with_enough_of_it_left(monkeypatch, end, between, asked_first_at):
    clock = Clock()
    monkeypatch.setattr(signals, "time", clock)
    stop = StopRequest(1e9 + end if end else 0)
    asked = (time for time in range(0, 5000, between) if setattr(clock, "now", time) or stop())
    assert next(asked, None) == asked_first_at
    assert stop.reason == (TIME_LIMIT if end else None)


def test_the_longest_wait_counts_although_others_were_short(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(signals, "time", clock)
    stop = StopRequest(1e9 + 3600)
    for clock.now in (0, 1, 401, 402, 800, 1200, 1600, 2000, 2400, 2800, 3139):
        assert not stop()
    clock.now = 3140
    assert stop() and stop.reason == TIME_LIMIT


def test_a_signal_after_the_time_limit_is_a_first_one(monkeypatch):
    with stop_on_signals(end_time=1.0) as stop:
        assert stop() and stop.reason == TIME_LIMIT
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop() and stop.reason == "SIGTERM"
