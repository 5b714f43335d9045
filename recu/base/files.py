"""Atomic file writing and hashing: a reader sees the old file or the whole new one, never a part."""

from __future__ import annotations

import errno
import glob
import hashlib
import itertools
import json
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from recu.base.errors import OutputError, RecuError, ResultError

_CHUNK_BYTES = 1 << 20


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on success flush it to disk and rename it to `path`.

    On any exception the temporary file is removed and `path` stays as it was. Temporary files that killed processes of
    this machine left beside it are removed first.

    Raises:
        OutputError: the folder cannot be made, the file cannot be written or renamed, or `path` is there and no
            ordinary file: renaming onto a device would replace it.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            check_ordinary(path)
        _remove_leftovers(path)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` as `atomic_writer` does."""
    with atomic_writer(path) as stream:
        stream.write(data)


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8 as `atomic_writer` does."""
    atomic_write_bytes(path, text.encode())


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON with sorted keys, as `atomic_writer` does."""
    atomic_write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def copy_file(source: Path, target: Path) -> None:
    """Write the content of `source` to `target` as `atomic_writer` does. Raises OSError where it cannot be read."""
    with source.open("rb") as stream, atomic_writer(target) as copy:
        shutil.copyfileobj(stream, copy, _CHUNK_BYTES)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` another name of the file `source`, atomically; a copy where the file system has no such links.

    Raises:
        OSError: `source` cannot be read.
        OutputError: as `atomic_writer`.
    """
    temporary = _temporary(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, temporary)
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError:
        copy_file(source, target)
    finally:
        # Renaming does nothing where both were names of one file already.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_ordinary(path: Path) -> None:
    """Refuse what is no ordinary file (or a link to one): a pipe or a device may be read or written for ever.

    Raises:
        OSError: it is missing, a folder, a device, a pipe or a socket.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a device, pipe or socket, expected an ordinary file", str(path))


def read_json(path: Path) -> Any:
    """Parse the JSON file at `path`.

    Raises:
        ResultError: the file is missing, unreadable or not JSON.
    """
    with reading(path, ResultError):
        check_ordinary(path)
        content = path.read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path} is not valid JSON ({error})") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object at `path` as it stands there; empty where there is none, or it cannot be read."""
    try:
        content = read_json(path)
    except ResultError:
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def reading(path: Path, kind: type[RecuError], advice: str = "") -> Iterator[None]:
    """Within the block, what the system says of a file becomes an error of this kind, with `advice` at its end."""
    try:
        yield
    except OSError as error:
        raise kind(f"cannot read {path}: {error.strerror or error}{advice}") from error


def free_name(wanted: Path) -> Path:
    """`wanted`, or the first of NAME-1, NAME-2, ... beside it that nothing has."""
    numbered = (wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}") for number in itertools.count(1))
    return next(path for path in itertools.chain([wanted], numbered) if not os.path.lexists(path))


def canonical_json(value: Any) -> str:
    """One line of JSON that is the same for equal values: keys sorted, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def hash_text(text: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """The hexadecimal digest of the file's content.

    Raises:
        OSError: the file cannot be read, or is no ordinary one.
    """
    check_ordinary(path)
    digest = hashlib.new(algorithm)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def remove_temporary_files(folder: Path) -> None:
    """Remove what killed processes, of whatever machine, left of `atomic_writer` in `folder`.

    Only for a caller that knows that nobody writes there now, e.g. because it holds the folder's lock.
    """
    for file in folder.glob(".*.part"):
        if _TEMPORARY.search(file.name):
            with suppress(OSError):
                file.unlink()


def abandoned_files(folders: Iterable[Path]) -> Iterator[Path]:
    """Temporary files of `atomic_writer` below `folders` whose process, of this machine, is dead."""
    for top in folders:
        for folder, _, files in os.walk(top):
            for name in files:
                found = name.endswith(".part") and _TEMPORARY.search(name)
                if found and _is_dead(found):
                    yield Path(folder, name)


def _is_dead(found: re.Match[str]) -> bool:
    return found[1] == _host() and not _is_alive(int(found[2]))


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.part")


_TEMPORARY = re.compile(r"\.([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}\.part$")
"""The end of a temporary name: machine, process and chance."""


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` whose process is dead; those of other machines may be alive."""
    for file in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        found = _TEMPORARY.search(file.name)
        if found and _is_dead(found):
            with suppress(OSError):
                file.unlink()


def _host() -> str:
    return hash_text(platform.node())[:8]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror or error}; check space and permissions")


def _sync_folder(folder: Path) -> None:
    # Without this the rename itself may be lost in a power cut although the content was flushed.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
