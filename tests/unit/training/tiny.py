"""A network, loaders and a trainer that take milliseconds and are real: binary convolution, shuffling, resuming."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from recu.experiment.running import Running
from recu.experiment.schema import Hyperparameters
from recu.nn import BinaryConv2d
from recu.results.records import Provenance
from recu.training.device import place
from recu.training.position import Validity
from recu.training.processes import ALONE, Processes
from recu.training.seeding import make_deterministic, seed_everything
from recu.training.trainer import Identity, Trainer

CPU = torch.device("cpu")
RECIPE = {
    "epochs": 3,
    "batch_size": 8,
    "batch_size_test": 5,
    "optimizer": "sgd",
    "lr": 0.1,
    "lr_type": "cos",
    "lr_decay_step": (),
    "warm_up": False,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "weight_decay_groups": "all",
    "tau_min": 0.85,
    "tau_max": 0.99,
    "stage": 2,
    "init_from": None,
    "teacher": None,
    "augmentation": None,
    "loader": "memory",
    "skip_unreadable": False,
    "precision": "fp32",
    "compile": None,
}


class TinyNet(nn.Module):
    def __init__(self, classes: int = 10, *, shortcut: bool = True) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = BinaryConv2d(4, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.hardtanh(self.bn1(self.conv1(images)))
        convolved = self.bn2(self.conv2(hidden))
        return self.linear((convolved + hidden if self.shortcut else convolved).mean(dim=(2, 3)))


@dataclass
class TinyLoader:
    """Images drawn from the epoch and the batch's number, as the real loaders do."""

    num_images: int = 26
    batch_size: int = 8
    training: bool = True
    classes: int = 10
    pause: float = 0.0
    skipped: int = 0
    poison: tuple[int, int] | None = None
    """Epoch and step whose images are not finite."""
    asked: list[tuple[int, int]] = field(default_factory=list)

    @property
    def num_batches(self) -> int:
        return -(-self.num_images // self.batch_size)

    def batches(self, epoch: int, start: int = 0):
        self.asked.append((epoch, start))
        for step in range(start, self.num_batches):
            time.sleep(self.pause)
            count = min(self.batch_size, self.num_images - step * self.batch_size)
            generator = torch.Generator().manual_seed(1000 * epoch + step if self.training else 7 + step)
            images = torch.randn(count, 3, 6, 6, generator=generator)
            labels = torch.randint(0, self.classes, (count,), generator=generator)
            if self.poison == (epoch, step):
                images[0] = torch.nan
            yield images, labels


class TinyLoaders(NamedTuple):
    train: TinyLoader
    test: TinyLoader


def tiny_loaders(**train) -> TinyLoaders:
    return TinyLoaders(TinyLoader(**train), TinyLoader(num_images=17, batch_size=5, training=False))


def after_each_epoch(trainer: Trainer, action: Callable[[dict], object]) -> Trainer:
    """The trainer, which calls `action` with each new row once its epoch is saved."""
    train_epoch = trainer._epoch

    def epoch(stop, progress):
        row = train_epoch(stop, progress)
        action(row)
        return row

    trainer._epoch = epoch
    return trainer


def tiny_trainer(
    folder: Path,
    loaders: TinyLoaders | None = None,
    *,
    start_epoch: int = 0,
    save_every_seconds: float = 600,
    print_freq: int = 2,
    teacher: nn.Module | None = None,
    shortcut: bool = True,
    identity: dict | None = None,
    processes: Processes = ALONE,
    running: Running | None = None,
    **recipe,
) -> Trainer:
    make_deterministic()
    seed_everything(3)
    return Trainer(
        # Each of several processes would load the compiled loops for itself, for longer than it trains.
        place(TinyNet(shortcut=shortcut), CPU, kernels="auto" if processes.count == 1 else "off"),
        loaders or tiny_loaders(),
        Hyperparameters(**(RECIPE | recipe)),
        tiny_identity(loaders or tiny_loaders(), **identity or {}),
        folder,
        device=CPU,
        teacher=teacher,
        running=running or Running(print_freq=print_freq, save_minutes=save_every_seconds / 60, bar=False),
        start_epoch=start_epoch,
        processes=processes,
    )


def tiny_validity(loaders: TinyLoaders) -> Validity:
    return Validity(
        batch_size=loaders.train.batch_size,
        seed=3,
        augmentation="none",
        loader="memory",
        skip_unreadable=False,
        data_fingerprint="d" * 64,
        num_images=loaders.train.num_images,
        recipe={"lr": 0.1},
    )


def tiny_provenance(code: str = "c" * 64) -> Provenance:
    return Provenance(
        device="CPU",
        platform="Linux x86_64",
        created="2026-11-20T10:00:00+00:00",
        git_commit=None,
        git_dirty=None,
        packages={},
        code_hash=code,
        environment_hash="e" * 16,
    )


def tiny_identity(loaders: TinyLoaders, **changes) -> Identity:
    identity = Identity(
        model="tiny",
        experiment="{}",
        spec_hash="s" * 16,
        data_fingerprint="d" * 64,
        classes=tuple("abcdef"),
        seed=3,
        validity=tiny_validity(loaders),
        provenance=tiny_provenance(),
    )
    return replace(identity, **changes)


def never() -> bool:
    return False


class StopAfter:
    """A stop request that becomes true when it is asked for the n-th time."""

    reason = "SIGTERM"

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def same(first, second) -> bool:
    """Equal to the last bit, through dicts, lists and tensors."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return first == second
