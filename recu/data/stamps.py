"""How files looked when their content was hashed: what spares hashing them again.

A stamp is believed for the very path that it was taken of and for nothing else; where a file looks otherwise, its
content is hashed again and decides.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from recu.base.errors import DataError, OutputError
from recu.base.files import atomic_write_json, reading
from recu.experiment.source_state import LOCAL_NAME, Place, read_place

_CHUNK_BYTES = 1 << 20
_MOST_THREADS = 32
_PIECE = 256

T = TypeVar("T")


class Stamp(NamedTuple):
    """How a file looks without reading it."""

    size: int
    mtime_ns: int
    ctime_ns: int
    """Of the latest change of content or attributes, which no program can set back as it can `mtime_ns`."""
    inode: int


@dataclass(frozen=True, slots=True)
class Local:
    """What is known of prepared data on this machine; where it is lost, files are hashed or prepared again."""

    source: Place | None
    """Where the source lay and how it looked; None for bundled data."""
    files: dict[str, tuple[str, Stamp]]
    """SHA-256 (hexadecimal) and stamp of each file beside the manifest, by name."""
    code: str | None = None
    """`recu.experiment.own.own_hash` of the user's code that stored the images; None for the package's own."""


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def hash_stream(stream: BinaryIO) -> str:
    """SHA-256 (hexadecimal) of an open file's content from its beginning; the stream is back there afterwards."""
    digest = hashlib.sha256()
    stream.seek(0)
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    stream.seek(0)
    return digest.hexdigest()


def hash_and_stamp(path: Path) -> tuple[bytes, Stamp]:
    """SHA-256 of a file's content and its stamp.

    Raises:
        DataError: it cannot be read, or changes meanwhile.
    """
    with reading(path, DataError), path.open("rb") as stream:
        before = stamp_of(os.fstat(stream.fileno()))
        digest = hash_stream(stream)
        after = stamp_of(os.fstat(stream.fileno()))
    if before != after:
        raise DataError(f"{path} changed while it was read")
    return bytes.fromhex(digest), after


def hash_images(
    path_of: Callable[[int], Path], rows: Sequence[int], *, title: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """SHA-256 (N, 32) uint8 and stamps (N, 4) int64 of many files, read by several threads under a progress bar.

    Args:
        path_of: gives a file's path by its number; a million paths at once would take too much memory.
        rows: numbers of the files.
        title: of the progress bar.

    Raises:
        DataError: a file cannot be read, or changes meanwhile.
    """
    hashes, stamps = np.zeros((len(rows), 32), np.uint8), np.zeros((len(rows), 4), np.int64)
    for place, (digest, stamp) in enumerate(_in_threads(lambda row: hash_and_stamp(path_of(row)), rows, title)):
        hashes[place], stamps[place] = np.frombuffer(digest, np.uint8), _signed(stamp)
    return hashes, stamps


def rows_that_differ(path_of: Callable[[int], Path], stamps: NDArray[np.int64], *, title: str) -> NDArray[np.int64]:
    """Numbers of the files that look otherwise than their stamps (N, 4) say, or are gone; `path_of` as above."""
    found = _in_threads(lambda row: _look(path_of(row)), range(len(stamps)), title)
    differ = [stamp is None or not same_stamp(stamp, stamps[row]) for row, stamp in enumerate(found)]
    return np.flatnonzero(differ)


def same_stamp(stamp: Stamp, row: NDArray[np.int64]) -> bool:
    """Whether a file looks as a row of `hash_images` says."""
    return _signed(stamp) == tuple(row.tolist())


def read_local(folder: Path) -> Local:
    """What is known of the prepared data in `folder` on this machine; nothing where that cannot be read."""
    try:
        content = json.loads((folder / LOCAL_NAME).read_bytes())
        files = {name: (digest, Stamp(*stamp)) for name, (digest, *stamp) in content["files"].items()}
        return Local(read_place(folder), files, content.get("code"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Local(None, {})


def write_local(folder: Path, local: Local) -> None:
    """Write what is known on this machine into `folder`. Raises OutputError."""
    source = None if local.source is None else {"path": local.source.path, "state": local.source.state}
    files = {name: [digest, *stamp] for name, (digest, stamp) in local.files.items()}
    atomic_write_json(folder / LOCAL_NAME, {"source": source, "files": files, "code": local.code})


def keep_stamp(folder: Path, name: str, digest: str, stamp: Stamp) -> None:
    """Remember that a file beside the manifest was hashed again, where the folder can be written."""
    local = read_local(folder)
    with suppress(OutputError):
        write_local(folder, replace(local, files=local.files | {name: (digest, stamp)}))


def _signed(stamp: Stamp) -> tuple[int, ...]:
    # Some file systems number inodes, or date files, beyond what int64 holds.
    return tuple((value + (1 << 63)) % (1 << 64) - (1 << 63) for value in stamp)


def _look(path: Path) -> Stamp | None:
    try:
        return stamp_of(path.stat())
    except OSError:
        return None


def _in_threads(work: Callable[[int], T], rows: Sequence[int], title: str) -> Iterator[T]:
    """`work` of each number, in order; threads, since network file systems answer slowly."""
    # In pieces: a task for each of a million images would take gigabytes.
    pieces = [rows[start : start + _PIECE] for start in range(0, len(rows), _PIECE)]
    bar = tqdm(desc=title, total=len(rows), unit=" images", disable=None, leave=False)
    with bar, ThreadPoolExecutor(min(_MOST_THREADS, 4 * (os.cpu_count() or 1))) as pool:
        try:
            for results in pool.map(lambda piece: [work(row) for row in piece], pieces):
                bar.update(len(results))
                yield from results
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
