"""What every loader has in common: what it is given, which images each of its batches holds, and what counts as one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NotRequired, TypedDict, Unpack

import torch
from torch import Tensor

from recu.base.errors import AlteredData, DataError
from recu.data.load.augmentation import normalise
from recu.data.load.loader import WHOLE, Loader, Share
from recu.data.load.randomness import shuffled_order
from recu.data.manifest import Prepared
from recu.experiment.schema import Dataset

_LOG = logging.getLogger(__name__)


class Settings(TypedDict):
    """How a loader delivers, as keywords of its constructor."""

    mean: tuple[float, float, float]
    """Per channel, of pixel values in [0, 1]."""
    std: tuple[float, float, float]
    """Likewise."""
    batch_size: int
    """Images a batch; those of all processes together."""
    device: torch.device
    """Where batches are delivered."""
    seed: int | None
    """Decides order and augmentation of training images; None gives the test views, in stored order."""
    workers: NotRequired[int]
    """Processes or threads that read and decode; 0 where this process does it."""
    skip_unreadable: NotRequired[bool]
    """Leave out images that cannot be read, with a warning, instead of stopping."""
    share: NotRequired[Share]
    """Of this process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The split of which a loader is wanted."""

    prepared: Prepared
    dataset: Dataset
    """Its entry, with the training's augmentation."""
    split: str
    settings: Settings

    @property
    def trains(self) -> bool:
        """Whether its images are shuffled and augmented."""
        return self.settings["seed"] is not None


Builder = Callable[[Request], Loader]


class SplitLoader:
    """Base of the loaders; what derives from it adds `batches`, see `recu.data.load.loader.Loader`.

    Args:
        num_images: of the split.
        check: to be called before and after each batch is read; raises where the images are no longer what they were.
            (What was cut off a mapped file ends the process that reads it.)
        settings: as `Settings`.
    """

    def __init__(self, num_images: int, *, check: Callable[[], None] = lambda: None, **settings: Unpack[Settings]):
        self.num_images, self.batch_size = num_images, settings["batch_size"]
        self.skipped = 0
        self._seed, self._device = settings["seed"], settings["device"]
        self._workers, self._share = settings.get("workers", 0), settings.get("share", WHOLE)
        self._skip_unreadable = settings.get("skip_unreadable", False)
        self._check = check
        self._mean, self._std = (
            torch.tensor(settings[name], dtype=torch.float32, device=self._device) for name in ("mean", "std")
        )

    @property
    def num_batches(self) -> int:
        """Batches of one epoch, the last short one included."""
        return -(-self.num_images // self.batch_size)

    def _parts(self, start: int) -> list[range]:
        """This process's places in the order of an epoch, for each of its batches from number `start` on."""
        share = self._share.batches if self._seed is None else self._share.parts
        return share(self.num_images, self.batch_size, start)

    def _numbers(self, epoch: int, start: int) -> Iterator[list[int]]:
        """The same as image numbers."""
        count, seed = self.num_images, self._seed
        order = range(count) if seed is None else shuffled_order(count, seed, epoch).tolist()
        return ([order[place] for place in part] for part in self._parts(start))

    def _normalised(self, images: Tensor) -> Tensor:
        """uint8 (B, S, S, 3) on the loader's device to the float32 (B, 3, S, S) of a batch."""
        return normalise(images, self._mean, self._std)

    def _nothing(self, size: int) -> tuple[Tensor, Tensor]:
        """A batch whose every image, of `size` pixels a side, is unreadable."""
        images = torch.empty(0, 3, size, size, device=self._device)
        return images, torch.empty(0, dtype=torch.int64, device=self._device)

    def _note(self, error: DataError) -> None:
        """Count an image that is unreadable. Raises the error where such images are not to be skipped."""
        if not self._skip_unreadable or isinstance(error, AlteredData):
            raise error
        _LOG.warning("skipped: %s", error)
        self.skipped += 1
