"""What measuring the binary layers takes of an epoch. `python -m benchmarks.diagnostics`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.engines import CLASSES, FAMILY, LEARNING_RATE, MEAN, MOMENTUM, SEED, STD, WEIGHT_DECAY, random_images
from benchmarks.measure import synchroniser
from recu.base.files import atomic_write_text, canonical_json
from recu.data.load.memory import MemoryLoader
from recu.experiment.augmentations import BATCH_AUGMENTATIONS
from recu.models import build_model
from recu.results.records import EpochWeights
from recu.training import build_optimizer
from recu.training.checkpoint import read_checkpoint, write_checkpoint
from recu.training.device import choose_device, describe, place
from recu.training.diagnostics import WeightDiagnostics
from recu.training.evaluation import evaluate
from recu.training.loop import train_steps
from recu.training.seeding import make_deterministic
from recu.training.sums import RunningSums


def main() -> None:
    """Print one line of JSON a network: seconds, and the part of an epoch that the diagnostics take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["resnet20_1w1a", "resnet18_1w1a"])
    parser.add_argument("--images", type=int, default=1437, help="of an epoch (default: those of digits)")
    parser.add_argument("--test_images", type=int, default=360)
    parser.add_argument("-b", "--batch_size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=600, help="of the training at whose end is measured")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    make_deterministic()
    for model in arguments.models:
        print(json.dumps(_measured(model, arguments)))


def _measured(model: str, arguments: argparse.Namespace) -> dict[str, object]:
    device = choose_device(arguments.gpus)
    torch.manual_seed(SEED)
    network = place(build_model(model, family=FAMILY, num_classes=CLASSES), device)
    diagnostics, train_epoch = WeightDiagnostics(network), _epochs_of(network, arguments, device)
    first = diagnostics.measured(0, histograms=False)
    if first is None:
        sys.exit(f"error: {model} has no binary layer")
    seconds: dict[str, list[float]] = {"epoch": [], "measuring": [], "histograms": [], "writing": []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(arguments.repeats + 1):
            taken = _timed(
                {
                    "begin": diagnostics.begin,
                    "epoch": lambda repeat=repeat: train_epoch(repeat),
                    "measured": lambda repeat=repeat: diagnostics.measured(repeat, histograms=False),
                    "histograms": lambda repeat=repeat: diagnostics.measured(repeat, histograms=True),
                    "writing": lambda: _write(first, arguments.epochs, Path(folder)),
                },
                synchroniser(device),
            )
            if repeat:  # the first one compiles and allocates
                seconds["measuring"].append(taken["begin"] + taken["measured"])
                for name in ("epoch", "histograms", "writing"):
                    seconds[name].append(taken[name])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    share = (medians["measuring"] + medians["writing"]) / medians["epoch"]
    rounded = {f"{name}_s": round(value, 4) for name, value in medians.items()}
    return {"model": model, "device": describe(device)} | rounded | {"percent_of_epoch": round(100 * share, 2)}


def _timed(tasks: dict[str, Callable[[], object]], synchronise: Callable[[], None]) -> dict[str, float]:
    taken = {}
    for name, task in tasks.items():
        started = time.perf_counter()
        task()
        synchronise()
        taken[name] = time.perf_counter() - started
    return taken


def _epochs_of(network: nn.Module, arguments: argparse.Namespace, device: torch.device) -> Callable[[int], None]:
    """Training and evaluation of one epoch, by its number."""
    optimizer = build_optimizer(network, "sgd", LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, "all")
    seen = {"mean": MEAN, "std": STD, "batch_size": arguments.batch_size, "device": device}
    augmentation = BATCH_AUGMENTATIONS["crop_flip"]
    train = MemoryLoader(*random_images(arguments.images), seed=SEED, augmentation=augmentation, **seen)
    test = MemoryLoader(*random_images(arguments.test_images), seed=None, augmentation=None, **seen)

    def epoch(number: int) -> None:
        for _step in train_steps(network, train, optimizer, RunningSums(device), epoch=number):
            pass
        evaluate(network, test)

    return epoch


def _write(measured: EpochWeights, epochs: int, folder: Path) -> None:
    """What the diagnostics add to the files of an epoch: a line, a file of all lines, their part of a checkpoint."""
    line = canonical_json(measured.as_plain())
    lines = [f"{line} {number}" for number in range(epochs)]  # of equal texts a checkpoint would hold one
    atomic_write_text(folder / "diagnostics.jsonl", "".join(f"{each}\n" for each in lines))
    write_checkpoint(folder / "part.pth", {"state_dict": {"weight": torch.zeros(2, 2)}, "diagnostics": lines})
    read_checkpoint(folder / "part.pth")


if __name__ == "__main__":
    main()
