"""One training of an experiment at a time: a second one names the first and waits, or comes back later."""

from __future__ import annotations

import errno
import logging
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, LeaseCompromise, SoftFileLease, Timeout

from recu.base.errors import BusyError, OutputError

LOCK = ".lock"
HOLDER = ".lock-holder"
_LEASE_S = 30.0
_POLL_SECONDS = 0.5
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What file systems without locks answer, e.g. NFS whose lock service does not run."""

_log = logging.getLogger(__name__)


@contextmanager
def only_one(folder: Path, what: str, *, wait_s: float = math.inf) -> Iterator[None]:
    """Hold `folder` within the block; wait for it, saying for whom, when another process has it.

    Waiting matters: a workflow that takes a failed job for done would accept the result of the other process, which may
    have other parameters. Two locks are held. The operating system's is freed when its holder dies, and excludes
    processes of this machine at least. Where it excludes no more (NFS with `local_lock`), a file that its holder
    touches every ten seconds does: it counts as left behind once its process is seen to be gone, or after half a
    minute without a touch. A training that stood still for as long, and finds its file taken, is told to save and end.

    Args:
        folder: made if missing.
        what: what the lock guards, for the message.
        wait_s: how long, in seconds.

    Raises:
        BusyError: another process still has it after that time.
        OutputError: the folder cannot be written or locked.
    """
    made = not folder.exists()
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A lock of another kind in its place would outlive its killed holder.
            held.enter_context(_taken(FileLock(folder / LOCK, fallback_to_soft=False), folder, what, wait_s))
            lease = SoftFileLease(folder / HOLDER, lease_duration=_LEASE_S, on_compromise=_end_this, thread_local=False)
            held.enter_context(_taken(lease, folder, what, wait_s))
        except OSError as error:
            if made:
                _remove(folder)
            if error.errno in _UNSUPPORTED:
                raise OutputError(
                    f"cannot lock {folder}: file locks are not supported there ({error.strerror}), and without them two"
                    " trainings could write there at once: choose a folder on a local disk (--results_dir; for the"
                    " workflow runs_dir in params/config.yaml), or mount the file system with locks (NFS: its lock"
                    " service, or option local_lock=flock)"
                ) from error
            raise OutputError(f"cannot lock {folder}: {error.strerror or error}; check permissions") from error
        yield


def is_held(folder: Path) -> bool:
    """Whether a process holds `folder`, by the file that its holder touches every ten seconds; nothing is taken."""
    try:
        return time.time() - (folder / HOLDER).stat().st_mtime < _LEASE_S
    except OSError:
        return False


@contextmanager
def _taken(lock: FileLock | SoftFileLease, folder: Path, what: str, wait_s: float) -> Iterator[None]:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = _holder(folder)
        if wait_s > 0:
            _log.warning("%s is in use by %s; waiting until it ends", what, holder)
        try:
            lock.acquire(timeout=-1 if math.isinf(wait_s) else wait_s, poll_interval=_POLL_SECONDS)
        except Timeout as error:
            raise BusyError(f"{what} is in use by {holder}: run this again when it has ended") from error
        _log.info("%s is free now", what)
    try:
        yield
    finally:
        lock.release()


def _end_this(_lost: LeaseCompromise) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _remove(folder: Path) -> None:
    """Take back what was made for a lock that cannot be."""
    with suppress(OSError):
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()


def _holder(folder: Path) -> str:
    try:
        said = dict(line.partition("=")[::2] for line in (folder / HOLDER).read_text().splitlines())
        return f"process {said['pid']} on {said['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
