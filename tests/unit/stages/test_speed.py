"""Turns, and what else the machine did."""

import os
from pathlib import Path

import numpy as np
import pytest

from recu.stages import speed


def test_ways_take_turns_and_the_median_counts(monkeypatch):
    monkeypatch.setattr(speed, "_TURN_S", 0.0)
    monkeypatch.setattr(speed, "TURNS", 3)
    seconds = {"a": [1.0, 9.0, 3.0], "b": [5.0, 4.0, 6.0]}
    now, called = [0.0], []

    def way(name):
        def compute(images):
            called.append((name, len(images)))
            now[0] += seconds[name][(len(called) - 1) // 4] * len(images)

        return compute

    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    given = {"one": np.zeros((1, 2, 2, 3), np.float32), "batch": np.zeros((4, 2, 2, 3), np.float32)}
    found = speed._in_turns({"a": way("a"), "b": way("b")}, given)
    assert called == [("a", 1), ("b", 1), ("a", 4), ("b", 4)] * 3
    assert found == {("a", "one"): 3.0, ("b", "one"): 5.0, ("a", "batch"): 12.0, ("b", "batch"): 20.0}


def test_a_turn_goes_on_as_long_as_it_has_time(monkeypatch):
    monkeypatch.setattr(speed, "_TURN_S", 1.0)
    now, called = [0.0], []

    def compute(images):
        called.append(images)
        now[0] += 0.3

    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    assert speed._turn(compute, np.zeros(1, np.float32)) == pytest.approx(0.3) and len(called) == 4


def test_what_others_computed_is_what_all_did_but_for_this_process(monkeypatch):
    monkeypatch.setattr(speed, "_clocks", lambda: (10.0, 12.0, 130.0))
    assert speed._others_since((0.0, 2.0, 100.0)) == 2.0
    assert speed._others_since((0.0, 2.0, 125.0)) == 0.0, "clocks of the system are coarse"
    assert speed._others_since((0.0, 2.0, None)) is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc/stat")
def test_the_systems_clock_goes_on_while_this_process_computes():
    _, own, computed = speed._clocks()
    while speed._clocks()[1] < own + 0.5:
        sum(range(10_000))
    assert speed._clocks()[2] > computed + 0.3


def test_a_system_that_says_nothing_is_not_taken_for_an_idle_one(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "Path", lambda _: tmp_path / "stat")
    assert speed._computed_by_all() is None
    (tmp_path / "stat").write_text("cpu  none\n")
    assert speed._computed_by_all() is None
    tick = os.sysconf("SC_CLK_TCK")
    (tmp_path / "stat").write_text(f"cpu  {tick} {tick} {tick} 999 999 {tick} {tick} {tick} 7 7\ncpu0 1 1\n")
    assert speed._computed_by_all() == 6.0
