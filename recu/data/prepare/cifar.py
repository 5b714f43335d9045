"""CIFAR-10 and CIFAR-100 from the official Python archives (Krizhevsky, 2009), unpickled without running anything."""

from __future__ import annotations

import hashlib
import importlib
import io
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recu.base.errors import DataError
from recu.data.prepare.archives import iter_members
from recu.data.prepare.class_tree import TEST_IS_ENOUGH, more
from recu.data.prepare.content import Content, Request, store_arrays
from recu.experiment.dataset_kinds import KINDS

_NUMPY_FUNCTIONS = (
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
)
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
    md5: dict[str, str]
    """Of each part, as torchvision publishes them."""


_LAYOUTS = {
    "cifar10": _Layout(
        KINDS["cifar10"].extracts_to,
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        "batches.meta",
        "labels",
        "label_names",
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        },
    ),
    "cifar100": _Layout(
        KINDS["cifar100"].extracts_to,
        ("train",),
        ("test",),
        "meta",
        "fine_labels",
        "fine_label_names",
        {
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
    ),
}


@dataclass(frozen=True, slots=True)
class CifarArrays:
    """Decoded content of an official archive."""

    classes: tuple[str, ...]
    splits: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 of "train" and "test", in the archive's order."""
    notes: tuple[str, ...] = ()
    """What could not be checked, in sentences."""


def build(request: Request, out: Path) -> Content:
    """Store the images as they are; a `recu.data.prepare.content.Builder`."""
    content = load_cifar_arrays(request.path, request.dataset.kind, needed=request.needed)
    return store_arrays(content.classes, content.splits, out, notes=content.notes)


def load_cifar_arrays(source: Path, kind: str, needed: Iterable[str] = ("train", "test")) -> CifarArrays:
    """Read an official archive, or the folder it extracts to (or that folder's parent).

    Args:
        source: archive or folder.
        kind: "cifar10" or "cifar100".
        needed: splits that must be there; another one is left out unless it is there as a whole.

    Raises:
        DataError: a part is missing, damaged, or holds other types than the official files.
    """
    layout = _LAYOUTS[kind]
    parts_of = {"train": layout.train, "test": layout.test}
    contents, notes = _read_parts(source, layout, [part for split in needed for part in parts_of[split]])
    classes = _class_names(contents[layout.meta], layout, source)
    batches = {
        part: _batch(contents[part], part, layout, len(classes), source)
        for part in sorted(set(contents) - {layout.meta})
    }
    _refuse_copies(batches, source)
    splits = {
        split: _join([batches[part] for part in parts])
        for split, parts in parts_of.items()
        if set(parts) <= set(contents)
    }
    return CifarArrays(classes, splits, notes)


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
        # The functions that rebuild an array or a number, of protocols up to 4 and of 5, under old and new names.
        place = module.replace("numpy.core.", "numpy._core.")
        if (place, name) in _NUMPY_FUNCTIONS:
            return getattr(importlib.import_module(place), name)
        if (module, name) == ("_codecs", "encode"):  # bytes, as Python 3 writes them for Python 2
            return _encode
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no official file does")


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding}, which no official file does")
    return text.encode(encoding)


def _read_parts(source: Path, layout: _Layout, needed: Iterable[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Content of every part by name, and what is to be noted."""
    parts = {*layout.train, *layout.test, layout.meta}

    def wanted(name: str) -> bool:
        path = PurePosixPath(name)
        return path.name in parts and path.parent.name in ("", layout.folder)

    contents: dict[str, Any] = {}
    digests: dict[str, str] = {}
    for member in iter_members(source, wanted):
        if member.is_folder or not wanted(member.name):
            continue
        part = PurePosixPath(member.name).name
        if part in digests:
            raise DataError(f"{source} holds {part} twice, the second as {member.name}; keep one of them")
        digests[part] = hashlib.md5(member.data, usedforsecurity=False).hexdigest()
        try:
            contents[part] = _with_text_keys(safe_unpickle(member.data))
        except pickle.UnpicklingError as error:
            raise DataError(
                f"{source}: cannot read {member.name}: {error}; fetch the official archive again"
            ) from error
    missing = sorted({*needed, layout.meta} - set(contents))
    if missing:
        enough = TEST_IS_ENOUGH if set(layout.test) <= set(contents) else ""
        raise DataError(f"{source} lacks {', '.join(missing)}; expected the parts of {layout.folder}{enough}")
    return contents, _compare_with_published(digests, layout, source)


def _compare_with_published(digests: dict[str, str], layout: _Layout, source: Path) -> tuple[str, ...]:
    """A note where the parts were written anew by another program, so that no published checksum is of them.

    Raises:
        DataError: some parts are the published ones and others are not: those were altered.
    """
    other = sorted(part for part, digest in digests.items() if digest != layout.md5[part])
    if not other:
        return ()
    if len(other) < len(digests):
        raise DataError(
            f"{source}: {other[0]}{more(other)} is not the published file (MD5 {digests[other[0]]}, expected"
            f" {layout.md5[other[0]]}), though others are: it is damaged; fetch the official archive again"
        )
    return (f"not checked: {layout.folder} was written anew by another program, and no checksum of that is published",)


def _with_text_keys(content: Any) -> Any:
    """A part with text for its keys: Python 3 reads and writes them as bytes where it was told so."""
    if not isinstance(content, dict):
        return content
    named = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    if len(named) < len(content):
        raise pickle.UnpicklingError("it has a key both as text and as bytes")
    return named


def _class_names(meta: Any, layout: _Layout, source: Path) -> tuple[str, ...]:
    names = meta.get(layout.classes_key) if isinstance(meta, dict) else None
    if isinstance(names, np.ndarray):
        names = names.tolist()
    if isinstance(names, list | tuple):
        names = [name.decode("latin1") if isinstance(name, bytes) else name for name in names]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{source}: {layout.meta} has no list of names {layout.classes_key!r}")
    if len(set(names)) != len(names):
        raise DataError(f"{source}: {layout.meta} names a class twice; fetch the official archive again")
    return tuple(names)


def _batch(
    content: Any, part: str, layout: _Layout, num_classes: int, source: Path
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data = content.get("data") if isinstance(content, dict) else None
    labels = content.get(layout.labels_key) if isinstance(content, dict) else None
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * _PIXELS:
        raise DataError(f"{source}: {part} has no uint8 array 'data' of {3 * _PIXELS} columns")
    labels = _integers(labels)
    if labels is None or len(labels) != len(data):
        raise DataError(
            f"{source}: {part} has no list {layout.labels_key!r} with one label for each of {len(data)} images"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise DataError(f"{source}: {part} has labels outside 0..{num_classes - 1}")
    images = data.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels


def _refuse_copies(batches: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]], source: Path) -> None:
    """Raise DataError where two parts hold the same images: one is a copy under the other's name."""
    known: dict[bytes, str] = {}
    for part, (images, _) in batches.items():
        other = known.setdefault(hashlib.sha256(images.tobytes()).digest(), part)
        if other != part and len(images):
            raise DataError(f"{source}: {part} holds the images of {other}; fetch the official archive again")


def _integers(values: Any) -> NDArray[np.int64] | None:
    """A list, tuple or array (N,) of whole numbers as int64; None for anything else."""
    if isinstance(values, list | tuple):
        if not all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in values):
            return None
        return np.array([int(value) if abs(int(value)) < 1 << 62 else -1 for value in values], dtype=np.int64)
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu":
        return values.astype(np.int64)
    return None


def _join(
    batches: list[tuple[NDArray[np.uint8], NDArray[np.int64]]],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])
