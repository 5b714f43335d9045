"""Memory that is freed is kept by the process, so that what is computed next need not ask the system for it again."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Numbers of two settings of glibc's mallopt(3)."""
_LARGEST_BLOCKS = 1 << 30, 1 << 25
"""The first that is accepted: older glibcs refuse more than 32 MB."""
_MOST_KEPT = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Have the C library keep freed blocks for later ones; nothing happens where it is not glibc.

    By itself glibc gives every large block back as soon as it is freed. The next one then begins with a page fault for
    each 4 kB, in which the kernel clears the page, which a training step does for each tensor.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # The second setting alone would do harm: it ends glibc's habit of keeping blocks as large as those freed before.
    if mallopt is not None and any(mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST_BLOCKS):
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)
