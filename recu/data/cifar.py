"""CIFAR-10 and CIFAR-100 from the official Python archives (Krizhevsky, 2009), unpickled without running anything."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recu.data.archives import iter_members
from recu.errors import DataError

_SIDE = 32
_PIXELS = _SIDE * _SIDE


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where an official archive keeps its parts."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels_key: str
    classes_key: str


_LAYOUTS = {
    "cifar10": _Layout(
        "cifar-10-batches-py",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        "batches.meta",
        "labels",
        "label_names",
    ),
    "cifar100": _Layout("cifar-100-python", ("train",), ("test",), "meta", "fine_labels", "fine_label_names"),
}


@dataclass(frozen=True, slots=True)
class CifarArrays:
    """Decoded content of an official archive."""

    classes: tuple[str, ...]
    splits: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 of "train" and "test", in the archive's order."""


def load_cifar_arrays(source: Path, kind: Literal["cifar10", "cifar100"]) -> CifarArrays:
    """Read an official archive, or the folder it extracts to (or that folder's parent).

    Raises:
        DataError: a part is missing, damaged, or holds other types than the official files.
    """
    layout = _LAYOUTS[kind]
    contents = _read_parts(source, layout)
    classes = _class_names(contents[layout.meta], layout, source)
    splits = {
        split: _join([_batch(contents[part], part, layout, len(classes), source) for part in parts])
        for split, parts in (("train", layout.train), ("test", layout.test))
    }
    return CifarArrays(classes, splits)


def official_folder(source: Path, kind: Literal["cifar10", "cifar100"]) -> Path:
    """The folder with the extracted parts: `source` itself or the official folder below it."""
    below = source / _LAYOUTS[kind].folder
    return below if below.is_dir() else source


def safe_unpickle(data: bytes) -> Any:
    """Unpickle plain containers, text, numbers and NumPy arrays; nothing else is ever called.

    Raises:
        pickle.UnpicklingError: the data is damaged or names any other type or function.
    """
    try:
        # The official files were written by Python 2, whose text is read as latin-1.
        return _RestrictedUnpickler(io.BytesIO(data), encoding="latin1").load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # damaged pickles raise nearly anything: EOFError, KeyError, ValueError, ...
        raise pickle.UnpicklingError(f"damaged pickle: {error}") from error


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            from numpy._core.multiarray import _reconstruct

            return _reconstruct
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no official file does")


def _read_parts(source: Path, layout: _Layout) -> dict[str, Any]:
    parts = {*layout.train, *layout.test, layout.meta}

    def wanted(name: str) -> bool:
        path = PurePosixPath(name)
        return path.name in parts and path.parent.name in ("", layout.folder)

    contents: dict[str, Any] = {}
    for member in iter_members(source, wanted):
        if member.is_folder or not wanted(member.name):
            continue
        try:
            contents[PurePosixPath(member.name).name] = safe_unpickle(member.data)
        except pickle.UnpicklingError as error:
            raise DataError(
                f"{source}: cannot read {member.name}: {error}; fetch the official archive again"
            ) from error
    missing = sorted(parts - set(contents))
    if missing:
        raise DataError(f"{source} lacks {', '.join(missing)}; expected the parts of {layout.folder}")
    return contents


def _class_names(meta: Any, layout: _Layout, source: Path) -> tuple[str, ...]:
    names = meta.get(layout.classes_key) if isinstance(meta, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{source}: {layout.meta} has no list of names {layout.classes_key!r}")
    return tuple(names)


def _batch(
    content: Any, part: str, layout: _Layout, num_classes: int, source: Path
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data = content.get("data") if isinstance(content, dict) else None
    labels = content.get(layout.labels_key) if isinstance(content, dict) else None
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * _PIXELS:
        raise DataError(f"{source}: {part} has no uint8 array 'data' of {3 * _PIXELS} columns")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise DataError(
            f"{source}: {part} has no list {layout.labels_key!r} with one label for each of {len(data)} images"
        )
    if not all(isinstance(label, int) and 0 <= label < num_classes for label in labels):
        raise DataError(f"{source}: {part} has labels outside 0..{num_classes - 1}")
    images = data.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.asarray(labels, dtype=np.int64)


def _join(
    batches: list[tuple[NDArray[np.uint8], NDArray[np.int64]]],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])
