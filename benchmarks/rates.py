"""The rates that `recu plan` needs, measured on this machine for every network of suites; as a program, one network.

The program is started by `measure_suites`, once for each job that will run at the same time, so that jobs slow one
another down as they will in the workflow.
"""

from __future__ import annotations

import itertools
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recu.base.errors import RecuError
from recu.experiment.paths import BEST_CHECKPOINT, HISTORY, PROJECT_DIR
from recu.experiment.plan import Plan
from recu.experiment.rates import DeviceRates, Rate, setup_of
from recu.experiment.resolving import Experiment

if TYPE_CHECKING:
    import torch
    from torch import nn

    from recu.data.load.memory import MemoryLoader

_log = logging.getLogger(__name__)
_MEASURED = ("train_images_per_s", "test_images_per_s", "memory_bytes", "checkpoint_bytes")
_OVERHEAD_OF = ("--dataset", "digits", "--model", "resnet20_1w1a")


@dataclass(frozen=True, kw_only=True)
class RateSettings:
    """How to measure."""

    slots: int
    """Jobs side by side."""
    threads: int
    """Of each."""
    gpus: str
    seconds: float
    """Least time that each of training and evaluation is measured for."""


def measure_suites(plan: Plan, settings: RateSettings) -> DeviceRates:
    """The rates of every network that the plan trains.

    Images are random ones in memory, of the size and batch size of each training: decoding image files, of which only
    large images stay files, is not part of it.

    Raises:
        RecuError: a measuring process failed; its last line says why.
    """
    setups: dict[str, Experiment] = {}
    for experiment in plan.experiments.values():
        setups.setdefault(setup_of(experiment).model_dump_json(), experiment)
    rates, devices = [], set()
    for experiment in setups.values():
        _log.info("measuring %s", experiment.network)
        found = _side_by_side(_request(plan, experiment, settings), settings.slots)
        devices |= {each["device"] for each in found}
        measured = {name: statistics.fmean(each[name] for each in found) for name in _MEASURED}
        counts = {name: round(measured.pop(name)) for name in ("memory_bytes", "checkpoint_bytes")}
        rates.append(Rate(**setup_of(experiment).model_dump(), **measured, **counts))
    train_job_s, evaluate_job_s = _overheads(settings)
    return DeviceRates(
        device=" and ".join(sorted(devices)),
        slots=settings.slots,
        train_job_s=train_job_s,
        evaluate_job_s=evaluate_job_s,
        source=f"recu bench --suite {' '.join(plan.suites)}, {datetime.now(UTC):%Y-%m-%d}",
        rates=tuple(rates),
    )


def _request(plan: Plan, experiment: Experiment, settings: RateSettings) -> dict[str, Any]:
    teacher = None if experiment.teacher is None else plan.experiments.get(experiment.teacher.id)
    return {
        "experiment": experiment.canonical,
        "teacher": None if teacher is None else teacher.canonical,
        "threads": settings.threads,
        "gpus": settings.gpus,
        "seconds": settings.seconds,
    }


def _side_by_side(request: Mapping[str, Any], slots: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.rates", json.dumps(request)]
    processes = [
        subprocess.Popen(command, cwd=PROJECT_DIR, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(slots)
    ]
    outputs = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        if process.returncode:
            last = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise RecuError(f"measuring in a process of its own failed: {last}; fewer --jobs need less memory")
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def _overheads(settings: RateSettings) -> tuple[float, float]:
    """Seconds of a training job and of an evaluation job beyond their images, with as many at once as `slots`."""
    _log.info("measuring what a job takes beyond its images")
    with tempfile.TemporaryDirectory() as place:
        places = [Path(place, str(number)) for number in range(settings.slots)]
        run = ("--gpus", settings.gpus, "--threads", str(settings.threads), "--data_dir", f"{place}/data")
        _timed([["prepare", "digits", "--data_dir", f"{place}/data"]])
        trained = _timed(
            [
                "train",
                *_OVERHEAD_OF,
                *run,
                "--tracking_uri",
                f"sqlite:///{folder}.db",
                "--epochs",
                "1",
                "--save",
                str(folder),
            ]
            for folder in places
        )
        epochs = [json.loads((folder / HISTORY).read_text()) for folder in places]
        measured = [folder.with_suffix(".json") for folder in places]
        evaluated = _timed(
            ["evaluate", "-e", str(folder / BEST_CHECKPOINT), *run, "--output", str(file)]
            for folder, file in zip(places, measured, strict=True)
        )
        images = [json.loads(file.read_text())["n"] for file in measured]
    tested = [count / epoch["test_images_per_s"] for count, epoch in zip(images, epochs, strict=True)]
    return _beyond(trained, [epoch["seconds"] for epoch in epochs]), _beyond(evaluated, tested)


def _beyond(walls: Sequence[float], works: Sequence[float]) -> float:
    """Mean of what jobs took more than their work, in seconds."""
    return statistics.fmean(max(0.0, wall - work) for wall, work in zip(walls, works, strict=True))


def _timed(commands: Iterable[Sequence[str]]) -> list[float]:
    """Wall seconds of `recu` commands that begin together."""
    begun = time.perf_counter()
    processes = [
        subprocess.Popen([sys.executable, "-m", "recu", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for words in commands
    ]
    seconds = []
    for process in processes:
        _, errors = process.communicate()
        seconds.append(time.perf_counter() - begun)
        if process.returncode:
            raise RecuError(f"measuring a job failed: {errors.decode(errors='replace').strip().splitlines()[-1]}")
    return seconds


def main(text: str) -> None:
    """Measure what the JSON `text` asks for and print it as one line of JSON."""
    from benchmarks.measure import peak_memory, synchroniser
    from recu.experiment.resolving import parse_experiment
    from recu.stages.networks import build_network
    from recu.stages.train import use_threads
    from recu.training import build_optimizer
    from recu.training.device import choose_device, describe, place
    from recu.training.seeding import make_deterministic

    request = json.loads(text)
    experiment = parse_experiment(request["experiment"])
    recipe = experiment.hyperparameters
    use_threads(request["threads"])
    device = choose_device(request["gpus"])
    make_deterministic(compiles=recipe.compile is not None)
    teacher = None if experiment.teacher is None else place(_teacher(experiment, request["teacher"]), device)
    network = build_network(experiment)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    network = place(network, device, compile_as=recipe.compile)
    optimizer = build_optimizer(
        network, recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay, recipe.weight_decay_groups
    )
    synchronise = synchroniser(device)
    train_rate = _rate_of_training(
        network,
        teacher,
        optimizer,
        _images(experiment, recipe.batch_size, device),
        request["seconds"],
        synchronise,
        recipe.precision,
    )
    test_rate = _rate_of_evaluation(
        network, _images(experiment, recipe.batch_size_test, device, train=False), request["seconds"], synchronise
    )
    values = (train_rate, test_rate, peak_memory(device), weights)
    print(json.dumps(dict(zip(_MEASURED, values, strict=True)) | {"device": describe(device)}))


def _teacher(experiment: Experiment, teacher: str | None) -> nn.Module:
    """An untrained network of the teacher's form, as fast as the trained one."""
    from recu.experiment.resolving import parse_experiment
    from recu.stages.networks import build_network

    if teacher is not None:
        return build_network(parse_experiment(teacher)).eval()
    import torchvision

    name, classes = experiment.pretrained_teacher, experiment.data["num_classes"]
    return torchvision.models.get_model(name, weights=None, num_classes=classes).eval()


def _images(experiment: Experiment, batch_size: int, device: torch.device, *, train: bool = True) -> MemoryLoader:
    import torch

    from recu.data.load.memory import MemoryLoader
    from recu.experiment.augmentations import BATCH_AUGMENTATIONS

    size, classes, seed = experiment.data["image_size"], experiment.data["num_classes"], experiment.seed
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2 * batch_size, size, size, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, classes, (len(images),), generator=generator)
    return MemoryLoader(
        images,
        labels,
        mean=tuple(experiment.data["mean"]),
        std=tuple(experiment.data["std"]),
        batch_size=batch_size,
        device=device,
        seed=seed if train else None,
        augmentation=BATCH_AUGMENTATIONS.get(experiment.data["augmentation"]) if train else None,
    )


def _rate_of_training(
    network: nn.Module,
    teacher: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    images: MemoryLoader,
    seconds: float,
    synchronise: Any,
    precision: str,
) -> float:
    from recu.training.loop import train_steps
    from recu.training.sums import RunningSums

    sums = RunningSums(next(network.parameters()).device)
    seen = begun = 0.0
    for epoch in itertools.count():
        for _ in train_steps(network, images, optimizer, sums, epoch=epoch, teacher=teacher, precision=precision):
            synchronise()
            now = time.perf_counter()
            if not begun:  # the first step compiles, and makes the optimiser's momenta
                begun, seen = now, sums.n
            elif now - begun >= seconds:
                return (sums.n - seen) / (now - begun)
    raise AssertionError("itertools.count ends never")


def _rate_of_evaluation(network: nn.Module, images: MemoryLoader, seconds: float, synchronise: Any) -> float:
    from recu.training.evaluation import evaluate

    evaluate(network, images)
    synchronise()
    begun, seen = time.perf_counter(), 0
    while True:
        evaluate(network, images)
        synchronise()
        seen += images.num_images
        if time.perf_counter() - begun >= seconds:
            return seen / (time.perf_counter() - begun)


if __name__ == "__main__":
    main(sys.argv[1])
