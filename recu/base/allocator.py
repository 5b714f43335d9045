"""Memory that is freed is kept by the process, so that what is computed next need not ask the system for it again."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Numbers of two settings of glibc's mallopt(3)."""
_LARGEST_BLOCK = 1 << 30
_MOST_KEPT = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Have the C library keep freed blocks for later ones; nothing happens where it is not glibc.

    By itself glibc gives every large block back as soon as it is freed. The next one then begins with a page fault for
    each 4 kB, in which the kernel clears the page, which a training step does for each tensor.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)
