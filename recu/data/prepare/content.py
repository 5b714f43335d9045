"""What the builder of a dataset kind is given and gives back, and the forms in which it stores images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recu.base.errors import DataError
from recu.base.files import hash_file
from recu.data.index import IndexedFile, write_index
from recu.data.manifest import Source, digest_of_arrays
from recu.experiment.dataset_kinds import Storage
from recu.experiment.schema import Dataset

RECORDS = "records"
"""Folder, inside the work folder, of what a preparation that can be continued has finished."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be prepared."""

    name: str
    dataset: Dataset
    source: Path | None
    """Archive or folder; None for what a library ships, or before the published archive was fetched."""
    workers: int
    """Decoding processes; 0 or 1 decodes in this one."""
    needed: tuple[str, ...]
    """Splits that must be there."""

    @property
    def path(self) -> Path:
        """The source, of a kind that has one."""
        if self.source is None:
            raise DataError(f"{self.name} has no source")
        return self.source


@dataclass(frozen=True, slots=True)
class Content:
    """What a builder left in the work folder."""

    classes: tuple[str, ...]
    """In label order."""
    splits: dict[str, int]
    """Images by split."""
    digests: dict[str, str]
    """SHA-256 by split; see `recu.data.manifest.Manifest.content`."""
    stored_size: int | None
    """Side in pixels; None where files keep their own sizes."""
    storage: Storage = "arrays"
    notes: tuple[str, ...] = ()
    """What was left out or changed, in sentences."""
    shipped_with: Source | None = None
    """Of a kind that has no source: what brought the images."""

    def overlap(self, out: Path) -> Iterator[str]:
        """A note where test images are among the training images, which a network may know by heart."""
        if not {"train", "test"} <= set(self.splits):
            return
        train, test = (self._images(out, split) for split in ("train", "test"))
        if count := int(np.isin(test, train).sum()):
            yield f"test images that are training images too: {count} of {len(test)}"

    def _images(self, out: Path, split: str) -> NDArray[np.uint64]:
        """Eight bytes of a hash of each image."""
        if self.storage == "files":
            return np.load(out / f"{split}_hashes.npy")[:, :8].copy().view(np.uint64).ravel()
        images = np.load(out / f"{split}_images.npy", mmap_mode="r")
        digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
        return np.frombuffer(b"".join(digests), np.uint64)


Builder = Callable[[Request, Path], Content]
"""Writes the images of a request into an empty folder. Raises DataError: its source is not of the expected form."""


def store_arrays(
    classes: tuple[str, ...],
    splits: Mapping[str, tuple[NDArray[np.uint8], NDArray[np.int64]]],
    out: Path,
    *,
    notes: tuple[str, ...] = (),
    shipped_with: Source | None = None,
) -> Content:
    """Write images (N, side, side, 3) and labels (N,) of each split into `out`."""
    for split, (images, _) in splits.items():
        # Readers map the file as rows of pixels, which an array in Fortran order would not be.
        np.save(out / f"{split}_images.npy", np.ascontiguousarray(images))
    labels = {split: labels for split, (_, labels) in splits.items()}
    side = max((side for images, _ in splits.values() for side in images.shape[1:2]), default=0)
    return stored_arrays(classes, labels, out, side=side, notes=notes, shipped_with=shipped_with)


def stored_arrays(
    classes: tuple[str, ...],
    labels: Mapping[str, NDArray[np.int64]],
    out: Path,
    *,
    side: int,
    notes: tuple[str, ...] = (),
    shipped_with: Source | None = None,
) -> Content:
    """Write labels (N,) of each split beside its images, which lie in out/<split>_images.npy."""
    labels = {split: _as_int64(of_split) for split, of_split in labels.items()}
    digests = {}
    for split, of_split in labels.items():
        np.save(out / f"{split}_labels.npy", of_split)
        digests[split] = digest_of_arrays(
            classes, *(hash_file(out / f"{split}_{part}.npy") for part in ("images", "labels"))
        )
    counts = {split: len(of_split) for split, of_split in labels.items()}
    return Content(classes, counts, digests, side, notes=notes, shipped_with=shipped_with)


def _as_int64(labels: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers of any width as readers expect them; anything else as it is, for the check to name."""
    return np.atleast_1d(labels.astype(np.int64) if labels.dtype.kind in "iu" else labels)


def stored_files(
    classes: tuple[str, ...],
    splits: Mapping[str, list[IndexedFile]],
    out: Path,
    *,
    root: str,
    notes: tuple[str, ...] = (),
) -> Content:
    """List the image files of each split in `out`; `root` is where their paths begin, as for `write_index`."""
    digests = write_index(out, root, classes, splits)
    return Content(classes, {split: len(files) for split, files in splits.items()}, digests, None, "files", notes)
