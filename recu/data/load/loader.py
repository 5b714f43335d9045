"""What the engine asks of an input pipeline, whichever library is behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from recu.data.manifest import Manifest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Share:
    """What of a split comes to one of several processes that train or evaluate a network together.

    In training each batch is cut into consecutive parts as `DataParallel` cuts it (`torch.chunk`): of ceil(n /
    processes) images, the last ones smaller or empty. A test batch stays whole, so that its numbers are those of one
    process.
    """

    rank: int = 0
    processes: int = 1

    def part(self, count: int) -> range:
        """Which of a batch's `count` images."""
        size = -(-count // self.processes)
        return range(min(self.rank * size, count), min((self.rank + 1) * size, count))

    def parts(self, num_images: int, batch_size: int, start: int) -> list[range]:
        """This process's places in the order of an epoch, for batch number `start` and each one after it."""
        begins = range(start * batch_size, num_images, batch_size)
        parts = ((begin, self.part(min(batch_size, num_images - begin))) for begin in begins)
        return [range(begin + part.start, begin + part.stop) for begin, part in parts]

    def batches(self, num_images: int, batch_size: int, start: int) -> list[range]:
        """The same where whole batches are shared out: of those from `start` on, every `processes`-th."""
        begins = range((start + self.rank) * batch_size, num_images, self.processes * batch_size)
        return [range(begin, min(begin + batch_size, num_images)) for begin in begins]


WHOLE = Share()
"""Everything, for a process that is alone."""


class Loader(Protocol):
    """Batches of one split, or one process's share of each (training) or of them (test).

    A loader keeps no random state: what `batches(epoch, start)` yields depends on its seed, the epoch and the
    batch's number alone, so training continued at any batch sees the images it would have seen without the
    interruption.
    """

    num_images: int
    """Images of the split; one epoch yields each exactly once."""
    batch_size: int
    """Images of every batch but the last, which may be shorter; those of all processes together."""

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
        where it lost all. Of a shared split come the process's parts of every training batch, perhaps empty, and every
        test batch that is the process's.

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
