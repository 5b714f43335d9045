"""Opening prepared data: a reader gets exactly the content that was prepared for it, or is refused.

What is opened is compared by content with the manifest that its preparation returned, so it does not matter what lies
in the folder by then. Content is hashed again only where a file looks otherwise than when it was hashed
(`recu.data.stamps`).
"""

from __future__ import annotations

import io
import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recu.base.errors import AlteredData, DataError
from recu.data.index import FileIndex, digest_of_files, keep_stamps, read_index
from recu.data.manifest import Manifest, Prepared, advice, read_manifest
from recu.data.stamps import Stamp, hash_images, hash_stream, keep_stamp, read_local, rows_that_differ, stamp_of
from recu.experiment.schema import Dataset

SPLITS = ("train", "test")


def open_prepared(folder: Path, dataset: Dataset, *, expected: str | None = None) -> Prepared:
    """Prepared data in `folder`, if it is what the caller means. Its content is compared when it is read.

    Args:
        folder: what `recu.data.prepare` filled.
        dataset: its entry in params/datasets.yaml.
        expected: fingerprint that it must have; None accepts any.

    Raises:
        DataError: the folder holds no prepared data, data prepared with other settings, of other numbers than the
            dataset's entry expects, or other data than expected.
    """
    manifest = read_manifest(folder)
    check_settings(folder, manifest, dataset)
    check_counts(str(folder), manifest.classes, manifest.splits, dataset)
    if expected is not None and manifest.fingerprint != expected:
        raise DataError(
            f"{folder} holds other data (fingerprint {manifest.fingerprint:.12}) than the workflow prepared"
            f" ({expected:.12}): run `snakemake --cores all --forcerun prepare`, which makes it again from its source"
            " and trains again what rests on other data"
        )
    return Prepared(folder, manifest)


def check_settings(folder: Path, manifest: Manifest, dataset: Dataset) -> None:
    """Raise DataError where the data was prepared with other settings than the dataset's."""
    if manifest.identity != dataset.identity():
        message = f"{folder} was prepared with other settings than those of {dataset.title} in params/datasets.yaml"
        raise DataError(f"{message}; run `recu prepare {manifest.dataset}` again")


def check_counts(what: str, classes: Iterable[str], counts: dict[str, int], dataset: Dataset) -> None:
    """Compare numbers of classes and images with those that the dataset's entry expects, where it does.

    Args:
        what: begins the message.
        classes: their names.
        counts: images by split.
        dataset: the entry.

    Raises:
        DataError: a number differs.
    """
    found = len(tuple(classes))
    if found != dataset.num_classes:
        raise DataError(f"{what} has {found} classes, expected {dataset.num_classes}")
    for split, expected in (("train", dataset.train_images), ("test", dataset.test_images)):
        if expected is not None and counts.get(split, expected) != expected:
            message = f"{what} has {counts[split]} {split} images, expected {expected}"
            raise DataError(f"{message}; the source is incomplete, or mend {split}_images in params/datasets.yaml")


def check_split(prepared: Prepared, split: str) -> None:
    """Raise DataError where the prepared data has no images of the split."""
    if split not in prepared.manifest.splits:
        raise DataError(
            f"{prepared.folder} holds the {' and '.join(prepared.manifest.splits)} images only, enough to evaluate but"
            f" not to train: run `recu prepare {prepared.manifest.dataset}` with a --source that has the {split}"
            " images too"
        )


def check_contents(prepared: Prepared, splits: Iterable[str] | None = None) -> None:
    """Compare everything that readers would read with what was prepared.

    Args:
        prepared: the data.
        splits: those that will be read; None for all.

    Raises:
        AlteredData: a file was altered.
        DataError: a file cannot be read.
    """
    for split in prepared.manifest.splits if splits is None else splits:
        open_index(prepared, split) if prepared.manifest.storage == "files" else open_arrays(prepared, split)


class Mapped:
    """A file that stays mapped into memory: what replaces it is not seen, what is written into it is."""

    def __init__(self, prepared: Prepared, name: str) -> None:
        """Open a file beside the manifest. Raises as `open_arrays`."""
        self._prepared, self._name = prepared, name
        self.stream, self._stamp = _opened(prepared, name)
        weakref.finalize(self, self.stream.close)

    def check(self) -> None:
        """Raise AlteredData where its content is no longer the one that was prepared."""
        stamp = stamp_of(os.fstat(self.stream.fileno()))
        if stamp == self._stamp:
            return
        if hash_stream(self.stream) != self._prepared.manifest.files[self._name]:
            raise _altered(self._prepared, self._name)
        self._stamp = stamp  # e.g. its name was removed, or given to another file


class Arrays(NamedTuple):
    """A split prepared with storage "arrays"."""

    images: NDArray[np.uint8]
    """(N, S, S, 3), mapped into memory."""
    labels: NDArray[np.int64]
    """(N,)."""
    file: Mapped
    """Of the images; to be checked before and after they are read."""


def open_arrays(prepared: Prepared, split: str) -> Arrays:
    """A split prepared with storage "arrays".

    Images are mapped into memory, from the file as it was opened: what replaces it later is not seen. The mapping is
    copy-on-write, so what is written into it never reaches the file.

    Raises:
        AlteredData: a file is not the one that was prepared.
        DataError: the split is missing, a file cannot be read, or images are stored in Fortran order.
    """
    check_split(prepared, split)
    labels = _labels(prepared, np.load(io.BytesIO(_read(prepared, f"{split}_labels.npy")), allow_pickle=False))
    file = Mapped(prepared, f"{split}_images.npy")
    np.lib.format.read_magic(file.stream)
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file.stream)
    if by_columns:
        raise DataError(
            f"{prepared.folder}/{split}_images.npy is in Fortran order, expected C order, as `store_arrays` of"
            f" recu.data.prepare.content stores images; {_advice(prepared)}"
        )
    images = np.memmap(file.stream, dtype=dtype, mode="c", offset=file.stream.tell(), shape=shape)
    _check_lengths(prepared, split, len(images), len(labels))
    return Arrays(images, labels, file)


def open_index(prepared: Prepared, split: str) -> FileIndex:
    """The index of a split prepared with storage "files", with every image as it was prepared.

    Raises:
        AlteredData: the index or an image is not the one that was prepared.
        DataError: the split or the folder with the images is missing, or a file cannot be read.
    """
    check_split(prepared, split)
    index = read_index(prepared.folder, split, lambda name: _read(prepared, name))
    _labels(prepared, index.labels)
    _check_lengths(prepared, split, len(index.paths), len(index.labels))
    if digest_of_files(prepared.manifest.classes, index) != prepared.manifest.content[split]:
        raise AlteredData(f"the {split} index of {prepared.folder} is not what was prepared; {_advice(prepared)}")
    rows = rows_that_differ(index.path, index.stamps, title=f"looking at {split} images")
    if not len(rows):
        return index
    try:
        hashes, stamps = hash_images(index.path, rows.tolist(), title=f"hashing {split} images again")
    except DataError as error:
        raise AlteredData(f"{error}; {_advice(prepared)}") from error
    other = rows[(hashes != index.hashes[rows]).any(axis=1)]
    if len(other):
        more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
        raise AlteredData(
            f"{index.path(other[0])}{more} is no longer the image that was prepared in {prepared.folder};"
            f" {_advice(prepared)}"
        )
    index.stamps[rows] = stamps
    keep_stamps(prepared.folder, split, index)
    return index


def _labels(prepared: Prepared, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    classes = len(prepared.manifest.classes)
    fits = labels.dtype == np.int64 and labels.ndim == 1 and len(labels) and labels.min() >= 0
    if not fits or labels.max() >= classes:
        raise DataError(f"{prepared.folder} holds labels outside 0..{classes - 1}; {_advice(prepared)}")
    return labels


def _check_lengths(prepared: Prepared, split: str, images: int, labels: int) -> None:
    expected = prepared.manifest.splits[split]
    if not images == labels == expected:
        raise DataError(
            f"{prepared.folder} holds {images} {split} images and {labels} labels, its manifest says {expected};"
            f" {_advice(prepared)}"
        )


def _read(prepared: Prepared, name: str) -> bytes:
    stream, _ = _opened(prepared, name)
    with stream:
        return stream.read()


def _opened(prepared: Prepared, name: str) -> tuple[io.BufferedReader, Stamp]:
    """A file beside the manifest, opened, with the content that was prepared, and how it looks.

    Raises:
        AlteredData: its content is another.
        DataError: it cannot be read.
    """
    path, expected = prepared.folder / name, prepared.manifest.files.get(name)
    try:
        stream = path.open("rb")
        stamp = stamp_of(os.fstat(stream.fileno()))
        if read_local(prepared.folder).files.get(name) == (expected, stamp):
            return stream, stamp
        found = hash_stream(stream)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; {_advice(prepared)}") from error
    if found != expected:
        stream.close()
        raise _altered(prepared, name)
    keep_stamp(prepared.folder, name, expected, stamp)
    return stream, stamp


def _altered(prepared: Prepared, name: str) -> AlteredData:
    path = prepared.folder / name
    return AlteredData(f"{path} is no longer what was prepared (SHA-256 differs); {_advice(prepared)}")


def _advice(prepared: Prepared) -> str:
    return advice(prepared.folder, prepared.manifest.dataset)
