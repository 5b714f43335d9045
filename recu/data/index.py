"""Images that stay files: for each split a list of their paths, labels and content.

Paths end with a NUL, the only character that no file name can hold; names that are not UTF-8 keep their bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recu.base.errors import AlteredData, DataError, OutputError
from recu.base.files import atomic_write_bytes, atomic_write_json, canonical_json
from recu.data.stamps import hash_images, same_stamp, stamp_of

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
    """Images of one split in label order, then path order."""

    root: Path
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    hashes: NDArray[np.uint8]
    """(N, 32): SHA-256 of each file."""
    stamps: NDArray[np.int64]
    """(N, 4): how each looked when it was hashed; see `recu.data.stamps.Stamp`."""

    def path(self, number: int) -> Path:
        """Where an image lies."""
        return self.root / self.paths[number]

    def read(self, number: int) -> bytes:
        """Content of an image file, which is what was prepared.

        Raises:
            AlteredData: it is another content.
            DataError: it cannot be read.
        """
        path = self.path(number)
        try:
            with path.open("rb") as stream:
                data = stream.read()
                # Afterwards, so that what was written while it was read shows too.
                stamp = stamp_of(os.fstat(stream.fileno()))
        except FileNotFoundError as error:
            raise AlteredData(f"{path} is gone: put it back, or prepare the dataset again") from error
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}; prepare the dataset again") from error
        if same_stamp(stamp, self.stamps[number]):
            return data
        if hashlib.sha256(data).digest() != self.hashes[number].tobytes():
            raise AlteredData(
                f"{path} is no longer the image that was prepared: put it back, or prepare the dataset again"
            )
        return data


def index_files(root: Path, paths: tuple[str, ...], labels: NDArray[np.int64], *, title: str) -> FileIndex:
    """An index of files as they are now. Raises DataError: one cannot be read, or changes meanwhile."""
    hashes, stamps = hash_images(lambda number: root / paths[number], range(len(paths)), title=title)
    return FileIndex(root, paths, labels, hashes, stamps)


def write_index(
    out: Path, root: str, classes: tuple[str, ...], splits: Mapping[str, list[IndexedFile]]
) -> dict[str, str]:
    """Hash every image, write the index into `out` and return the SHA-256 of each split's content.

    Args:
        out: existing folder.
        root: `HERE` or the absolute path of the folder the paths are relative to.
        classes: in label order.
        splits: files by split, in any order.

    Raises:
        DataError: an image cannot be read, or changes meanwhile.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    place = out if root == HERE else Path(root)
    digests = {}
    for split, files in splits.items():
        ordered = sorted(files, key=lambda file: (label_of[file.class_name], file.path))
        labels = np.array([label_of[file.class_name] for file in ordered], dtype=np.int64)
        index = index_files(place, tuple(file.path for file in ordered), labels, title=f"hashing {split}")
        np.save(out / f"{split}_labels.npy", labels)
        np.save(out / f"{split}_hashes.npy", index.hashes)
        atomic_write_bytes(out / f"{split}_paths.bin", b"".join(os.fsencode(path) + b"\0" for path in index.paths))
        atomic_write_bytes(_stamps_file(out, split), _with_binding(index))
        digests[split] = digest_of_files(classes, index)
    atomic_write_json(out / ROOT_NAME, {"root": root})
    return digests


def digest_of_files(classes: tuple[str, ...], index: FileIndex) -> str:
    """SHA-256 of a split's content: class names in label order, labels and images."""
    digest = hashlib.sha256(canonical_json(classes).encode())
    digest.update(index.labels.astype("<i8").tobytes())
    digest.update(index.hashes.tobytes())
    return digest.hexdigest()


def read_index(folder: Path, split: str, read: Callable[[str], bytes] | None = None) -> FileIndex:
    """The index of a split prepared with storage "files".

    Args:
        folder: prepared data.
        split: "train" or "test".
        read: gives the content of a file of the folder by name; None reads it without looking whether it was altered.

    Raises:
        DataError: the folder with the images is gone, or paths, labels and hashes differ in number.
    """
    read = read or (lambda name: (folder / name).read_bytes())
    root = json.loads(read(ROOT_NAME))["root"]
    place = folder if root == HERE else Path(root)
    paths = tuple(os.fsdecode(path) for path in read(f"{split}_paths.bin").split(b"\0")[:-1])
    labels, hashes = (_array(read(f"{split}_{part}.npy")) for part in ("labels", "hashes"))
    if not len(paths) == len(labels) == len(hashes):
        raise DataError(
            f"the {split} index of {folder} has {len(paths)} paths, {len(labels)} labels and {len(hashes)} hashes,"
            " expected one of each for every image; prepare the dataset again"
        )
    if not place.is_dir():
        raise DataError(
            f"the images of {folder} lay in {place}, which does not exist: put them back, or say where they are"
            f" now: `recu prepare {folder.name.partition('@')[0]} --source FOLDER`"
        )
    index = FileIndex(place, paths, labels, hashes, np.full((len(paths), 4), -1, np.int64))
    return FileIndex(place, paths, labels, hashes, _read_stamps(folder, split, index))


def keep_stamps(folder: Path, split: str, index: FileIndex) -> None:
    """Remember how the images look now, where the folder can be written."""
    with suppress(OutputError):
        atomic_write_bytes(_stamps_file(folder, split), _with_binding(index))


def _stamps_file(folder: Path, split: str) -> Path:
    return folder / f"{split}_stamps.bin"


def _with_binding(index: FileIndex) -> bytes:
    """The stamps, after the hash of the hashes that they vouch for."""
    return hashlib.sha256(index.hashes.tobytes()).digest() + index.stamps.astype("<i8").tobytes()


def _read_stamps(folder: Path, split: str, index: FileIndex) -> NDArray[np.int64]:
    """Stamps of the images; those of an index without (valid) stamps fit no file."""
    try:
        content = _stamps_file(folder, split).read_bytes()
    except OSError:
        return index.stamps
    if len(content) != 32 + index.stamps.nbytes or not content.startswith(_with_binding(index)[:32]):
        return index.stamps
    return np.frombuffer(content[32:], "<i8").astype(np.int64).reshape(-1, 4)


def _array(content: bytes) -> NDArray:
    return np.load(io.BytesIO(content), allow_pickle=False)
