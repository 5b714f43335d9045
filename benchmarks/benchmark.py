"""What `recu bench` measures, and in which order."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import image_files, measure
from benchmarks.engines import (
    CLASSES,
    DATASET,
    ENGINES,
    FAMILY,
    IMAGE_SIZE,
    build_input,
    check_model,
    random_images,
)
from benchmarks.process import STEPS
from benchmarks.table import render
from benchmarks.worker import Worker, worker
from recu.base.errors import ConfigError
from recu.stages.train import use_threads

if TYPE_CHECKING:
    import torch

__all__ = ["BenchSettings", "bench", "render"]

_log = logging.getLogger(__name__)

_PASSES_OF_TRAINING = 3
"""A training step convolves three times: forward, for the gradient of the input and for that of the weights."""
_TEST_MULTIPLICATIONS = 150_000_000_000
"""Of the test images together: what an evaluation prepares once must weigh as little as on a whole test split."""
_BATCHES_OF_INPUT = 8


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """How to measure."""

    models: tuple[str, ...]
    batch_size: int
    batch_size_test: int
    threads: int
    """0: torch's choice."""
    repeats: int
    seconds: float
    clock: str
    """A key of `benchmarks.measure.CLOCKS`."""
    gpus: str = "cpu"
    images: Path | None = None
    """Folder, tar or zip with class folders of JPEGs to measure the input of large images on."""
    workers: int = 0
    """Processes that read these images."""

    def __post_init__(self) -> None:
        lowest = {"batch_size": 2, "batch_size_test": 1, "threads": 0, "repeats": 1, "seconds": 0, "workers": 0}
        for name, least in lowest.items():
            value = getattr(self, name)
            if not least <= value < math.inf:  # so that "nan" is refused too
                raise ConfigError(f"--{name} is {value}, expected at least {least}")


def bench(settings: BenchSettings) -> dict[str, Any]:
    """Measure the input and every model, and return the numbers in the form that `recu bench --output` writes.

    Rates are images per second of the chosen clock, memory is bytes, start-up is seconds until the first batch is
    ready; every `ratio` is shipped / reference.

    Raises:
        ConfigError: unknown model, a setting out of range.
        DataError: `settings.images` holds no readable JPEGs in class folders.
        RecuError: a measuring process failed.
    """
    import torch

    from recu.training.device import choose_device, describe

    for model in settings.models:
        check_model(model)
    device = choose_device(settings.gpus)
    use_threads(settings.threads)
    clock, synchronise = measure.CLOCKS[settings.clock], measure.synchroniser(device)
    inputs = _measure_input(settings, device, synchronise)  # first: whether --images can be read shows at once
    _log.info("measuring the machine's matrix products on %s", describe(device))
    peak = measure.measure_peak_gflops(device, repeats=settings.repeats, clock=clock, synchronise=synchronise)
    result: dict[str, Any] = {
        "machine": {
            "gflops_fp32": peak,
            "threads": torch.get_num_threads(),
            "device": describe(device),
            "clock": settings.clock,
            "torch": torch.__version__,
        },
        "settings": {
            "batch_size": settings.batch_size,
            "batch_size_test": settings.batch_size_test,
            "repeats": settings.repeats,
            "seconds": settings.seconds,
            "workers": settings.workers,
        },
        "start_up": {"help": measure.measure_help(settings.clock, repeats=settings.repeats)},
        "input": inputs,
        "models": {},
    }
    for model in settings.models:
        result["models"][model] = _measure_model(model, settings)
        training = result["models"][model]["train"]
        training["fraction_of_peak"] = training["shipped"] * _training_operations(model) / (peak * 1e9)
    return result


def _measure_input(
    settings: BenchSettings, device: torch.device, synchronise: Callable[[], None]
) -> dict[str, dict[str, float]]:
    count = _BATCHES_OF_INPUT * settings.batch_size
    large = (
        {} if settings.images is None else _measure_image_files(settings.images, count, settings, device, synchronise)
    )
    _log.info("measuring the input of %s", DATASET)
    tasks = {engine: build_input(engine, random_images(count), settings.batch_size, device) for engine in ENGINES}
    return {DATASET: measure.compare(**_rates(tasks, settings, synchronise)), **large}


def _measure_image_files(
    source: Path, count: int, settings: BenchSettings, device: torch.device, synchronise: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """Of `count` images in training and in evaluation; "dali" and "dali_ratio" where DALI is installed."""
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        index = image_files.extract_images(source, Path(folder), count)
        for name, train in ((image_files.DATASET, True), (f"{image_files.DATASET}_evaluate", False)):
            _log.info("measuring the input of %s", name)
            batch_size = settings.batch_size if train else settings.batch_size_test
            tasks = image_files.build_inputs(
                index, train=train, batch_size=batch_size, workers=settings.workers, device=device
            )
            rates = _rates(tasks, settings, synchronise)
            measured[name] = measure.compare(rates["reference"], rates["shipped"])
            if "dali" in rates:
                measured[name] |= {"dali": rates["dali"], "dali_ratio": rates["dali"] / rates["reference"]}
    return measured


def _measure_model(model: str, settings: BenchSettings) -> dict[str, Any]:
    _log.info("measuring %s: memory and start-up", model)
    own = {engine: _memory_and_start_up(engine, model, settings) for engine in ENGINES}
    measured: dict[str, Any] = {
        name: measure.compare(**{engine: values[name] for engine, values in own.items()})
        for name in ("memory", "start_up")
    }
    test_batches = _TEST_MULTIPLICATIONS // (_multiplications(model) * settings.batch_size_test)
    sizes = {
        "train": _BATCHES_OF_INPUT * settings.batch_size,
        "test": max(1, test_batches) * settings.batch_size_test,
        "batch_size_test": settings.batch_size_test,
    }
    with ExitStack() as stack:
        processes = {engine: stack.enter_context(_process(engine, model, settings, sizes)) for engine in ENGINES}
        for process in processes.values():
            process.answer()
        for task in ("train", "evaluate"):
            _log.info("measuring %s: %s", model, task)
            measured[task] = measure.compare(**_rates_of_processes(processes, task, settings))
    return measured


def _memory_and_start_up(engine: str, model: str, settings: BenchSettings) -> dict[str, float]:
    """Of a training, in a process that does nothing else: a peak cannot be reset, and start-up happens once."""
    count = STEPS * settings.batch_size
    sizes = {"train": count, "test": count, "batch_size_test": settings.batch_size}
    with _process(engine, model, settings, sizes) as process:
        started = process.answer()
        for _ in range(STEPS):
            process.ask("train")
        return started | process.ask("memory")


def _process(
    engine: str, model: str, settings: BenchSettings, sizes: Mapping[str, int]
) -> AbstractContextManager[Worker]:
    return worker(
        "benchmarks.process",
        {
            "engine": engine,
            "model": model,
            "batch_size": settings.batch_size,
            "threads": _threads(),
            "gpus": settings.gpus,
            "clock": settings.clock,
            "launched": time.time(),
            **sizes,
        },
        name=f"{model} ({engine})",
        advice="see its message above; a smaller --batch_size needs less memory",
    )


def _rates_of_processes(processes: Mapping[str, Worker], task: str, settings: BenchSettings) -> dict[str, float]:
    """Images per second of a task in each process, in turns."""
    computed = 0.0

    def asked(process: Worker, word: str) -> int:
        nonlocal computed
        answer = process.ask(word)
        computed += answer["seconds"]
        return answer["images"]

    def wait() -> None:
        for process in processes.values():
            asked(process, "wait")

    return measure.measure_rates(
        {engine: partial(asked, process, task) for engine, process in processes.items()},
        repeats=settings.repeats,
        seconds=settings.seconds,
        clock=lambda: computed,
        synchronise=wait,
    )


def _rates(
    tasks: dict[str, Callable[[], int]], settings: BenchSettings, synchronise: Callable[[], None]
) -> dict[str, float]:
    return measure.measure_rates(
        tasks,
        repeats=settings.repeats,
        seconds=settings.seconds,
        clock=measure.CLOCKS[settings.clock],
        synchronise=synchronise,
    )


def _training_operations(model: str) -> int:
    """Additions and multiplications of training on one image, counted as direct convolutions."""
    return 2 * _PASSES_OF_TRAINING * _multiplications(model)


def _multiplications(model: str) -> int:
    """Of one image's forward pass."""
    import torch

    from recu.models import build_model
    from recu.models.cost import measure_cost

    with torch.device("meta"):
        cost = measure_cost(build_model(model, family=FAMILY, num_classes=CLASSES), IMAGE_SIZE)
    return cost.binary_operations + cost.floating_point_operations


def _threads() -> int:
    import torch

    return torch.get_num_threads()
