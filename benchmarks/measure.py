"""Measuring: rates of alternating tasks, the machine's peak, what a fresh process needs."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from benchmarks.peak import resident_peak

if TYPE_CHECKING:
    import torch


def computed_seconds() -> float:
    """Processor time of this process's threads and of the child processes that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": computed_seconds}
"""Seconds that pass, or seconds that are computed: those count on a machine that others use too."""

_MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}


def compare(reference: float, shipped: float) -> dict[str, float]:
    """The three numbers of a comparison; `ratio` is shipped / reference, whichever direction is good."""
    return {"reference": reference, "shipped": shipped, "ratio": shipped / reference}


def measure_rates(
    tasks: Mapping[str, Callable[[], int]],
    *,
    repeats: int,
    seconds: float,
    clock: Callable[[], float],
    synchronise: Callable[[], None],
) -> dict[str, float]:
    """Median images per second of several tasks, which take turns, so that a slow minute is slow for all of them.

    Args:
        tasks: each does a piece of work and returns its number of images; called once before anything counts.
        repeats: turns of each task.
        seconds: about how long a turn is; a turn is one piece of work at least.
        clock: the clock to read.
        synchronise: waits for the device.

    Returns:
        Images per second of each task.
    """
    pieces = {}
    for name, task in tasks.items():
        started = clock()
        task()
        synchronise()
        pieces[name] = max(1, round(seconds / max(clock() - started, 1e-9)))
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            started = clock()
            images = sum(task() for _ in range(pieces[name]))
            synchronise()
            rates[name].append(images / max(clock() - started, 1e-9))
    return {name: statistics.median(values) for name, values in rates.items()}


def measure_peak_gflops(
    device: torch.device, *, repeats: int, clock: Callable[[], float], synchronise: Callable[[], None]
) -> float:
    """The best of several float32 matrix products on the device, in 10^9 operations (add or multiply) per second."""
    import torch

    size = _MATRIX_SIZE[device.type]
    matrix = torch.rand(size, size, device=device)
    best = float("inf")
    for _ in range(repeats + 1):
        started = clock()
        matrix @ matrix
        synchronise()
        best = min(best, max(clock() - started, 1e-9))
    return 2 * size**3 / best / 1e9


def measure_help(clock: str, *, repeats: int) -> float:
    """Median seconds of `recu --help`, from launch to end."""
    seconds = []
    for _ in range(repeats):
        started = CLOCKS[clock]()
        subprocess.run([sys.executable, "-m", "recu", "--help"], capture_output=True, check=True)
        seconds.append(CLOCKS[clock]() - started)
    return statistics.median(seconds)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has held at most: resident ones, or on a GPU those of tensors."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident_peak()


def synchroniser(device: torch.device) -> Callable[[], None]:
    """What waits for the device; on a CPU nothing has to be waited for."""
    import torch

    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
