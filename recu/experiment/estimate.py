"""What trainings will take: images, seconds, memory and disk, from measured rates. Pure.

Not counted are downloads and preparing data, and what waits for a person.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter

from recu.experiment.rates import DeviceRates, setup_of
from recu.experiment.resolving import Experiment
from recu.experiment.schema import Dataset


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training or evaluation that is to be done."""

    id: str
    after: tuple[str, ...]
    """Jobs that must have ended; those that are done already are left out."""
    images: int | None
    """To see, in training and in the evaluation of each epoch; None where the dataset's size is not known."""
    seconds: float | None
    """None where no rate is known."""
    memory_bytes: int | None = None
    disk_bytes: int | None = None

    def without(self, done: Collection[str]) -> Job:
        """The same once these jobs have ended."""
        return replace(self, after=tuple(job for job in self.after if job not in done))


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What all jobs together take; None where any of them is not known."""

    images: float | None
    device_seconds: float | None
    """Of all jobs, one after another."""
    wall_seconds: float | None
    """On the given number of slots."""
    critical_path: tuple[str, ...]
    """The chain of jobs that takes longest, which no number of devices shortens; empty where nothing is known."""
    critical_seconds: float | None
    memory_bytes: int | None
    """Of as many of the largest trainings as run at once; None where none is left: nobody measured evaluations."""
    disk_bytes: float | None
    """Of the checkpoints that trainings keep; None where none is left."""


def jobs_of(
    experiments: Iterable[Experiment],
    datasets: Mapping[str, Dataset],
    sizes: Mapping[str, tuple[int | None, int | None]],
    rates: DeviceRates | None,
) -> dict[str, Job]:
    """The training and the evaluation of each experiment, by id.

    Args:
        experiments: what is to be trained, parents before children.
        datasets: their datasets, by name.
        sizes: by dataset, training and test images where another number than the entry's is known.
        rates: of the device; None for images alone.
    """
    jobs: dict[str, Job] = {}
    for experiment in experiments:
        dataset, recipe = datasets[experiment.dataset], experiment.hyperparameters
        train_images, test_images = sizes.get(experiment.dataset, (dataset.train_images, dataset.test_images))
        rate = None if rates is None else rates.rate_of(setup_of(experiment))
        seconds = images = None
        if train_images is not None and test_images is not None:
            images = recipe.epochs * (train_images + test_images)
            if rate is not None and rates is not None:
                epoch_s = train_images / rate.train_images_per_s + test_images / rate.test_images_per_s
                seconds = recipe.epochs * epoch_s + rates.train_job_s
        evaluation_s = None
        if rate is not None and rates is not None and test_images is not None:
            evaluation_s = test_images / rate.test_images_per_s + rates.evaluate_job_s
        train, evaluate = f"train {experiment.id}", f"evaluate {experiment.id}"
        jobs[train] = Job(
            id=train,
            after=tuple(job for job in (f"train {parent.id}" for parent in experiment.parents) if job in jobs),
            images=images,
            seconds=seconds,
            memory_bytes=None if rate is None else rate.memory_bytes,
            disk_bytes=None if rate is None else rate.checkpoint_bytes,
        )
        jobs[evaluate] = Job(id=evaluate, after=(train,), images=test_images, seconds=evaluation_s, disk_bytes=0)
    return jobs


def estimate(jobs: Mapping[str, Job], slots: int) -> Estimate:
    """What these jobs take on so many slots.

    Each begins, in the order given, once its parents are done and a slot is free.
    """
    known = all(job.seconds is not None for job in jobs.values())
    path = _critical_path(jobs) if known else ()
    memory = sorted((job.memory_bytes or 0 for job in jobs.values()), reverse=True)
    trained = [job for job in jobs.values() if job.id.startswith("train ")]
    measured = all(job.memory_bytes is not None for job in trained)
    return Estimate(
        images=_total(job.images for job in jobs.values()),
        device_seconds=_total(job.seconds for job in jobs.values()),
        wall_seconds=_wall_seconds(jobs, slots) if known else None,
        critical_path=path,
        critical_seconds=sum(jobs[name].seconds or 0.0 for name in path) if known else None,
        memory_bytes=sum(memory[:slots]) if trained and measured else None,
        disk_bytes=_total(job.disk_bytes for job in jobs.values()) if trained else None,
    )


def duration(seconds: float | None) -> str:
    """Seconds as people say them; "?" for None."""
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 100:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if hours < 100 else f"{hours / 24:.1f} days"


def _total(values: Iterable[float | None]) -> float | None:
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _critical_path(jobs: Mapping[str, Job]) -> tuple[str, ...]:
    ends: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for name in TopologicalSorter({job.id: job.after for job in jobs.values()}).static_order():
        before[name] = max(jobs[name].after, key=ends.__getitem__, default=None)
        previous = before[name]
        ends[name] = (jobs[name].seconds or 0.0) + (0.0 if previous is None else ends[previous])
    path: list[str] = []
    step = max(ends, key=ends.__getitem__, default=None)
    while step is not None:
        path.append(step)
        step = before[step]
    return tuple(reversed(path))


def _wall_seconds(jobs: Mapping[str, Job], slots: int) -> float:
    sorter = TopologicalSorter({job.id: job.after for job in jobs.values()})
    sorter.prepare()
    order = {name: place for place, name in enumerate(jobs)}
    ready: list[tuple[int, str]] = []
    running: list[tuple[float, str]] = []
    now = 0.0
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready, (order[name], name))
        while ready and len(running) < slots:
            _, name = heapq.heappop(ready)
            heapq.heappush(running, (now + (jobs[name].seconds or 0.0), name))
        now, name = heapq.heappop(running)
        sorter.done(name)
    return now
