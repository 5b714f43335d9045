"""Fetching published archives, with a progress bar and their checksum verified before they get their name."""

from __future__ import annotations

import logging
from pathlib import Path

from recu.config import Archive
from recu.errors import DataError
from recu.files import hash_file

_LOG = logging.getLogger(__name__)


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
        verify_checksum(path, archive)
        return path
    if not archive.url:
        raise DataError(f"{archive.filename} cannot be downloaded by this program: {obtain}")
    return _download(archive, folder, obtain)


def verify_checksum(path: Path, archive: Archive) -> None:
    """Check that the file is the published one.

    Raises:
        DataError: its size or checksum differs, or it cannot be read.
    """
    algorithm, _, expected = archive.checksum.partition(":")
    try:
        size = path.stat().st_size
        if archive.size_bytes is not None and size < archive.size_bytes:
            message = f"{path} is truncated: {size} of {archive.size_bytes} bytes"
            raise DataError(f"{message}; remove it and fetch it again")
        actual = hash_file(path, algorithm)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if actual != expected:
        message = f"{path} has {algorithm} {actual}, expected {expected} ({archive.filename})"
        raise DataError(f"{message}; it is another or a damaged file: remove it and fetch it again")


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
    try:
        return "sha256:" + hash_file(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
