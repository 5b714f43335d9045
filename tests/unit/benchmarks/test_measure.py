"""Rates, comparisons and peaks, with clocks that a test can foresee."""

import subprocess
import sys

import pytest
import torch

from benchmarks import measure

CPU = torch.device("cpu")


class Machine:
    """A clock that tasks move, and a record of who ran."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []

    def task(self, name: str, seconds: list[float], images: int):
        def run() -> int:
            self.ran.append(name)
            self.now += seconds.pop(0) if len(seconds) > 1 else seconds[0]
            return images

        return run


def rates(machine: Machine, tasks, **settings) -> dict[str, float]:
    options = {"repeats": 3, "seconds": 1.0, "clock": lambda: machine.now, "synchronise": lambda: None}
    return measure.measure_rates(tasks, **(options | settings))


def test_tasks_take_turns_after_a_warm_up_that_does_not_count():
    machine = Machine()
    # The first call is slow, as first calls are; the middle turn of the second task is disturbed.
    tasks = {
        "reference": machine.task("reference", [9.0, 2.0], 10),
        "shipped": machine.task("shipped", [9.0, 1.0, 5.0, 1.0], 10),
    }
    assert rates(machine, tasks) == {"reference": 5.0, "shipped": 10.0}
    assert machine.ran == ["reference", "shipped"] * 4


def test_a_turn_lasts_about_as_long_as_asked_for():
    machine = Machine()
    assert rates(machine, {"short": machine.task("short", [0.1], 4)}, repeats=2, seconds=0.5) == {
        "short": pytest.approx(40.0)
    }
    assert len(machine.ran) == 1 + 2 * 5


def test_the_device_is_waited_for_before_the_clock_is_read():
    machine, waits = Machine(), []

    def wait() -> None:
        waits.append(machine.now)
        machine.now += 1.0

    found = rates(machine, {"task": machine.task("task", [1.0], 4)}, repeats=1, synchronise=wait)
    assert found == {"task": 2.0} and len(waits) == 2


def test_ratio_is_shipped_over_reference():
    assert measure.compare(reference=4.0, shipped=10.0) == {"reference": 4.0, "shipped": 10.0, "ratio": 2.5}


def test_peak_counts_an_addition_and_a_multiplication_for_each_product(monkeypatch):
    monkeypatch.setitem(measure._MATRIX_SIZE, "cpu", 10)
    times = iter([0.0, 4.0, 10.0, 12.0, 20.0, 23.0])
    found = measure.measure_peak_gflops(CPU, repeats=2, clock=lambda: next(times), synchronise=lambda: None)
    assert found == pytest.approx(2 * 10**3 / 2.0 / 1e9)


def test_peak_memory_is_that_of_this_process_and_never_falls():
    before = measure.peak_memory(CPU)
    block = torch.ones(64 << 18)
    grown = measure.peak_memory(CPU)
    size = block.numel() * block.element_size()
    del block
    assert grown >= max(before, size) and measure.peak_memory(CPU) >= size


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_peak_memory_of_a_new_process_is_not_that_of_its_parent():
    block = torch.ones(512 << 18)
    code = "import torch; from benchmarks.measure import peak_memory; print(peak_memory(torch.device('cpu')))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = measure.peak_memory(CPU)
    assert own >= block.numel() * 4 and int(answer.stdout) < own


@pytest.mark.parametrize("where", ["here", "in a child"])
def test_the_cpu_clock_counts_what_is_computed_by_this_process_and_its_children(where):
    code = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    before = measure.CLOCKS["cpu"]()
    if where == "here":
        exec(code)
    else:
        subprocess.run([sys.executable, "-c", code], check=True)
    assert 0.15 < measure.CLOCKS["cpu"]() - before < 2


def test_help_is_measured_with_either_clock():
    assert 0 < measure.measure_help("cpu", repeats=1) < 5
    assert 0 < measure.measure_help("wall", repeats=1) < 20
