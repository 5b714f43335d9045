"""What the engine asks of an input pipeline, whichever library is behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from recu.data.manifest import Manifest

if TYPE_CHECKING:
    from torch import Tensor


class Loader(Protocol):
    """Batches of one split.

    A loader keeps no random state: what `batches(epoch, start)` yields depends on its seed, the epoch and the
    batch's number alone, so training continued at any batch sees the images it would have seen without the
    interruption.
    """

    num_images: int
    """Images of the split; one epoch yields each exactly once."""
    batch_size: int
    """Images of every batch but the last, which may be shorter."""

    skipped: int
    """Images left out of the latest epoch because they cannot be read; always 0 unless skipping was asked for."""

    @property
    def num_batches(self) -> int:
        """Batches of one epoch, the last short one included."""
        ...

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches number `start` and following of the epoch: images (B, 3, S, S) float32, normalised, and labels (B,)
        int64, both on the loader's device.

        Every batch comes, so that its place tells its number: one that lost unreadable images is shorter, and empty
        where it lost all.

        Training loaders shuffle and augment; test loaders yield the images as they are, in order, whatever the epoch.

        Raises:
            DataError: an image cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Loaders:
    """The splits of a dataset that were asked for, and what they were made from."""

    train: Loader | None
    """None where only the test split was asked for."""
    test: Loader
    manifest: Manifest


def count_batches(num_images: int, batch_size: int) -> int:
    """Batches of an epoch that keeps its last short batch."""
    return -(-num_images // batch_size)
