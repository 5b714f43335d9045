"""Several trainings side by side on one machine each take a GPU of their own: one lock file a GPU."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path


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


def take_slot(gpus: Sequence[str], folder: Path) -> int:
    """The number of the first GPU that no other process holds; held until this process ends, however it ends.

    Where all are held, the first: memory permitting, jobs then share it (limit them with `--resources gpu=N`).
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number, gpu in enumerate(gpus):
        # Never closed on purpose: the lock lasts as long as the process and is inherited by none.
        descriptor = os.open(folder / f"{gpu.replace('/', '_')}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return number
        except BlockingIOError:
            os.close(descriptor)
    return 0
