"""Which form of a packed network computes: NumPy for a few images, compiled loops for more; equal numbers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recu.runtime.network import Network
from recu.runtime.operations import Values

_FIRST_PIXELS = 8 * 32 * 32
"""Of images that NumPy has computed before the loops can be loaded, which takes half a second."""

_log = logging.getLogger(__name__)


class StartingNetwork:
    """From normalised images (N, S, S, 3) to logits (N, classes).

    Args:
        operations: as `recu.runtime.reader.Packed` has them.
        threads: at most; None for as many as PyTorch would take.

    Raises:
        PackedError: an operation is not known, or lacks what it needs.
    """

    def __init__(self, operations: Sequence[Mapping[str, Any]], threads: int | None = None) -> None:
        self._operations, self._threads = operations, threads
        self._compute: Callable[[Values], Values] = Network(operations)
        self._pixels: int | None = 0

    def __call__(self, images: Values) -> Values:
        """Logits."""
        if self._pixels is not None:
            self._pixels += images[..., 0].size
            if self._pixels > _FIRST_PIXELS:
                threads = self._threads or _usual_threads()
                found = _compiled(self._operations, images.shape[1], threads)
                self._pixels, self._compute = None, found or self._compute
        return self._compute(images)


def _compiled(operations: Sequence[Mapping[str, Any]], size: int, threads: int) -> Callable[[Values], Values] | None:
    """None, and a warning, where numba is not installed."""
    try:
        from recu.runtime.compiled_network import CompiledNetwork
    except ImportError as error:
        if error.name not in ("numba", "llvmlite"):
            raise
        _log.warning("computing with NumPy alone, which is many times slower: numba is not installed")
        return None
    return CompiledNetwork(operations, size, threads)


def _usual_threads() -> int:
    """As PyTorch would take: OMP_NUM_THREADS, or the processors that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) > 0 else len(os.sched_getaffinity(0))
