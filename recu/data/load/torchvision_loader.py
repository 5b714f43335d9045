"""The loader that results on large images stand on: torchvision decodes and augments one by one in worker processes."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, Unpack

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from recu.base.errors import ConfigError, DataError, StalledError
from recu.data.decoding import unusable
from recu.data.index import FileIndex
from recu.data.load.memory import load_arrays
from recu.data.load.randomness import derive_seed
from recu.data.load.split_loader import Request, Settings, SplitLoader
from recu.data.load.transforms import augment, decode, evaluation_view
from recu.data.opening import open_index
from recu.experiment.own import look_beside, looks_beside
from recu.experiment.schema import TestView

PATIENCE_S = 600
"""The longest that a batch may take its worker: a network folder may come back after minutes, a hung one never."""


_PREFETCH = 2
"""Batches that each worker makes ahead."""
_SHARED_MEMORY = Path("/dev/shm")
_LESS_SHARED_MEMORY = (
    "give --workers 0, fewer workers or a smaller batch, or the container more (docker run --shm-size=1g)"
)


class Images(Protocol):
    """Where a split's images come from."""

    labels: Tensor
    """(N,) int64."""

    def name(self, index: int) -> str:
        """What messages call image number `index`."""
        ...

    def read(self, index: int) -> Tensor:
        """Image number `index` as uint8 (3, H, W).

        Raises:
            DataError: it cannot be read; the message names it.
        """
        ...


class FileImages:
    """Images in files of their own."""

    def __init__(self, index: FileIndex) -> None:
        self.labels = torch.from_numpy(index.labels)
        self._index = index

    def name(self, index: int) -> str:
        """See `Images.name`."""
        return str(self._index.path(index))

    def read(self, index: int) -> Tensor:
        """See `Images.read`."""
        return decode(self._index.read(index), self.name(index))


class ArrayImages:
    """Images decoded before, e.g. TinyImageNet's."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.labels = labels
        self._images = images

    def name(self, index: int) -> str:
        """See `Images.name`."""
        return f"number {index} of the prepared data"

    def read(self, index: int) -> Tensor:
        """See `Images.read`."""
        return self._images[index].permute(2, 0, 1)


@dataclass(frozen=True, slots=True)
class View:
    """What becomes of an image before normalisation."""

    augmentation: str
    """Of training images."""
    test_view: TestView
    """Of test images, whatever the augmentation."""
    size: int
    """Side of the network's input in pixels."""

    def of(self, image: Tensor, generator: random.Random | None) -> Tensor:
        """uint8 (3, size, size); `generator` draws the augmentation, None shows a test image."""
        if generator is None:
            return evaluation_view(image, self.test_view, self.size)
        return augment(image, self.augmentation, self.size, generator)


def image_generator(seed: int, epoch: int, index: int) -> random.Random:
    """The generator of one image's draws in one epoch."""
    return random.Random(derive_seed("image", seed, epoch, index))


def build(request: Request) -> TorchvisionLoader:
    """The loader of a split stored either way; a `recu.data.load.split_loader.Builder`."""
    dataset = request.dataset
    view = View(dataset.augmentation, dataset.seen_as, dataset.image_size)
    if request.prepared.manifest.storage == "files":
        return TorchvisionLoader(FileImages(open_index(request.prepared, request.split)), view, **request.settings)
    images, labels, check = load_arrays(request.prepared, request.split)
    return TorchvisionLoader(ArrayImages(images, labels), view, check=check, **request.settings)


class TorchvisionLoader(SplitLoader):
    """Batches of images read one by one; see `recu.data.load.loader.Loader`."""

    def __init__(
        self, images: Images, view: View, *, check: Callable[[], None] = lambda: None, **settings: Unpack[Settings]
    ) -> None:
        """A loader of one split.

        Args:
            images: where they come from.
            view: what becomes of each.
            check: see `SplitLoader`.
            settings: likewise; `workers` are processes.

        Raises:
            ConfigError: the workers' batches do not fit into shared memory.
        """
        super().__init__(len(images.labels), check=check, **settings)
        self._samples = _Samples(images, view, self._seed)
        self._size = view.size
        _check_shared_memory(self._workers, min(self.batch_size, self.num_images), self.num_batches, view.size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """See `recu.data.load.loader.Loader.batches`."""
        self.skipped = 0
        loader = DataLoader(
            self._samples,
            batch_sampler=[[(epoch, number) for number in batch] for batch in self._numbers(epoch, start)],
            num_workers=self._workers,
            prefetch_factor=_PREFETCH if self._workers else None,
            collate_fn=_collate,
            worker_init_fn=partial(_begin_worker, looks_beside()) if self._workers else None,
            pin_memory=self._device.type == "cuda",
            # Its own generator: the default one would be advanced, and with it the network's random numbers.
            generator=torch.Generator(),
            timeout=PATIENCE_S if self._workers else 0,
        )
        self._check()
        for images, labels, failures in _guarded(loader):
            for error in failures:
                self._note(error)
            self._check()
            if len(labels):
                images = images.to(self._device, non_blocking=True)
                yield self._normalised(images), labels.to(self._device, non_blocking=True)
            else:  # every image of the batch is unreadable
                yield self._nothing(self._size)
            self._check()


def _check_shared_memory(workers: int, batch_size: int, num_batches: int, size: int) -> None:
    """Workers hand their batches over in shared memory; where it is too small they die, or wait for ever.

    Args:
        workers: processes; 0 needs none.
        batch_size: images a batch.
        num_batches: of one epoch.
        size: side of an image in pixels.

    Raises:
        ConfigError: too little is free.
    """
    if not workers or not _SHARED_MEMORY.is_dir():
        return
    batches = min(workers * _PREFETCH + 1, num_batches)  # one more is with the network
    needed = batches * batch_size * (3 * size * size + 8)
    status = os.statvfs(_SHARED_MEMORY)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise ConfigError(
            f"{_SHARED_MEMORY} has {_mib(free)} free, but {workers} loader processes keep {batches} batches of"
            f" {batch_size} images there, {_mib(needed)}: {_LESS_SHARED_MEMORY}"
        )


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.2f} MiB"


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """In place of an unreadable image: an exception that is raised would lose its line on its way to the parent."""

    error: DataError


class _Samples(Dataset):
    """Image (S, S, 3) uint8 and label by (epoch, image number)."""

    def __init__(self, images: Images, view: View, seed: int | None) -> None:
        self._images, self._view, self._seed = images, view, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor] | _Unreadable:
        epoch, index = key
        try:
            generator = None if self._seed is None else image_generator(self._seed, epoch, index)
            view = self._view.of(self._images.read(index), generator)
        except Exception as error:  # whatever it is, only here it is known which image it was
            return _Unreadable(unusable(self._images.name(index), error))
        return view.permute(1, 2, 0).contiguous(), self._images.labels[index]


def _collate(samples: list[tuple[Tensor, Tensor] | _Unreadable]) -> tuple[Tensor, Tensor, list[DataError]]:
    """Batch (B, S, S, 3), labels (B,) and the errors of images that could not be read."""
    failures = [sample.error for sample in samples if isinstance(sample, _Unreadable)]
    readable = [sample for sample in samples if not isinstance(sample, _Unreadable)]
    if not readable:
        return torch.empty(0, 0, 0, 3, dtype=torch.uint8), torch.empty(0, dtype=torch.int64), failures
    images, labels = map(torch.stack, zip(*readable, strict=True))
    if get_worker_info() is not None:
        # Here, where a want of shared memory is an error; the thread that sends the batch would only print it.
        images, labels = images.share_memory_(), labels.share_memory_()
    return images, labels, failures


def _guarded(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor, list[DataError]]]:
    """The loader's batches, with one line in place of a traceback where a worker hangs or was killed."""
    batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            # All else that goes wrong in a worker comes back as `_Unreadable`.
            text = " ".join(str(error).split())
            if "DataLoader" not in text:
                raise
            if "shared memory" in text:
                raise ConfigError(f"{_SHARED_MEMORY} is full: {_LESS_SHARED_MEMORY}") from error
            raise StalledError(
                f"the loader's worker processes gave no batch ({text}): see whether the disk with the images answers"
                " and memory is left, then run the same command again; fewer --workers take less memory"
            ) from error
        yield batch


def _begin_worker(params_dir: Path | None, _worker: int) -> None:
    # A worker that is no fork has to be told where an augmentation of one's own is.
    look_beside(params_dir)
    _leave_signals_to_the_parent()


def _leave_signals_to_the_parent() -> None:
    # Forked workers inherit the trainer's handlers; Ctrl-C reaches the whole group, but only the trainer is to act
    # on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # So may a launcher's or a scheduler's SIGTERM. Whoever ends these processes for good sends it again.
    signal.signal(signal.SIGTERM, lambda number, _frame: signal.signal(number, signal.SIG_DFL))
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
