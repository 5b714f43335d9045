"""Arrays that begin where a line of the cache does: vectors that cross lines take twice as long to read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_LINE = 64


def aligned_empty(size: int, dtype: DTypeLike) -> NDArray[Any]:
    """Room for so many numbers."""
    kind = np.dtype(dtype)
    room = np.empty(size * kind.itemsize + _LINE, np.uint8)
    first = -room.ctypes.data % _LINE
    return room[first : first + size * kind.itemsize].view(kind)
