"""What a builder of one's own stored, compared with what readers of its dataset count on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recu.base.errors import ConfigError
from recu.data.opening import SPLITS
from recu.data.prepare.content import Content, Request
from recu.experiment.dataset_kinds import find_kind
from recu.experiment.fit import storage_of, stored_size_of


def check_stored(content: Any, request: Request, out: Path) -> Content:
    """What the builder gave back, if that and the arrays in `out` are as the dataset's entry has them.

    Args:
        content: what it gave back.
        request: what it was asked for.
        out: where it stored images.

    Raises:
        ConfigError: they are not.
    """
    for problem in _problems(content, request, out):
        raise ConfigError(f"dataset kind {request.dataset.kind!r} {problem}")
    return content


def _problems(content: Any, request: Request, out: Path) -> Iterator[str]:
    """Clauses whose subject is the kind; after the first, others need not make sense."""
    if not isinstance(content, Content):
        yield (
            f"gives a {type(content).__name__}, expected what `store_arrays`, `stored_arrays` or `stored_files` of"
            " recu.data.prepare.content gives: return that"
        )
    dataset = request.dataset
    if find_kind(dataset.kind).shipped and content.shipped_with is None:
        yield "is shipped and gives no `shipped_with`, expected the Source that brought the images"
    if not isinstance(content.classes, tuple) or not all(isinstance(name, str) for name in content.classes):
        yield f"gives classes {content.classes!r:.60}, expected a tuple of their names as text"
    if not set(request.needed) <= content.splits.keys() <= set(SPLITS):
        yield f"stores {_listed(content.splits) or 'no'} images, expected {_listed(request.needed)}"
    if content.storage != (storage := storage_of(dataset)):
        yield (
            f"keeps images as {content.storage}, expected {storage} with augmentation {dataset.augmentation!r}: set the"
            f" builder's `storage` to {content.storage!r}, or store {storage}"
        )
    for split, count in content.splits.items():
        yield from _problems_of_labels(out / f"{split}_labels.npy", split, count, dataset.num_classes)
        if storage == "arrays":
            yield from _problems_of_images(out / f"{split}_images.npy", split, count, stored_size_of(dataset))
    if content.stored_size != (side := stored_size_of(dataset)):
        yield f"says that its images have stored_size {content.stored_size}, expected {side}"


def _problems_of_labels(path: Path, split: str, count: int, num_classes: int) -> Iterator[str]:
    labels = _array(path)
    if labels is None:
        yield f"leaves no {path.name} that NumPy can read, expected an array of int64"
    elif labels.dtype != np.int64 or labels.shape != (count,):
        yield f"stores {split} labels as {labels.dtype} {labels.shape}, expected int64 {(count,)}, one for each image"
    elif not count:
        yield f"stores no {split} images, expected one or more"
    elif labels.min() < 0 or labels.max() >= num_classes:
        yield (
            f"stores {split} labels from {labels.min()} to {labels.max()}, expected 0 to {num_classes - 1} (num_classes"
            " - 1)"
        )


def _problems_of_images(path: Path, split: str, count: int, side: int | None) -> Iterator[str]:
    images, expected = _array(path), (count, side, side, 3)
    if images is None:
        yield f"leaves no {path.name} that NumPy can read, expected an array of uint8"
    elif images.dtype != np.uint8 or images.shape != expected:
        yield (
            f"stores {split} images as {images.dtype} {images.shape}, expected uint8 {expected}, grey levels from 0 to"
            " 255"
        )
    elif not images.flags.c_contiguous:
        yield f"stores {split} images in Fortran order, expected C order: save them by numpy.ascontiguousarray"


def _array(path: Path) -> NDArray[Any] | None:
    """The array in a file, mapped; None where there is none, or one that only unpickling would read."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None


def _listed(splits: Any) -> str:
    return " and ".join(splits)
