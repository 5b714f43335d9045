"""Fetching published archives, with a progress bar and their checksum verified before they get their name."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from recu.base.errors import DataError
from recu.base.file_kinds import describe_kind
from recu.base.files import hash_file, reading
from recu.data.prepare.archives import iter_members, never
from recu.experiment.schema import Archive

_LOG = logging.getLogger(__name__)

_ARCHIVE_WORDS = ("tar archive", "zip archive", "damaged", "compressed with gzip", "compressed with xz")
"""In descriptions of files that may be the right archive, cut or altered."""


def fetch(archive: Archive, folder: Path, *, obtain: str) -> Path:
    """The archive's path below `folder`, downloaded unless it is there already.

    Args:
        archive: what to fetch.
        folder: where archives are kept; a file of the right name and checksum is used as it is.
        obtain: what a person can do instead, for the error.

    Raises:
        DataError: it has no address, cannot be fetched, or its checksum differs.
    """
    path = folder / archive.filename
    if path.is_file():
        verify_checksum(path, archive, again="move it away, then the same command fetches it again")
        return path
    if not archive.url:
        raise DataError(f"{archive.filename} cannot be downloaded by this program: {obtain}")
    return _download(archive, folder, obtain)


def verify_checksum(path: Path, archive: Archive, *, again: str = "fetch it again", instead: str = "") -> None:
    """Check that the file is the published one.

    Args:
        path: what is there.
        archive: what is expected.
        again: how a damaged file is replaced, for the error.
        instead: what else could be given, for the error.

    Raises:
        DataError: its content is another, and what it is; or it cannot be read.
    """
    algorithm, _, expected = archive.checksum.partition(":")
    with reading(path, DataError):
        size = path.stat().st_size
        actual = hash_file(path, algorithm)
        if actual == expected:
            return
        problem = _other_content(path, archive, again)
    difference = f"{size} bytes and {algorithm} {actual}, expected {archive.size_bytes or 'any'} and {expected}"
    raise DataError(f"{problem}{instead} ({difference} of {archive.filename})")


def _other_content(path: Path, archive: Archive, again: str) -> str:
    """What a file that is not the published one is, and what to do."""
    kind = describe_kind(path)
    if kind is None or any(word in kind for word in _ARCHIVE_WORDS):
        try:
            for _ in iter_members(path, never, max_member_bytes=sys.maxsize):
                pass
        except DataError:
            size, whole = path.stat().st_size, archive.size_bytes
            if whole is not None and size < whole:
                return f"{path} is truncated: {size} of {whole} bytes; {again}"
            return f"{path} is truncated or damaged; {again}"
        return f"{path} is whole, but another archive than the published {archive.filename}: give that one"
    return f"{path} is {kind}, not {archive.filename}; {again}"


def _download(archive: Archive, folder: Path, obtain: str) -> Path:
    import pooch
    import requests
    from tqdm import tqdm

    pooch.get_logger().setLevel("WARNING")
    _LOG.info("downloading %s", archive.url)
    # disable=None: a bar where a person watches, silence where not.
    bar = tqdm(unit="B", unit_scale=True, desc=archive.filename, disable=None)
    try:
        # pooch writes to a temporary file and renames it once the checksum is right.
        path = pooch.retrieve(
            archive.url,
            known_hash=archive.checksum,
            fname=archive.filename,
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=bar, timeout=60),
        )
    except (requests.RequestException, OSError) as error:
        message = f"cannot download {archive.url} ({_reason(error)})"
        raise DataError(f"{message}; without a network: {obtain}, and give its path with --data_path") from error
    except ValueError as error:
        message = f"{archive.url} gave a file with another checksum than {archive.checksum}"
        raise DataError(f"{message}; try again, or {obtain} and give its path with --data_path") from error
    finally:
        bar.close()
    return Path(path)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def sha256_of(path: Path) -> str:
    """`sha256:` and the file's digest.

    Raises:
        DataError: it cannot be read.
    """
    with reading(path, DataError):
        return "sha256:" + hash_file(path)
