"""Loops compiled for the processor at hand, and their run over the samples of a batch by several threads.

numba compiles a loop when it is first called with arrays of a type, in seconds, and `recu.kernels.machine_code` keeps
the result for later processes, so no compiler is needed on the user's machine.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import numba
from numba.extending import intrinsic

from recu.base.errors import ConfigError
from recu.kernels.machine_code import MachineCode

_SETTINGS = {
    "DISABLE_JIT": 0,
    "OPT": 3,
    "BOUNDSCHECK": None,
    "LOOP_VECTORIZE": 1,
    "SLP_VECTORIZE": 0,
    "CPU_NAME": None,
    "CPU_FEATURES": None,
    "DISABLE_INTEL_SVML": 0,
    "DEBUGINFO_DEFAULT": 0,
}
"""numba's settings with which the loops were tested. Others give other machine code, which may round differently."""

_SMALLEST_PIECE = 8
"""Of what a thread would do by itself: so small a part the last ranges of samples are, so that none waits long."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A loop that computes what its source says, in that order, while other threads run."""
    return _compiled(function)


def compiled_sums(function: Callable[..., Any]) -> Callable[..., Any]:
    """Like `compiled`, but sums may be taken in another order, always the same one, which a vector unit needs."""
    return _compiled(function, fastmath={"reassoc"})


def _compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    _check_settings()
    loop = numba.njit(function, nogil=True, error_model="numpy", **options)
    # In the place of numba's own cache.
    loop._cache = MachineCode(function)
    return loop


def _check_settings() -> None:
    for name, tested in _SETTINGS.items():
        found = getattr(numba.config, name)
        if found != tested:
            raise ConfigError(
                f"numba's setting {name.lower()} is {found!r}, and the loops were tested with {tested!r}: unset the"
                f" variable NUMBA_{name}, or take it out of .numba_config.yaml in this folder"
            )


def _fuse(_context: Any, factor: Any, _other: Any, _term: Any) -> Any:
    return factor(factor, factor, factor), lambda _target, builder, _signature, arguments: builder.fma(*arguments)


fused_multiply_add: Any = intrinsic(_fuse)
"""The first times the second plus the third, rounded once; all of the type of the first."""


def in_threads(loop: Callable[..., Any], threads: int, count: int, *arguments: Any) -> None:
    """Call loop(first, stop, *arguments) on ranges of `count` samples, which threads draw.

    A loop must write what belongs to its samples and nothing else; then no result depends on the number of threads.
    """
    threads = max(1, min(threads, count))
    left = deque(_ranges(count, threads))

    def work() -> None:
        while True:
            try:
                first, stop = left.popleft()
            except IndexError:
                return
            try:
                loop(first, stop, *arguments)
            except BaseException:
                left.clear()  # nobody needs the rest
                raise

    running = [pool(threads - 1).submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        # For all of them before an error of one is raised: who catches it may use the arrays, which the others write.
        wait(running)
    for other in running:
        other.result()


def _ranges(count: int, threads: int) -> list[tuple[int, int]]:
    """Ranges of samples, shorter and shorter: where something else takes time of a thread, the others do more."""
    smallest = -(-count // (threads * _SMALLEST_PIECE)) if threads > 1 else count
    ranges, first = [], 0
    while first < count:
        stop = first + min(count - first, max(smallest, (count - first) // (2 * threads)))
        ranges.append((first, stop))
        first = stop
    return ranges


def pool(count: int) -> ThreadPoolExecutor:
    """So many threads that stay."""
    # Of each process its own: a fork has those of its parent in name only, and would wait for them for ever.
    return _threads(count, os.getpid())


@cache
def _threads(count: int, _process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="recu-loop")
