"""From what a dataset is distributed as to a folder that training reads: one entry point, `prepare`.

Everything is written into a temporary folder beside the target and swapped in at the end, so the target is at any
moment either as it was or complete. ImageNet's temporary folder outlives an interruption and is continued.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recu.config import Dataset
from recu.data import image_tree, imagenet, tinyimagenet
from recu.data.class_tree import split_folders, tree_state
from recu.data.download import fetch, sha256_of, verify_checksum
from recu.data.image_folder import FolderArrays, decode_image_folder
from recu.data.index import HERE, ROOT_NAME, write_index
from recu.data.manifest import (
    FORMAT,
    MANIFEST_NAME,
    Manifest,
    Prepared,
    Source,
    fingerprint_of,
    read_manifest,
    write_manifest,
)
from recu.errors import DataError, OutputError
from recu.files import atomic_write_text, canonical_json, check_ordinary, hash_file
from recu.fit import Storage, storage_of

_LOG = logging.getLogger(__name__)

ARCHIVES_FOLDER = "archives"
"""Beside the prepared folders; downloads are kept here."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a builder left in the temporary folder."""

    classes: tuple[str, ...]
    splits: dict[str, int]
    digests: dict[str, str]
    """SHA-256 by split; see `recu.data.manifest.Manifest.content`."""
    stored_size: int | None
    storage: Storage = "arrays"
    notes: tuple[str, ...] = ()


def prepare(name: str, dataset: Dataset, *, folder: Path, source: Path | None, workers: int) -> Prepared:
    """Make `folder` hold the dataset, ready for training, and return it.

    Data prepared before is recognised by its manifest and left alone if its settings and source are the same. A second
    process that prepares the same folder waits for the first and then uses its result.

    Args:
        name: the dataset's name in params/datasets.yaml.
        dataset: its entry.
        folder: where the prepared data goes; it must not hold anything else.
        source: local archive or folder; None takes the published archive (downloaded into `archives/` beside
            `folder` if it is not there), or what was prepared before.
        workers: decoding processes; 0 or 1 decodes in this one.

    Raises:
        DataError: the source is missing, damaged or not of the expected form, or `folder` holds other files.
        OutputError: `folder` cannot be written.
    """
    if dataset.kind == "digits" and source is not None:
        raise DataError(f"{name} is shipped with scikit-learn; leave out its source ({source})")
    if source is not None and not source.exists():
        raise DataError(f"source of {name}: {source} does not exist; {dataset.obtain or 'give an archive or folder'}")
    source = None if source is None else _resolve(dataset, source)
    found = _recognise(dataset, folder, source)
    if found is not None:
        return Prepared(folder, found)
    with _only_one(folder):
        _tidy(folder)
        found = _recognise(dataset, folder, source) or _adopt(name, dataset, folder, source)
        if found is None:
            _refuse_foreign(folder)
            found = _build(name, dataset, folder, source, workers)
        return Prepared(folder, found)


def describe_source(dataset: Dataset, source: Path, *, checksum: bool) -> Source:
    """Name, size and state of a local file or folder, and on request a file's SHA-256.

    Of a folder with large images only the archives in it or the class folders are looked at, not a million files.

    Raises:
        DataError: it cannot be read.
    """
    try:
        if source.is_dir():
            size, state = _large_folder_state(source) if storage_of(dataset) == "files" else _folder_state(source)
            return Source(name=source.name, size_bytes=size, checksum=None, state=state)
        check_ordinary(source)
        status = source.stat()
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror}") from error
    digest = sha256_of(source) if checksum else None
    return Source(name=source.name, size_bytes=status.st_size, checksum=digest, state=str(status.st_mtime_ns))


def stored_size_of(dataset: Dataset) -> int | None:
    """Side of the stored images in pixels; None where files keep their own sizes."""
    if storage_of(dataset) == "files":
        return None
    return tinyimagenet.STORED_SIZE if dataset.kind == "tinyimagenet" else dataset.image_size


def _large_folder_state(source: Path) -> tuple[int, str]:
    if imagenet.has_archives(source) and not split_folders(source):
        size, state = imagenet.archives_state(source)
    else:
        size, state = 0, tree_state(source)
    return size, hashlib.sha256(state.encode()).hexdigest()


def _folder_state(source: Path) -> tuple[int, str]:
    """Total size of a folder's files and a hash of every path, size and modification time."""
    digest, total = hashlib.sha256(), 0
    for root, folders, files in os.walk(source, followlinks=True):
        folders.sort()
        for file in sorted(files):
            path = Path(root) / file
            status = path.stat()
            total += status.st_size
            digest.update(f"{path.relative_to(source)}\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
    return total, digest.hexdigest()


def _recognise(dataset: Dataset, folder: Path, source: Path | None) -> Manifest | None:
    """The manifest of `folder` if it is what preparing from `source` would give."""
    if not (folder / MANIFEST_NAME).is_file():
        return None
    try:
        manifest = read_manifest(folder)
    except DataError as error:
        _LOG.info("preparing again: %s", error)
        return None
    if manifest.identity != dataset.identity():
        _LOG.info("preparing again: the dataset's settings in params/datasets.yaml changed")
        return None
    if source is not None and not _same_source(manifest.source, dataset, source):
        _LOG.info("preparing again: %s is another source than %s", source, manifest.source.name)
        return None
    return manifest


def _adopt(name: str, dataset: Dataset, folder: Path, source: Path | None) -> Manifest | None:
    """Keep what is stored where only settings changed that act when images are loaded (e.g. the mean)."""
    if not (folder / MANIFEST_NAME).is_file():
        return None
    try:
        manifest = read_manifest(folder)
    except DataError:
        return None
    same_images = (
        manifest.dataset == name
        and all(manifest.identity.get(field) == dataset.identity()[field] for field in ("kind", "num_classes"))
        and manifest.storage == storage_of(dataset)
        and manifest.stored_size == stored_size_of(dataset)
    )
    if not same_images or (source is not None and not _same_source(manifest.source, dataset, source)):
        return None
    identity = dataset.identity()
    seen = {"identity": identity, "fingerprint": fingerprint_of(manifest.content, identity)}
    adopted = manifest.model_copy(update=seen)
    try:
        write_manifest(folder, adopted)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    _LOG.info("kept the stored images of %s: only settings of their loading changed", name)
    return adopted


def _same_source(known: Source, dataset: Dataset, source: Path) -> bool:
    now = describe_source(dataset, source, checksum=False)
    if (now.size_bytes, now.state) == (known.size_bytes, known.state):
        return True
    # Copied or touched: the content decides.
    return source.is_file() and now.size_bytes == known.size_bytes and sha256_of(source) == known.checksum


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; wait, and say so, while another process holds it."""
    from filelock import FileLock, Timeout

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _LOG.warning("another process is preparing %s; waiting for it", folder)
            lock.acquire()
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _refuse_foreign(folder: Path) -> None:
    """Keep the swap from deleting files that this program did not write."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, expected a folder for prepared data; move it away")
    foreign = sorted(entry.name for entry in folder.iterdir() if not _is_ours(entry.name))
    if foreign:
        message = f"{folder} holds files that are no prepared data ({', '.join(foreign[:3])})"
        raise DataError(f"{message}; choose another data folder or move them")


def _is_ours(name: str) -> bool:
    ours = (MANIFEST_NAME, ROOT_NAME, "images", imagenet.RECORDS)
    return name in ours or name.endswith((".npy", ".spool", ".part", "_files.txt"))


def _build(name: str, dataset: Dataset, folder: Path, source: Path | None, workers: int) -> Manifest:
    archive_source = source if source is not None else _published_source(dataset, folder)
    resumable = dataset.kind == "imagenet"
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.preparing")
    try:
        if resumable:
            temporary = _resumable_folder(dataset, folder, archive_source)
        else:
            temporary.mkdir()
        described, content = _convert(name, dataset, archive_source, temporary, workers)
        _check_counts(name, dataset, content)
        files = [path for path in sorted(temporary.iterdir()) if path.is_file()]
        manifest = Manifest(
            format=FORMAT,
            dataset=name,
            identity=dataset.identity(),
            storage=content.storage,
            splits=content.splits,
            classes=content.classes,
            content=content.digests,
            fingerprint=fingerprint_of(content.digests, dataset.identity()),
            source=described,
            stored_size=content.stored_size,
            files={path.name: path.stat().st_size for path in files},
            sha256={path.name: hash_file(path) for path in files},
            notes=content.notes,
        )
        write_manifest(temporary, manifest)
        if resumable:
            os.sync()  # a million files were left to the system's own time; the manifest's presence vouches for them
        _swap(temporary, folder)
        shutil.rmtree(folder / imagenet.RECORDS, ignore_errors=True)
        return manifest
    except OSError as error:
        raise _cannot_write(folder, error) from error
    finally:
        if not resumable:
            shutil.rmtree(temporary, ignore_errors=True)


def _resumable_folder(dataset: Dataset, folder: Path, source: Path | None) -> Path:
    """The work folder that continuations share; begun anew if it was made from another source."""
    work = folder.with_name(f".{folder.name}.partial")
    state = work / imagenet.RECORDS / "source.json"
    described = describe_source(dataset, source, checksum=False).model_dump(mode="json", exclude={"name"})
    if work.exists() and not (state.exists() and state.read_text() == canonical_json(described)):
        shutil.rmtree(work)
    state.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(state, canonical_json(described))
    return work


def _published_source(dataset: Dataset, folder: Path) -> Path | None:
    if dataset.kind == "digits":
        return None
    if len(dataset.archives) != 1 or not dataset.archives[0].url:
        raise DataError(f"{dataset.title} cannot be downloaded by this program: {dataset.obtain}; then give its path")
    return fetch(dataset.archives[0], folder.parent / ARCHIVES_FOLDER, obtain=dataset.obtain)


def _convert(name: str, dataset: Dataset, source: Path | None, out: Path, workers: int) -> tuple[Source, Content]:
    """Write the dataset's files into `out`; every kind of params/datasets.yaml is handled here and nowhere else."""
    if source is None:
        return _digits(dataset, out)
    described = describe_source(dataset, source, checksum=source.is_file())
    if source.is_file() and len(dataset.archives) == 1:
        verify_checksum(source, dataset.archives[0], instead=_instead(dataset, source))
    _LOG.info("preparing %s from %s", name, source)
    if dataset.kind in ("cifar10", "cifar100"):
        return described, _cifar(dataset, source, out)
    if dataset.kind == "tinyimagenet":
        result = tinyimagenet.decode_tinyimagenet(source, out, num_classes=dataset.num_classes, workers=workers)
        return described, _decoded_content(result, tinyimagenet.STORED_SIZE, out)
    if storage_of(dataset) == "files":
        return described, _files(dataset, source, out, workers)
    return described, _image_folder(dataset, source, out, workers)


def _resolve(dataset: Dataset, source: Path) -> Path:
    """What inside a local source is read: a folder may hold the published archive or what it extracts to."""
    if not source.is_dir() or len(dataset.archives) != 1:
        return source
    archive = source / dataset.archives[0].filename
    if archive.is_file():
        return archive
    if dataset.kind in ("cifar10", "cifar100"):
        from recu.data.cifar import official_folder

        return official_folder(source, dataset.kind)
    return source


def _instead(dataset: Dataset, archive: Path) -> str:
    """What can be given in place of an archive that is not the published one, for a message."""
    if dataset.kind in ("cifar10", "cifar100"):
        from recu.data.cifar import official_folder

        folder = official_folder(archive.parent, dataset.kind)
        if folder != archive.parent:
            return f", or give {folder}, which lies beside it"
    return ", or give a folder that it was extracted to"


def _digits(dataset: Dataset, out: Path) -> tuple[Source, Content]:
    import sklearn

    from recu.data.digits import load_digits_arrays

    arrays = load_digits_arrays(dataset.image_size)
    source = Source(name=f"scikit-learn {sklearn.__version__}", size_bytes=0, checksum=None, state="bundled")
    return source, _store_arrays(tuple("0123456789"), arrays, out)


def _cifar(dataset: Dataset, source: Path, out: Path) -> Content:
    from recu.data.cifar import load_cifar_arrays

    content = load_cifar_arrays(source, dataset.kind)
    return replace(_store_arrays(content.classes, content.splits, out), notes=content.notes)


def _image_folder(dataset: Dataset, source: Path, out: Path, workers: int) -> Content:
    size = dataset.image_size
    result = decode_image_folder(source, out, size=size, num_classes=dataset.num_classes, workers=workers)
    return _decoded_content(result, size, out)


def _files(dataset: Dataset, source: Path, out: Path, workers: int) -> Content:
    classes_expected, notes = dataset.num_classes, ()
    if source.is_file():
        if dataset.kind == "imagenet":
            raise DataError(f"{source} is one file, expected a folder: {dataset.obtain}")
        root = HERE
        tree = image_tree.extract_tree(source, out, classes_expected)
        classes, splits, notes = tree.classes, tree.splits, tree.notes
    elif dataset.kind == "imagenet" and not split_folders(source):
        root = HERE
        classes, splits = imagenet.extract_imagenet(
            source, out, num_classes=classes_expected, archives=dataset.archives, workers=workers
        )
    else:
        root = str(source.resolve())
        tree = image_tree.index_tree(source, classes_expected, workers)
        classes, splits, notes = tree.classes, tree.splits, tree.notes
    digests = write_index(out, root, classes, splits)
    return Content(classes, {split: len(files) for split, files in splits.items()}, digests, None, "files", notes)


def _decoded_content(result: FolderArrays, size: int, out: Path) -> Content:
    for split, labels in result.labels.items():
        np.save(out / f"{split}_labels.npy", labels)
    splits = {split: len(labels) for split, labels in result.labels.items()}
    return Content(result.classes, splits, _array_digests(result.classes, splits, out), size, notes=result.notes)


def _store_arrays(
    classes: tuple[str, ...], splits: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]], out: Path
) -> Content:
    for split, (images, labels) in splits.items():
        np.save(out / f"{split}_images.npy", images)
        np.save(out / f"{split}_labels.npy", labels)
    counts = {split: len(labels) for split, (_, labels) in splits.items()}
    return Content(classes, counts, _array_digests(classes, counts, out), splits["test"][0].shape[1])


def _array_digests(classes: tuple[str, ...], splits: Iterable[str], out: Path) -> dict[str, str]:
    """SHA-256 over class names and the files of each split's images and labels."""
    digests = {}
    for split in splits:
        files = [hash_file(out / f"{split}_{part}.npy") for part in ("images", "labels")]
        digests[split] = hashlib.sha256(canonical_json([classes, *files]).encode()).hexdigest()
    return digests


def _check_counts(name: str, dataset: Dataset, content: Content) -> None:
    if len(content.classes) != dataset.num_classes:
        raise DataError(f"{name} has {len(content.classes)} classes, expected {dataset.num_classes}")
    for split, expected in (("train", dataset.train_images), ("test", dataset.test_images)):
        if expected is not None and content.splits[split] != expected:
            message = f"{name} has {content.splits[split]} {split} images, expected {expected}"
            raise DataError(f"{message}; the source is incomplete, or mend {split}_images in params/datasets.yaml")


def _swap(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old")
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _tidy(folder: Path) -> None:
    """Clear away what killed preparations of this folder left; the lock says that none is running."""
    leftover = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f-]+\.(preparing|old)")
    for path in [path for path in folder.parent.iterdir() if leftover.fullmatch(path.name)]:
        if path.name.endswith(".old") and not folder.exists():
            path.rename(folder)  # killed in the middle of a swap
        else:
            shutil.rmtree(path, ignore_errors=True)


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write prepared data to {folder}: {error.strerror or error}; check space and permissions"
    )
