"""Safe reading of what a folder, tar or zip holds, in one pass, without extracting anything.

Every member is checked before its content is looked at: an archive from elsewhere may name paths outside itself,
hold links and devices, or claim sizes no image has.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from recu.errors import DataError

MAX_MEMBER_BYTES = 256 << 20
"""Larger than any single file this program reads out of an archive (the largest, a batch of CIFAR-100, has 155 MB)."""

_TRUNCATED = (EOFError, zlib.error, lzma.LZMAError)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
"""First bytes of gzip, bzip2 and xz."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file or folder inside a source."""

    name: str
    """Path relative to the source's root, with "/" between its parts."""
    is_folder: bool
    data: bytes
    """Content; empty for folders and for files nobody wanted."""


def iter_members(
    source: Path, wanted: Callable[[str], bool], *, max_member_bytes: int = MAX_MEMBER_BYTES
) -> Iterator[Member]:
    """Every member of a folder, tar (plain or compressed) or zip, each once, in the order the source has them.

    Args:
        source: the folder or archive.
        wanted: tells from a member's name whether its content is to be read.
        max_member_bytes: members above this size are refused.

    Raises:
        DataError: the source is missing, no archive, truncated or damaged, or a member is unsafe: an absolute path,
            "..", a link, a device, or a size above the limit.
    """
    if source.is_dir():
        yield from _folder_members(source, wanted, max_member_bytes)
    elif not source.exists():
        raise DataError(f"{source} does not exist; give the path of an archive or folder")
    elif zipfile.is_zipfile(source):
        yield from _zip_members(source, wanted, max_member_bytes)
    elif _looks_like_tar(source):
        yield from _tar_members(source, wanted, max_member_bytes)
    else:
        message = f"{source} is neither a tar nor a zip archive, or its beginning or end is damaged or missing"
        raise DataError(f"{message}; fetch it again")


def check_member_name(name: str, source: Path | str) -> str:
    """`name` without a leading "./" and a trailing "/".

    Raises:
        DataError: it is absolute, leaves the archive by "..", or holds a NUL or backslash.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        raise DataError(f"{source} holds an unsafe member {name!r}: its path leaves the archive; do not use this file")
    return str(path)


def open_tar(source: Path) -> tarfile.TarFile:
    """Open a tar for reading.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        return tarfile.open(source, "r:*")
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror or error}") from error
    except (tarfile.TarError, *_TRUNCATED) as error:
        # tarfile's own text lists a line for each compression it tried.
        raise DataError(f"{source} is not a readable tar archive, or damaged; fetch it again") from error


def iter_tar_headers(
    tar: tarfile.TarFile, source: Path | str, max_member_bytes: int
) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Checked name and header of every folder and file of an open tar, to its very end.

    Raises:
        DataError: as `iter_members`.
    """
    try:
        for info in tar:
            name = check_member_name(info.name, source)
            if not (info.isfile() or info.isdir()):
                kind = "a link" if info.issym() or info.islnk() else "a device or other special file"
                message = (
                    f"{source} holds an unsafe member {info.name!r}: it is {kind}, expected files and folders only"
                )
                raise DataError(message)
            _check_size(info.name, info.size, source, max_member_bytes)
            yield name, info
        _check_tar_end(tar, source)
    except (tarfile.TarError, *_TRUNCATED) as error:
        raise _truncated(source, error) from error
    except OSError as error:  # gzip reports damage as OSError
        raise _truncated(source, error) from error


def read_tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo, source: Path | str) -> bytes:
    """Content of one file of an open tar.

    Raises:
        DataError: the archive ends inside it or is damaged there.
    """
    try:
        stream = tar.extractfile(info)
        data = stream.read() if stream is not None else b""
    except (tarfile.TarError, *_TRUNCATED, OSError) as error:
        raise _truncated(source, error) from error
    if len(data) != info.size:
        raise _truncated(source, f"it ends inside {info.name}")
    return data


def _tar_members(source: Path, wanted: Callable[[str], bool], limit: int) -> Iterator[Member]:
    with open_tar(source) as tar:
        for name, info in iter_tar_headers(tar, source, limit):
            if info.isdir():
                yield Member(name, True, b"")
            else:
                yield Member(name, False, read_tar_member(tar, info, source) if wanted(name) else b"")


def _zip_members(source: Path, wanted: Callable[[str], bool], limit: int) -> Iterator[Member]:
    try:
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                yield _zip_member(archive, info, source, wanted, limit)
    except (zipfile.BadZipFile, *_TRUNCATED) as error:
        raise _truncated(source, error) from error
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror or error}") from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or a compression unknown here
        raise DataError(f"cannot read {source}: {error}") from error


def _zip_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: Path, wanted: Callable[[str], bool], limit: int
) -> Member:
    name = check_member_name(info.filename, source)
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        kind = "a link" if stat.S_ISLNK(mode) else "a device or other special file"
        message = f"{source} holds an unsafe member {info.filename!r}: it is {kind}, expected files and folders only"
        raise DataError(message)
    _check_size(info.filename, info.file_size, source, limit)
    if info.is_dir():
        return Member(name, True, b"")
    if wanted(name):
        return Member(name, False, archive.read(info))
    # Opening compares the name with the one beside the content: a damaged name must not make an image unwanted.
    archive.open(info).close()
    return Member(name, False, b"")


def _folder_members(source: Path, wanted: Callable[[str], bool], limit: int) -> Iterator[Member]:
    # Links are followed: a user's own tree often links its splits, and nothing is ever written through them.
    seen: set[str] = set()
    for root, folders, files in os.walk(source, followlinks=True, onerror=_raise_unreadable):
        real = os.path.realpath(root)
        if real in seen:
            raise DataError(f"{root} links back to a folder already read; remove the link")
        seen.add(real)
        folders.sort()
        relative = PurePosixPath(Path(root).relative_to(source).as_posix())
        for name in folders:
            yield Member(str(relative / name), True, b"")
        for name in sorted(files):
            yield _folder_member(Path(root) / name, str(relative / name), wanted, limit)


def _folder_member(path: Path, name: str, wanted: Callable[[str], bool], limit: int) -> Member:
    if not wanted(name):
        return Member(name, False, b"")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} is not an ordinary file; remove it")
        _check_size(name, status.st_size, path.parent, limit)
        return Member(name, False, path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _raise_unreadable(error: OSError) -> None:
    raise DataError(f"cannot read {error.filename}: {error.strerror}") from error


def _looks_like_tar(source: Path) -> bool:
    # tarfile.is_tarfile swallows damage to compressed files, so a damaged gzip is let through to be named as such.
    try:
        return _is_compressed(source) or tarfile.is_tarfile(source)
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror}") from error


def _is_compressed(source: Path) -> bool:
    with source.open("rb") as stream:
        return stream.read(6).startswith(_COMPRESSED)


def _check_tar_end(tar: tarfile.TarFile, source: Path | str) -> None:
    """A cut between two members reads like an end, but the block of zeros that ends a tar is then missing."""
    if isinstance(tar.fileobj, gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile):
        while tar.fileobj.read(1 << 20):  # to the end, where the compressed stream holds its checksum
            pass
        return
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != b"\0" * tarfile.BLOCKSIZE:
        raise _truncated(source, "the end mark is missing")


def _check_size(name: str, size: int, source: Path | str, limit: int) -> None:
    if size > limit:
        raise DataError(f"{source} holds {name!r} of {size} bytes, more than the {limit} bytes any file should have")


def _truncated(source: Path | str, reason: object) -> DataError:
    return DataError(f"{source} is truncated or damaged ({' '.join(str(reason).split())}); fetch it again")
