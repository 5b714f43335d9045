"""One training of an experiment at a time: a second one names the first and waits."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from recu.base.errors import OutputError
from recu.base.files import atomic_write_json

LOCK = ".lock"
_HOLDER = ".lock-holder.json"
_POLL_SECONDS = 0.5
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What file systems without locks answer, e.g. NFS whose lock service does not run."""

_log = logging.getLogger(__name__)


@contextmanager
def only_one(folder: Path, what: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of `folder` within the block; wait for it, saying for whom, when another process has it.

    Waiting and not failing matters: a workflow that takes a failed job for done would accept the result of the other
    process, which may have other parameters. The operating system frees the lock when its holder dies.

    Args:
        folder: made if missing.
        what: what the lock guards, for the message.
        wait: False to raise an error where another process has it.

    Raises:
        OutputError: the folder cannot be written, or another process has it.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A lock of another kind would outlive its killed holder, and the next one would wait for ever.
        lock = FileLock(folder / LOCK, fallback_to_soft=False)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            if not wait:
                raise OutputError(f"{what} is in use by {_holder(folder)}: run this again when it has ended") from error
            _log.warning("%s is in use by %s; waiting until it ends", what, _holder(folder))
            lock.acquire(timeout=-1, poll_interval=_POLL_SECONDS)
            _log.info("%s is free now", what)
    except OSError as error:
        if made:
            _remove(folder)
        if error.errno in _UNSUPPORTED:
            raise OutputError(
                f"cannot lock {folder}: file locks are not supported there ({error.strerror}), and without them two"
                " trainings could write there at once: choose a folder on a local disk (--results_dir; for the workflow"
                " runs_dir in params/config.yaml), or mount the file system with locks (NFS: option local_lock=flock)"
            ) from error
        raise OutputError(f"cannot lock {folder}: {error.strerror or error}; check permissions") from error
    try:
        atomic_write_json(folder / _HOLDER, {"pid": os.getpid(), "host": platform.node()})
        yield
    finally:
        (folder / _HOLDER).unlink(missing_ok=True)
        lock.release()


def _remove(folder: Path) -> None:
    """Take back what was made for a lock that cannot be."""
    with suppress(OSError):
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / _HOLDER).read_bytes())
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
