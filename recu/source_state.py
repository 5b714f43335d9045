"""How a local source looks: the paths, sizes and times of its files. Free of torch: planning looks too.

A changed source is prepared again. Nothing is read, so this says only whether something may have changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recu.config import Dataset
from recu.errors import DataError

_SPLIT_FOLDERS = ("train", "test", "val")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a source lies, and how its files look."""

    path: str
    """Absolute, links resolved."""
    state: str
    """SHA-256 over the path, size and times of every file."""


def look_at(dataset: Dataset, source: Path) -> Place:
    """A local archive or folder as it is now.

    Of a folder with published archives only these count.

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
    archives = [archive.filename for archive in dataset.archives if (source / archive.filename).is_file()]
    if archives and not any((source / name).is_dir() for name in _SPLIT_FOLDERS):
        yield from ((source / name, name) for name in archives)
        return
    seen: set[str] = set()
    for root, folders, files in os.walk(source, followlinks=True, onerror=_raise):
        real = os.path.realpath(root)
        if real in seen:  # a link back; the preparation says so where it matters
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "@", "__MACOSX")))
        for name in sorted(files):
            path = Path(root, name)
            yield path, os.path.relpath(path, source)


def _raise(error: OSError) -> None:
    raise error
