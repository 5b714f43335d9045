"""Work of several steps in pieces, for as many threads as come: none is waited for that has not begun.

A thread draws a piece of the first step that has any left, waits until all pieces of the steps before are done, does
the piece, and draws again. The caller draws a step's first piece that is left, the threads that help draw its last one:
so each finds in its own cache what it wrote in the step before, where with pieces in turns half would come out of the
other's. What a thread that comes late does not draw the others do, so threads that are busy elsewhere, or never come,
delay nothing: a piece of the first step that is not done is always being worked on. Once a thread had to wait long for
another one, which then had lost its processor to other work, the helping ones leave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recu.kernels.compiled import compiled, pool

_DONE, _LATE = 0, 8
"""Places in an array of numbers, int64, each in a cache line of its own: pieces that are done, waits that took long."""
_DRAWN = 16
"""Where a number for each step begins: pieces that were drawn from its front, plus `_FROM_THE_BACK` for each that was
drawn from its back."""
_FROM_THE_BACK = 1 << 32
_LOOKS = 100_000
"""How often a thread looks, in some 100 microseconds, before it lets others run. Hardly a piece takes longer; on a busy
machine who gives the processor away gets it back after milliseconds."""
_GIVEN_UP = 1 << 62
"""All numbers, where a thread ended with an error: whoever waits goes on, and finds nothing more to draw."""


def in_pieces(loop: Callable[..., Any], threads: int, steps: int, *arguments: Any) -> None:
    """Call loop(numbers, helps, *arguments) in so many threads, `helps` in all but this one; until all pieces are done.

    A loop must `draw` from each step in turn until it has no more and, where it does not help, end with `wait_for` all.
    """
    numbers = np.zeros(_DRAWN + steps, np.int64)
    others = [pool(threads - 1).submit(_run, loop, numbers, True, *arguments) for _ in range(threads - 1)]
    _run(loop, numbers, False, *arguments)
    for other in others:
        # One that has not begun has nothing to do any more.
        if not other.cancel() and numbers[_DONE] >= _GIVEN_UP:
            other.result()


def _run(loop: Callable[..., Any], numbers: np.ndarray, helps: bool, *arguments: Any) -> None:
    try:
        loop(numbers, helps, *arguments)
    except BaseException:
        numbers[:] = _GIVEN_UP
        raise


def _adding(_context: Any, numbers: Any, _place: Any, _amount: Any) -> Any:
    def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        array = target.make_array(signature.args[0])(target, builder, arguments[0])
        return builder.atomic_rmw("add", builder.gep(array.data, [arguments[1]]), arguments[2], "seq_cst")

    return types.int64(numbers, types.int64, types.int64), generate


def _looking(_context: Any, numbers: Any, _place: Any) -> Any:
    def generate(target: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        array = target.make_array(signature.args[0])(target, builder, arguments[0])
        return builder.load_atomic(builder.gep(array.data, [arguments[1]]), "acquire", 8)

    return types.int64(numbers, types.int64), generate


def _letting_others_run(_context: Any) -> Any:
    def generate(target: Any, builder: ir.IRBuilder, _signature: Any, _arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return target.get_dummy_value()

    return types.void(), generate


_add: Any = intrinsic(_adding)
"""Add to a number in one step that no other thread comes between; what it was before."""
_look: Any = intrinsic(_looking)
"""At a number that others add to."""
_let_others_run: Any = intrinsic(_letting_others_run)


@compiled
def draw(numbers, helps, step, pieces):
    """The number within a step of one of its pieces, -1 for none; none, too, for who helps on too busy a machine."""
    if helps and _look(numbers, _LATE):
        return -1
    drawn = _add(numbers, _DRAWN + step, _FROM_THE_BACK if helps else 1)
    front, back = drawn % _FROM_THE_BACK, drawn // _FROM_THE_BACK
    if front + back >= pieces:
        return -1
    return pieces - 1 - back if helps else front


@compiled
def wait_for(numbers, pieces):
    """Until so many are done."""
    looks = 0
    while _look(numbers, _DONE) < pieces:
        looks += 1
        if looks == _LOOKS:
            _add(numbers, _LATE, 1)
        if looks >= _LOOKS:
            _let_others_run()


@compiled
def done(numbers):
    """A piece is."""
    _add(numbers, _DONE, 1)
