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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from recu.base.errors import DataError
from recu.base.file_kinds import describe_kind
from recu.base.files import reading

MAX_MEMBER_BYTES = 256 << 20
"""Larger than any single file this program reads out of an archive (the largest, a batch of CIFAR-100, has 155 MB)."""

PEEK_BYTES = 4096
"""So much of a file's beginning tells what it is."""

_MAX_HEADER_BYTES = 1 << 20
_TRUNCATED = (EOFError, zlib.error, lzma.LZMAError)
_ZIP_UTF8 = 0x800
"""Flag of a member whose name is UTF-8."""
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
    size: int = 0
    """Of the whole content in bytes."""


def never(name: str) -> bool:
    """Wants nothing; see `iter_members`."""
    del name
    return False


def iter_members(
    source: Path,
    wanted: Callable[[str], bool],
    *,
    peeked: Callable[[str], bool] = never,
    max_member_bytes: int = MAX_MEMBER_BYTES,
) -> Iterator[Member]:
    """Every member of a folder, tar (plain or compressed) or zip, each once, in the order the source has them.

    Args:
        source: the folder or archive.
        wanted: tells from a member's name whether its content is to be read.
        peeked: the same of the first `PEEK_BYTES` of a member that is not wanted.
        max_member_bytes: members above this size are refused.

    Raises:
        DataError: the source is missing, no archive, truncated or damaged, or a member is unsafe: an absolute path,
            "..", a link, a device, or a size above the limit.
    """
    reading = _Reading(wanted, peeked, max_member_bytes)
    if source.is_dir():
        yield from _folder_members(source, reading)
    elif not source.exists():
        raise DataError(f"{source} does not exist; give the path of an archive or folder")
    elif _is_zip(source):
        yield from _zip_members(source, reading)
    elif _looks_like_tar(source):
        yield from _tar_members(source, reading)
    else:
        raise DataError(not_an_archive(source))


def not_an_archive(source: Path) -> str:
    """The message for a file that is no tar and no zip: it says what the file is, if its bytes tell.

    Raises:
        DataError: it cannot be read.
    """
    with reading(source, DataError):
        kind = describe_kind(source)
    if kind is None or kind.startswith("a tar archive"):
        message = f"{source} is neither a tar nor a zip archive, or its beginning or end is damaged or missing"
        return f"{message}; fetch it again"
    if kind.startswith("a damaged"):
        return f"{source} is truncated or damaged (it is {kind}); fetch it again"
    return f"{source} is neither a tar nor a zip archive: it is {kind}; give a folder, tar or zip of the images"


@dataclass(frozen=True, slots=True)
class _Reading:
    """What of a source is read."""

    wanted: Callable[[str], bool]
    peeked: Callable[[str], bool]
    limit: int

    def bytes_of(self, name: str, size: int) -> int:
        """How many bytes of a file's beginning."""
        if self.wanted(name):
            return size
        return min(size, PEEK_BYTES) if self.peeked(name) else 0


def check_member_name(name: str, source: Path | str) -> str:
    """`name` without a leading "./" and a trailing "/".

    Raises:
        DataError: it is absolute, leaves the archive by "..", or holds a NUL or backslash.
    """
    path = PurePosixPath(name)
    parts = (*path.parts, *PureWindowsPath(name).parts)
    if path.is_absolute() or ".." in parts or "\0" in name:
        raise DataError(f"{source} holds an unsafe member {name!r}: its path leaves the archive; do not use this file")
    if "\\" in name:
        raise DataError(
            f"{source} holds an unsafe member {name!r}: it mixes / and backslashes; rename it and pack again"
        )
    return str(path)


def open_tar(source: Path) -> tarfile.TarFile:
    """Open a tar for reading.

    Raises:
        DataError: it cannot be opened.
    """
    with reading(source, DataError):
        try:
            return tarfile.open(source, "r:*", tarinfo=_LimitedTarInfo)
        except (tarfile.TarError, *_TRUNCATED) as error:
            # tarfile's own text lists a line for each compression it tried.
            raise DataError(not_an_archive(source)) from error


class _LimitedTarInfo(tarfile.TarInfo):
    """A header whose extensions, which `tarfile` reads into memory, have the size of long names and no more."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if not (self.isreg() or self.isdir()) and self.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def iter_tar_headers(
    tar: tarfile.TarFile, source: Path | str, max_member_bytes: int
) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Checked name and header of every folder and file of an open tar, to its very end.

    Raises:
        DataError: as `iter_members`.
    """
    try:
        for info in tar:
            # Windows' own separator, where it stands alone; beside a "/" it may be a part of a name.
            name = info.name if "/" in info.name else info.name.replace("\\", "/")
            name = check_member_name(name, source)
            if not (info.isfile() or info.isdir()):
                kind = "a link" if info.issym() or info.islnk() else "a device or other special file"
                message = (
                    f"{source} holds an unsafe member {info.name!r}: it is {kind}, expected files and folders only:"
                    " pack again with the files in place of links (tar -h --hard-dereference)"
                )
                raise DataError(message)
            _check_size(info.name, info.size, source, max_member_bytes)
            yield name, info
        _check_tar_end(tar, source)
    except (tarfile.TarError, *_TRUNCATED, OSError) as error:  # the last is how gzip reports damage
        raise _truncated(source, error) from error


def read_tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo, source: Path | str, count: int | None = None) -> bytes:
    """Content of one file of an open tar, or its first `count` bytes.

    Raises:
        DataError: the archive ends inside it or is damaged there.
    """
    expected = info.size if count is None else count
    try:
        stream = tar.extractfile(info)
        data = stream.read(expected) if stream is not None else b""
    except (tarfile.TarError, *_TRUNCATED, OSError) as error:
        raise _truncated(source, error) from error
    if len(data) != expected:
        raise _truncated(source, f"it ends inside {info.name}")
    return data


def _tar_members(source: Path, reading: _Reading) -> Iterator[Member]:
    with open_tar(source) as tar:
        for name, info in iter_tar_headers(tar, source, reading.limit):
            if info.isdir():
                yield Member(name, True, b"")
            else:
                count = reading.bytes_of(name, info.size)
                data = read_tar_member(tar, info, source, count) if count else b""
                yield Member(name, False, data, info.size)


def _zip_members(source: Path, reading: _Reading) -> Iterator[Member]:
    try:
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                yield _zip_member(archive, info, source, reading)
    except (zipfile.BadZipFile, *_TRUNCATED) as error:
        raise _truncated(source, error) from error
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror or error}") from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or a compression unknown here
        raise DataError(f"cannot read {source}: {error}") from error


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: Path, reading: _Reading) -> Member:
    name = check_member_name(_zip_name(info), source)
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        kind = "a link" if stat.S_ISLNK(mode) else "a device or other special file"
        message = f"{source} holds an unsafe member {info.filename!r}: it is {kind}, expected files and folders only"
        raise DataError(message)
    _check_size(info.filename, info.file_size, source, reading.limit)
    if info.filename.endswith(("/", "\\")):
        return Member(name, True, b"")
    # Opened even if nothing is read: that compares the name with the one beside the content, since a damaged name must
    # not make an image unwanted.
    with archive.open(info) as stream:
        count = reading.bytes_of(name, info.file_size)
        data = stream.read(count) if count else b""
        if count and count == info.file_size:
            stream.read(1)  # to the end, where the checksum is compared
    if len(data) != count:
        raise _truncated(source, f"it ends inside {name}")
    return Member(name, False, data, info.file_size)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The member's name with "/" between its parts, whatever the program that wrote it put there.

    Programs on Windows write backslashes, which the format forbids; others write UTF-8 without saying so, which
    `zipfile` takes for the characters of MS-DOS.
    """
    name = info.filename
    if not info.flag_bits & _ZIP_UTF8:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


def _folder_members(source: Path, reading: _Reading) -> Iterator[Member]:
    # Links are followed: a user's own tree often links its splits, and nothing is ever written through them.
    for root, folders, files in os.walk(source, followlinks=True, onerror=_raise_unreadable):
        check_no_loop(Path(root), source)
        folders.sort()
        relative = PurePosixPath(Path(root).relative_to(source).as_posix())
        for name in folders:
            yield Member(str(relative / name), True, b"")
        for name in sorted(files):
            yield _folder_member(Path(root) / name, str(relative / name), reading)


def check_no_loop(folder: Path, source: Path) -> None:
    """Refuse a folder that is reached through itself.

    Raises:
        DataError: it is a link to a folder that holds it.
    """
    real = folder.resolve()
    above = folder
    while above != source:
        above = above.parent
        if above.resolve() == real:
            raise DataError(f"{folder} links back to a folder that holds it; remove the link")


def _folder_member(path: Path, name: str, reading: _Reading) -> Member:
    if not (reading.wanted(name) or reading.peeked(name)):
        return Member(name, False, b"")
    size = file_size(path, reading.limit)
    return Member(name, False, read_beginning(path, reading.bytes_of(name, size)), size)


def file_size(path: Path, limit: int) -> int:
    """Size of an ordinary file in bytes; links are followed.

    Raises:
        DataError: it is a link that leads nowhere, cannot be looked at, is a device, or larger than `limit`.
    """
    with reading(path, DataError):
        try:
            status = path.stat()
        except FileNotFoundError as error:
            if not path.is_symlink():
                raise
            raise DataError(f"{path} is a link to {path.readlink()}, which does not exist; mend the link") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} is not an ordinary file; move it away")
    _check_size(path.name, status.st_size, path.parent, limit)
    return status.st_size


def read_beginning(path: Path, count: int) -> bytes:
    """The first `count` bytes of a file; fewer only if it has no more.

    Raises:
        DataError: it cannot be read; the message names it.
    """
    with reading(path, DataError), path.open("rb") as stream:
        return stream.read(count)


def _raise_unreadable(error: OSError) -> None:
    raise DataError(f"cannot read {error.filename}: {error.strerror}") from error


def _is_zip(source: Path) -> bool:
    # By its first bytes: `zipfile.is_zipfile` alone also takes a tar that holds a zip near its end.
    with source.open("rb") as stream:
        return stream.read(2) == b"PK" and zipfile.is_zipfile(source)


def _looks_like_tar(source: Path) -> bool:
    # tarfile.is_tarfile swallows damage to compressed files, so a damaged gzip is let through to be named as such.
    with reading(source, DataError):
        return _is_compressed(source) or tarfile.is_tarfile(source)


def _is_compressed(source: Path) -> bool:
    with source.open("rb") as stream:
        return stream.read(6).startswith(_COMPRESSED)


def _check_tar_end(tar: tarfile.TarFile, source: Path | str) -> None:
    """A cut between two members reads like an end, but the block of zeros that ends a tar is then missing; and after
    that another tar may stand, of which nothing would be read."""
    end = tar.offset + 2 * tarfile.BLOCKSIZE
    tar.fileobj.seek(-(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE)  # until there anything may be left over
    with suppress(tarfile.HeaderError):
        tarfile.TarInfo.frombuf(tar.fileobj.read(tarfile.BLOCKSIZE), tar.encoding, tar.errors)
        raise DataError(f"{source} is several tar archives one after the other; unpack each and give the folder")
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
