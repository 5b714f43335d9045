"""How a local source looks: the paths, sizes and times of its files. Free of torch: planning looks too.

A changed source is prepared again. Nothing is read, so this says only whether something may have changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from recu.base.errors import DataError
from recu.experiment.dataset_kinds import find_kind
from recu.experiment.schema import Dataset

LOCAL_NAME = "local.json"
"""Beside the manifest of prepared data: what holds on this machine only, and is no part of the data."""
SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "test",
    "valid": "test",
    "validation": "test",
}
"""Folder name, in small letters, to split."""
MAX_DEPTH = 3
"""Folders above the splits."""
HIDDEN_FOLDERS = (".", "@", "__MACOSX")
"""Beginnings of folders that never count."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a source lies, and how its files look."""

    path: str
    """Absolute, links resolved."""
    state: str
    """SHA-256 over the path, size and times of every file."""


def inside(dataset: Dataset, source: Path) -> Path:
    """What inside a local source is read: a folder may hold the published archive or what it extracts to."""
    if not source.is_dir() or len(dataset.archives) != 1:
        return source
    archive = source / dataset.archives[0].filename
    return archive if archive.is_file() else official_folder(source, dataset)


def official_folder(source: Path, dataset: Dataset) -> Path:
    """The folder below `source` that the published archive extracts to; `source` where there is none."""
    below = source / find_kind(dataset.kind).extracts_to
    return below if below.is_dir() else source


def reads_archives(dataset: Dataset, source: Path) -> bool:
    """Whether of a folder the distributed archives are read, and not class folders. Raises DataError."""
    return bool(find_kind(dataset.kind).archives) and not _has_splits(source)


def source_facts(dataset: Dataset, source: Path, folder: Path) -> dict[str, str]:
    """What planning compares of a local source: where it lies and how it looks.

    Args:
        dataset: its entry in params/datasets.yaml.
        source: the archive or folder.
        folder: of the data prepared from it, which outlives it: where the source is gone, it is as it was then.

    Raises:
        DataError: it is there and cannot be read.
    """
    found = inside(dataset, source)
    if found.exists():
        return asdict(look_at(dataset, found))
    known = read_place(folder)
    if known is not None and Path(known.path).is_relative_to(os.path.realpath(source)):
        return asdict(known)
    return {"path": os.path.realpath(source), "state": "missing"}


def read_place(folder: Path) -> Place | None:
    """Where the source of the prepared data in `folder` lay, and how it looked; None where that is not known."""
    try:
        return Place(**json.loads((folder / LOCAL_NAME).read_bytes())["source"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def look_at(dataset: Dataset, source: Path) -> Place:
    """A local archive or folder as it is now.

    Of a folder whose published archives are read only these count.

    Args:
        dataset: its entry in params/datasets.yaml.
        source: the archive or folder.

    Raises:
        DataError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for path, relative in _files(dataset, source):
            status = path.stat() if path.exists() else path.lstat()  # a link to nothing is no image
            # The time of the latest change of attributes too: a program can set the other one back.
            facts = f"\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n"
            digest.update(os.fsencode(relative) + facts.encode())
    except OSError as error:
        raise DataError(f"cannot read {error.filename or source}: {error.strerror}") from error
    return Place(os.path.realpath(source), digest.hexdigest())


def _files(dataset: Dataset, source: Path) -> Iterator[tuple[Path, str]]:
    if not source.is_dir():
        yield source, ""
        return
    if reads_archives(dataset, source):
        archives = find_kind(dataset.kind).archives
        yield from ((source / name, name) for name in archives if (source / name).exists())
        return
    seen: set[str] = set()
    for root, folders, files in os.walk(source, followlinks=True, onerror=_raise):
        real = os.path.realpath(root)
        if real in seen:  # a link back; the preparation says so where it matters
            folders.clear()
            continue
        seen.add(real)
        if LOCAL_NAME in files and root != str(source):  # prepared data below its own source changes with every use
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN_FOLDERS))
        for name in sorted(name for name in files if not name.startswith(".")):
            path = Path(root, name)
            yield path, os.path.relpath(path, source)


def _has_splits(source: Path) -> bool:
    level = [source]
    for _ in range(MAX_DEPTH + 1):
        level = [path for folder in level for path in _folders_in(folder)]
        if any(path.name.lower() in SPLITS for path in level):
            return True
    return False


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(HIDDEN_FOLDERS)
            ]
    except OSError as error:
        raise DataError(f"cannot read {error.filename or folder}: {error.strerror}") from error


def _raise(error: OSError) -> None:
    raise error
