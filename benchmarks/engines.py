"""The two engines that are compared, each with the same three things to do: input, training, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from recu.base.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from recu.data.load.memory import MemoryLoader

FAMILY = "cifar"
DATASET = "cifar10"
CLASSES = 10
IMAGE_SIZE = 32
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
SEED = 1
ENGINES = ("reference", "shipped")


class Images(NamedTuple):
    """uint8 (N, S, S, 3) and labels (N,)."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What is measured of an engine. Each call does a piece of work and returns how many images went through it."""

    load: Callable[[], int]
    """One augmented training batch."""
    train: Callable[[], int]
    """One training step from input to metrics."""
    evaluate: Callable[[], int]
    """The whole test split, input and metrics included."""


def random_images(count: int) -> Images:
    """Images of CIFAR's shape with random content, on which no speed depends; the same ones each time."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    images = torch.randint(0, 256, (count, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=torch.uint8, generator=generator)
    return Images(images, torch.randint(0, CLASSES, (count,), generator=generator))


def check_model(model: str) -> None:
    """Raise ConfigError for a network that cannot be compared."""
    import torch

    from recu.models import build_model

    with torch.device("meta"):
        build_model(model, family=FAMILY, num_classes=CLASSES)
        _build_reference(model)


def build_engine(
    kind: str, model: str, *, train: Images, test: Images, batch_size: int, batch_size_test: int, device: torch.device
) -> Engine:
    """Build "reference" or "shipped", with its freshly initialised network, optimiser and loaders.

    Raises:
        ConfigError: no such network, or no reference for it.
    """
    import torch

    torch.manual_seed(SEED)
    build = {"reference": _build_reference_engine, "shipped": _build_shipped_engine}[kind]
    return build(model, train, test, batch_size, batch_size_test, device)


def build_input(kind: str, train: Images, batch_size: int, device: torch.device) -> Callable[[], int]:
    """`Engine.load` alone, without a network."""
    if kind == "reference":
        from benchmarks.reference.engine import build_loader

        plain = build_loader(*train, batch_size, train=True)
        return _endless(lambda _epoch: (len(labels) for _images, labels in plain)).__next__
    loader = _train_loader(train, batch_size, device)
    return _endless(lambda epoch: (len(labels) for _images, labels in loader.batches(epoch))).__next__


def _build_reference(model: str) -> nn.Module:
    from benchmarks.reference import build_reference

    try:
        return build_reference(model, family=FAMILY, num_classes=CLASSES)
    except KeyError as error:
        raise ConfigError(
            f"benchmarks/reference has no {FAMILY}.{model} to compare with: choose another of --models"
        ) from error


def _build_reference_engine(
    model: str, train: Images, test: Images, batch_size: int, batch_size_test: int, device: torch.device
) -> Engine:
    import torch

    from benchmarks.reference import engine

    network = _build_reference(model).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    train_loader = engine.build_loader(*train, batch_size, train=True)
    test_loader = engine.build_loader(*test, batch_size_test, train=False)
    training = _endless(lambda _epoch: engine.train_epoch(network, train_loader, optimizer, device))

    def evaluate() -> int:
        engine.evaluate(network, test_loader, device)
        return len(test.labels)

    load = build_input("reference", train, batch_size, device)
    return Engine(load=load, train=training.__next__, evaluate=evaluate)


def _build_shipped_engine(
    model: str, train: Images, test: Images, batch_size: int, batch_size_test: int, device: torch.device
) -> Engine:
    from recu.base.allocator import keep_freed_memory
    from recu.data.load.memory import MemoryLoader
    from recu.models import build_model
    from recu.training import build_optimizer
    from recu.training.device import place
    from recu.training.evaluation import evaluate as measure
    from recu.training.loop import train_steps
    from recu.training.seeding import make_deterministic
    from recu.training.sums import RunningSums

    make_deterministic()
    if device.type == "cpu":
        # As a training does.
        keep_freed_memory()
    network = place(build_model(model, family=FAMILY, num_classes=CLASSES), device)
    optimizer = build_optimizer(network, "sgd", LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, "all")
    train_loader = _train_loader(train, batch_size, device)
    test_loader = MemoryLoader(
        *test, mean=MEAN, std=STD, batch_size=batch_size_test, device=device, seed=None, augmentation=None
    )

    def train_epoch(epoch: int) -> Iterator[int]:
        sums, seen = RunningSums(device), 0
        for _step in train_steps(network, train_loader, optimizer, sums, epoch=epoch):
            yield sums.n - seen
            seen = sums.n

    def evaluate() -> int:
        measure(network, test_loader)
        return len(test.labels)

    load = build_input("shipped", train, batch_size, device)
    return Engine(load=load, train=_endless(train_epoch).__next__, evaluate=evaluate)


def _train_loader(train: Images, batch_size: int, device: torch.device) -> MemoryLoader:
    from recu.data.load.memory import MemoryLoader
    from recu.experiment.augmentations import BATCH_AUGMENTATIONS

    augmentation = BATCH_AUGMENTATIONS["crop_flip"]
    return MemoryLoader(
        *train, mean=MEAN, std=STD, batch_size=batch_size, device=device, seed=SEED, augmentation=augmentation
    )


def _endless(epoch: Callable[[int], Iterator[int]]) -> Iterator[int]:
    number = 0
    while True:
        yield from epoch(number)
        number += 1
