"""The loader that results on large images stand on: torchvision decodes and augments one by one in worker processes."""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from recu.base.errors import AlteredData, ConfigError, DataError, RecuError, StalledError
from recu.data.index import FileIndex
from recu.data.load.augmentation import normalise
from recu.data.load.loader import WHOLE, Share, count_batches
from recu.data.load.randomness import derive_seed, shuffled_order
from recu.data.load.transforms import augment, decode, evaluation_view
from recu.experiment.schema import TestView

_LOG = logging.getLogger(__name__)

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


def unusable(name: str, error: Exception) -> DataError:
    """What went wrong while an image was read, decoded or viewed, in one line that names the image."""
    if isinstance(error, AlteredData):
        return error
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RecuError):
        return DataError(reason if name in str(error) else f"image {name}: {reason}")
    return DataError(f"cannot use image {name} ({type(error).__name__}: {reason[:200]}); replace it or move it away")


@dataclass(frozen=True, slots=True)
class View:
    """What becomes of an image before normalisation."""

    augmentation: str
    """Of training images."""
    test_view: TestView
    """Of test images, whatever the augmentation."""
    size: int
    """Side of the network's input in pixels."""
    seed: int | None
    """None shows test images."""

    def of(self, image: Tensor, epoch: int, index: int) -> Tensor:
        """uint8 (3, size, size); draws depend on seed, epoch and the image's number alone."""
        if self.seed is None:
            return evaluation_view(image, self.test_view, self.size)
        return augment(image, self.augmentation, self.size, image_generator(self.seed, epoch, index))


def image_generator(seed: int, epoch: int, index: int) -> random.Random:
    """The generator of one image's draws in one epoch."""
    return random.Random(derive_seed("image", seed, epoch, index))


def epoch_order(num_images: int, seed: int | None, epoch: int) -> list[int]:
    """Image numbers in the order of the epoch: shuffled with a seed, as stored without."""
    return list(range(num_images)) if seed is None else shuffled_order(num_images, seed, epoch).tolist()


class TorchvisionLoader:
    """Batches of images read one by one; see `recu.data.load.loader.Loader`."""

    def __init__(
        self,
        images: Images,
        view: View,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        batch_size: int,
        device: torch.device,
        workers: int,
        skip_unreadable: bool = False,
        check: Callable[[], None] = lambda: None,
        share: Share = WHOLE,
    ) -> None:
        """A loader of one split.

        Args:
            images: where they come from.
            view: what becomes of each.
            mean: per channel, of pixel values in [0, 1].
            std: likewise.
            batch_size: images a batch.
            device: where batches are delivered; normalisation happens there.
            workers: processes that read, decode and augment; 0 does it in this one.
            skip_unreadable: leave out images that cannot be read, with a warning, instead of stopping.
            check: as of `recu.data.load.memory.MemoryLoader`.
            share: of this process.

        Raises:
            ConfigError: the workers' batches do not fit into shared memory.
        """
        self.num_images = len(images.labels)
        self.batch_size = batch_size
        self._share = share
        self.skipped = 0
        self._samples = _Samples(images, view)
        self._seed, self._size = view.seed, view.size
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device)
        self._std = torch.tensor(std, dtype=torch.float32, device=device)
        self._device = device
        self._workers = workers
        self._skip_unreadable = skip_unreadable
        self._check = check
        _check_shared_memory(workers, min(batch_size, self.num_images), self.num_batches, view.size)

    @property
    def num_batches(self) -> int:
        """Batches of one epoch, the last short one included."""
        return count_batches(self.num_images, self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """See `recu.data.load.loader.Loader.batches`."""
        self.skipped = 0
        order = epoch_order(self.num_images, self._seed, epoch)
        share = self._share.batches if self._seed is None else self._share.parts
        loader = DataLoader(
            self._samples,
            batch_sampler=[
                [(epoch, order[place]) for place in part] for part in share(self.num_images, self.batch_size, start)
            ],
            num_workers=self._workers,
            prefetch_factor=_PREFETCH if self._workers else None,
            collate_fn=_collate,
            worker_init_fn=_leave_signals_to_the_parent if self._workers else None,
            pin_memory=self._device.type == "cuda",
            # Its own generator: the default one would be advanced, and with it the network's random numbers.
            generator=torch.Generator(),
            timeout=PATIENCE_S if self._workers else 0,
        )
        self._check()
        for images, labels, failures in _guarded(loader):
            self._note(failures)
            self._check()
            if len(labels):
                images = images.to(self._device, non_blocking=True)
                yield normalise(images, self._mean, self._std), labels.to(self._device, non_blocking=True)
            else:  # every image of the batch is unreadable
                yield torch.empty(0, 3, self._size, self._size, device=self._device), labels.to(self._device)
            self._check()

    def _note(self, failures: list[DataError]) -> None:
        for error in failures:
            if not self._skip_unreadable or isinstance(error, AlteredData):
                raise error
            _LOG.warning("skipped: %s", error)
            self.skipped += 1


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

    def __init__(self, images: Images, view: View) -> None:
        self._images = images
        self._view = view

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor] | _Unreadable:
        epoch, index = key
        try:
            view = self._view.of(self._images.read(index), epoch, index)
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


def _leave_signals_to_the_parent(_worker: int) -> None:
    # Forked workers inherit the trainer's handlers; Ctrl-C reaches the whole group, but only the trainer is to act
    # on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # So may a launcher's or a scheduler's SIGTERM. Whoever ends these processes for good sends it again.
    signal.signal(signal.SIGTERM, lambda number, _frame: signal.signal(number, signal.SIG_DFL))
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
