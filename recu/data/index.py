"""Where the images of a dataset with storage "files" lie: a list of paths and labels for each split."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recu.errors import DataError
from recu.files import atomic_write_json, atomic_write_text

ROOT_NAME = "files.json"
HERE = "."
"""Root of images that lie in the prepared folder itself."""


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """One image file."""

    class_name: str
    path: str
    """Relative to the index's root, with "/" between parts."""
    size: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class FileIndex:
    """Images of one split in label order, then name order."""

    root: Path
    paths: tuple[str, ...]
    labels: NDArray[np.int64]


def write_index(out: Path, root: str, classes: tuple[str, ...], splits: dict[str, list[IndexedFile]]) -> dict[str, str]:
    """Write the index into `out` and return a SHA-256 of each split.

    Args:
        out: existing folder.
        root: `HERE` or the absolute path of the folder the paths are relative to.
        classes: in label order.
        splits: files by split, in any order.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    digests = {}
    for split, files in splits.items():
        digest = hashlib.sha256("\n".join(classes).encode())
        ordered = sorted(files, key=lambda file: (label_of[file.class_name], file.path))
        for file in ordered:
            name = file.path.rpartition("/")[2]
            digest.update(f"\n{split}\t{file.class_name}\t{name}\t{file.size}".encode())
        labels = np.array([label_of[file.class_name] for file in ordered], dtype=np.int64)
        np.save(out / f"{split}_labels.npy", labels)
        atomic_write_text(out / f"{split}_files.txt", "".join(f"{file.path}\n" for file in ordered))
        digests[split] = digest.hexdigest()
    atomic_write_json(out / ROOT_NAME, {"root": root})
    return digests


def read_index(folder: Path, split: str) -> FileIndex:
    """The index of a split prepared with storage "files".

    Raises:
        DataError: the folder with the images is gone.
    """
    root = json.loads((folder / ROOT_NAME).read_text())["root"]
    place = folder if root == HERE else Path(root)
    if not place.is_dir():
        raise DataError(f"the images of {folder} lay in {place}, which does not exist; put it back or prepare again")
    paths = tuple((folder / f"{split}_files.txt").read_text().splitlines())
    return FileIndex(place, paths, np.load(folder / f"{split}_labels.npy", allow_pickle=False))
