"""Several trainings side by side on one machine each take a GPU of their own: one lock file a GPU."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

_log = logging.getLogger(__name__)


def slots_folder() -> Path:
    """Where the lock files of this machine and user are; Snakemake assigns no GPU ids, so all workflows share it."""
    return Path(tempfile.gettempdir()) / f"recu-gpus-{os.getuid()}"


def visible_gpus(count: int, environment: str | None) -> tuple[str, ...]:
    """Names of the GPUs this process may use, by their number in this process.

    Args:
        count: how many PyTorch sees.
        environment: value of CUDA_VISIBLE_DEVICES; None where it is not set.
    """
    if environment is None:
        return tuple(str(number) for number in range(count))
    return tuple(part.strip() for part in environment.split(","))[:count]


def take_slots(gpus: Sequence[str], count: int, folder: Path) -> list[int]:
    """The numbers of the first GPUs that no other process holds; held until this process ends, however it ends.

    Where too few are free, the first of the others too: memory permitting, jobs then share them (limit them with
    `--resources gpu=N`). So too where there can be no slots, which a warning says: the folder is somebody else's, or
    its file system has no locks.

    Args:
        gpus: names of those this process may use.
        count: how many it wants, at most all of them.
        folder: of the lock files; made if it is not there. It must be this user's own, since whoever can write there
            could have files made or locked anywhere.
    """
    try:
        directory = _open_own_folder(folder)
        try:
            # One job after the other, so that two do not take half of what both want.
            fcntl.flock(directory, fcntl.LOCK_EX)
            free = (number for number, gpu in enumerate(gpus) if _is_free(gpu, directory))
            taken = list(islice(free, count))
            return sorted([*taken, *islice((n for n in range(len(gpus)) if n not in taken), count - len(taken))])
        finally:
            os.close(directory)
    except OSError as error:
        reason = error.strerror or str(error)
        _log.warning(
            "which GPUs are taken cannot be known (%s: %s): the first %s used; name another with --gpus",
            folder,
            reason,
            "one is" if count == 1 else f"{count} are",
        )
        return list(range(count))


def _open_own_folder(folder: Path) -> int:
    """A descriptor of a folder that nobody but this user can write to. Raises OSError."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(directory)
    if found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return directory
    os.close(directory)
    raise PermissionError(errno.EPERM, "it belongs to another user, or others can write to it")


def _is_free(gpu: str, directory: int) -> bool:
    """Whether a GPU was free; it is taken now. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(f"{gpu.replace('/', '_')}.lock", flags, 0o600, dir_fd=directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except OSError:
        os.close(descriptor)
        raise
    # Never closed on purpose: the lock lasts as long as the process and is inherited by none.
    return True
