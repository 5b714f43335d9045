"""The loader for small images: all stay in memory, augmentation runs on whole batches on the training device."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from recu.data.load.augmentation import crop_flip, draw_crop_flip, normalise
from recu.data.load.loader import WHOLE, Share, count_batches
from recu.data.load.randomness import generator_for, shuffled_order
from recu.data.manifest import Prepared
from recu.data.opening import open_arrays
from recu.experiment.schema import BatchAugmentation


class MemoryLoader:
    """Batches out of uint8 arrays; see `recu.data.load.loader.Loader`.

    On the CPU the arrays stay memory-mapped and are shared by all jobs of the machine; on a GPU they are moved there
    once, so that an epoch needs no transfer but that of its random draws.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        batch_size: int,
        device: torch.device,
        seed: int | None,
        augmentation: BatchAugmentation | None,
        check: Callable[[], None] = lambda: None,
        share: Share = WHOLE,
    ) -> None:
        """A loader of one split.

        Args:
            images: uint8 (N, S, S, 3), contiguous.
            labels: int64 (N,).
            mean: per channel, of pixel values in [0, 1].
            std: likewise.
            batch_size: images a batch.
            device: where batches are made.
            seed: decides order and augmentation; None keeps the stored order.
            augmentation: None where images are to stay as they are; needs a seed.
            check: called before and after each batch is read; raises where the images are no longer what they were.
                (What was cut off a mapped file ends the process that reads it.)
            share: of this process.
        """
        if augmentation is not None and seed is None:
            raise ValueError("augmentation needs a seed")
        self.num_images = len(labels)
        self.batch_size = batch_size
        self._share = share
        self.skipped = 0
        self._device = device
        self._images = images.to(device)
        self._labels = labels.to(device)
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device)
        self._std = torch.tensor(std, dtype=torch.float32, device=device)
        self._seed = seed
        self._augmentation = augmentation
        self._check = check

    @property
    def num_batches(self) -> int:
        """Batches of one epoch, the last short one included."""
        return count_batches(self.num_images, self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """See `recu.data.load.loader.Loader.batches`."""
        order = None if self._seed is None else shuffled_order(self.num_images, self._seed, epoch).to(self._device)
        # All draws of the epoch in one transfer: a GPU would otherwise wait for the host at every batch.
        augmentation, seed = self._augmentation, self._seed
        draws = None
        if augmentation is not None and seed is not None:
            draws = self._draws(augmentation, seed, epoch, start).to(self._device)
        first = start * self.batch_size
        share = self._share.batches if order is None else self._share.parts
        for part in share(self.num_images, self.batch_size, start):
            begin, end = part.start, part.stop
            self._check()
            if order is None:
                images, labels = self._images[begin:end], self._labels[begin:end]
            else:
                size = self._images.shape[1:]
                images = self._images.flatten(1).index_select(0, order[begin:end]).view(len(part), *size)
                labels = self._labels.index_select(0, order[begin:end])
            if augmentation is not None and draws is not None and len(part):
                images = crop_flip(images, draws[begin - first : end - first], augmentation.padding)
            batch = normalise(images, self._mean, self._std)
            self._check()
            yield batch, labels

    def _draws(self, augmentation: BatchAugmentation, seed: int, epoch: int, start: int) -> Tensor:
        """Draws for the images of batches `start` and following, each batch from its own generator."""
        draws = [torch.empty(0, 3, dtype=torch.int64)]
        for batch in range(start, self.num_batches):
            count = min(self.batch_size, self.num_images - batch * self.batch_size)
            generator = generator_for("augmentation", seed, epoch, batch)
            draws.append(draw_crop_flip(count, augmentation, generator))
        return torch.cat(draws)


def load_arrays(prepared: Prepared, split: str) -> tuple[Tensor, Tensor, Callable[[], None]]:
    """Images (N, S, S, 3) uint8, memory-mapped, and labels (N,) int64 of a split prepared with storage "arrays".

    The third is to be called before and after images are read: it raises AlteredData where somebody wrote into their
    file or cut it off.

    Raises:
        DataError: see `recu.data.opening.open_arrays`.
    """
    images, labels, file = open_arrays(prepared, split)
    return torch.from_numpy(images), torch.from_numpy(labels), file.check
