"""Trainings in float32: the fast engine reaches what the plain reference reaches, within the noise of the seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reference import build_reference
from recu.binarisers.recu import tau_at
from recu.data.load.memory import MemoryLoader
from recu.data.prepare.digits import load_digits_arrays
from recu.experiment.augmentations import BATCH_AUGMENTATIONS
from recu.experiment.schedules import learning_rate_at
from recu.models import build_model
from recu.nn import set_tau
from recu.training.device import place
from recu.training.evaluation import evaluate
from recu.training.loop import train_steps
from recu.training.sums import RunningSums

CPU = torch.device("cpu")
EPOCHS, LEARNING_RATE, BATCH = 5, 0.05, 32
STATISTICS = {"mean": (0.306,) * 3, "std": (0.324,) * 3}


def loaders(seed: int) -> tuple[MemoryLoader, MemoryLoader]:
    splits = {name: tuple(map(torch.from_numpy, arrays)) for name, arrays in load_digits_arrays(32).items()}
    crop = BATCH_AUGMENTATIONS["crop"]
    common = {**STATISTICS, "device": CPU}
    return (
        MemoryLoader(*splits["train"], batch_size=BATCH, seed=seed, augmentation=crop, **common),
        MemoryLoader(*splits["test"], batch_size=128, seed=None, augmentation=None, **common),
    )


def train(seed: int, model: nn.Module, set_quantile: Callable[[float], object], epoch_of: Callable[..., None]) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=5e-4)
    loader, _ = loaders(seed)
    for epoch in range(EPOCHS):
        set_quantile(tau_at(epoch, EPOCHS, 0.85, 0.99))
        rate = learning_rate_at(epoch, epochs=EPOCHS, lr=LEARNING_RATE, lr_type="cos", warm_up=False, lr_decay_step=())
        optimizer.param_groups[0]["lr"] = rate
        epoch_of(model, loader, optimizer, epoch)


def shipped_epoch(model: nn.Module, loader: MemoryLoader, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    for _step in train_steps(model, loader, optimizer, RunningSums(CPU), epoch=epoch):
        pass


def plain_epoch(model: nn.Module, loader: MemoryLoader, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    model.train()
    for images, labels in loader.batches(epoch):
        optimizer.zero_grad()
        F.cross_entropy(model(images.contiguous()), labels).backward()
        optimizer.step()


def shipped_top1(seed: int, initial: dict[str, Tensor]) -> float:
    model = build_model("resnet20_1w1a", family="cifar", num_classes=10)
    model.load_state_dict(initial)
    model = place(model, CPU)
    train(seed, model, lambda tau: set_tau(model, tau), shipped_epoch)
    return evaluate(model, loaders(seed)[1]).top1


@torch.no_grad()
def plain_hits(model: nn.Module, loader: MemoryLoader) -> int:
    model.eval()
    return sum(int((model(images.contiguous()).argmax(1) == labels).sum()) for images, labels in loader.batches(0))


def plain_top1(seed: int, initial: dict[str, Tensor]) -> float:
    model = build_reference("resnet20_1w1a", family="cifar", num_classes=10)
    model.load_state_dict(initial)

    def set_quantile(tau: float) -> None:
        for name, buffer in model.named_buffers():
            if name.endswith("tau"):
                buffer.fill_(tau)

    train(seed, model, set_quantile, plain_epoch)
    loader = loaders(seed)[1]
    return 100.0 * plain_hits(model, loader) / loader.num_images


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_resnet20_on_digits_learns_as_well_as_with_the_plain_reference() -> None:
    shipped, plain = [], []
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        initial = build_model("resnet20_1w1a", family="cifar", num_classes=10).state_dict()
        shipped.append(shipped_top1(seed, initial))
        plain.append(plain_top1(seed, initial))
    print(f"top-1 by seed: shipped {shipped}, reference {plain}")
    # Two standard errors of the difference of the means, and never less than two of the 360 test images.
    error = math.sqrt((statistics.variance(shipped) + statistics.variance(plain)) / len(shipped))
    assert abs(statistics.fmean(shipped) - statistics.fmean(plain)) <= max(2 * error, 100 * 2 / 360)
    assert min(shipped) > 85.0
