"""The loader for small images: all stay in memory, augmentation runs on whole batches on the training device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Unpack

import torch
from torch import Tensor

from recu.data.load.augmentation import crop_flip, draw_crop_flip
from recu.data.load.randomness import generator_for, shuffled_order
from recu.data.load.split_loader import Request, Settings, SplitLoader
from recu.data.manifest import Prepared
from recu.data.opening import open_arrays
from recu.experiment.augmentations import BATCH_AUGMENTATIONS, BatchAugmentation


def build(request: Request) -> MemoryLoader:
    """The loader of a split stored as arrays; a `recu.data.load.split_loader.Builder`."""
    images, labels, check = load_arrays(request.prepared, request.split)
    augmentation = BATCH_AUGMENTATIONS[request.dataset.augmentation] if request.trains else None
    return MemoryLoader(images, labels, augmentation=augmentation, check=check, **request.settings)


class MemoryLoader(SplitLoader):
    """Batches out of uint8 arrays; see `recu.data.load.loader.Loader`.

    On the CPU the arrays stay memory-mapped and are shared by all jobs of the machine; on a GPU they are moved there
    once, so that an epoch needs no transfer but that of its random draws.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        augmentation: BatchAugmentation | None,
        check: Callable[[], None] = lambda: None,
        **settings: Unpack[Settings],
    ) -> None:
        """A loader of one split.

        Args:
            images: uint8 (N, S, S, 3), contiguous.
            labels: int64 (N,).
            augmentation: None where images are to stay as they are; needs a seed.
            check: see `SplitLoader`.
            settings: likewise.
        """
        super().__init__(len(labels), check=check, **settings)
        if augmentation is not None and self._seed is None:
            raise ValueError("augmentation needs a seed")
        self._images = images.to(self._device)
        self._labels = labels.to(self._device)
        self._augmentation = augmentation

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """See `recu.data.load.loader.Loader.batches`."""
        order = None if self._seed is None else shuffled_order(self.num_images, self._seed, epoch).to(self._device)
        # All draws of the epoch in one transfer: a GPU would otherwise wait for the host at every batch.
        augmentation, seed = self._augmentation, self._seed
        draws = None
        if augmentation is not None and seed is not None:
            draws = self._draws(augmentation, seed, epoch, start).to(self._device)
        first = start * self.batch_size
        for part in self._parts(start):
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
            batch = self._normalised(images)
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
