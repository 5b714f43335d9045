"""What follows a binary convolution becomes part of it: BatchNorm, residual and hardtanh, or a threshold.

Where a BatchNorm's result is looked at for its sign alone, it comes down to comparing a whole number with a threshold,
which is exact. No number changes: the operation `binary` rounds where its parts would have rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recu.runtime.operations import Values, fused_multiply_add


@dataclass(eq=False)
class Node:
    """An operation whose result has no number yet."""

    op: str
    inputs: list[Node]
    attributes: dict[str, Any] = field(default_factory=dict)


def numbered(nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """The nodes as a file has them; the first, which is the image, is value 0."""
    numbers = {id(node): number for number, node in enumerate(nodes)}
    return [{"op": node.op, "of": [numbers[id(each)] for each in node.inputs], **node.attributes} for node in nodes[1:]]


def fused(nodes: Sequence[Node]) -> list[Node]:
    """The same values in fewer operations; nodes are changed in place."""
    left = list(nodes)
    # Those of the beginning: what has taken in its followers is binary too, and done.
    for node in [each for each in nodes if each.op == "binary"]:
        if not _with_threshold(node, left):
            _with_tail(node, left)
    return left


def _with_tail(node: Node, left: list[Node]) -> None:
    """Take in the BatchNorm, the sum and the hardtanh that alone follow a convolution, as far as it goes."""
    following = _only_user(node, left)
    if following is not None and following.op == "norm":
        _become(following, node, left, following.attributes)
        node, following = following, _only_user(following, left)
    if following is not None and following.op == "add" and following.inputs[0] is not following.inputs[1]:
        (residual,) = (each for each in following.inputs if each is not node)
        _become(following, node, left, {}, residual)
        node, following = following, _only_user(following, left)
    if following is not None and following.op == "hardtanh" and _bounds(following) == (-1.0, 1.0):
        _become(following, node, left, {"hardtanh": True})


def _with_threshold(node: Node, left: list[Node]) -> bool:
    """Take in the BatchNorm and the hardtanh between a convolution and those that look at signs, if that is all."""
    norm = _only_user(node, left)
    if norm is None or norm.op != "norm":
        return False
    last, following = norm, _only_user(norm, left)
    if following is not None and following.op == "hardtanh" and _bounds(following)[0] < 0 < _bounds(following)[1]:
        last = following
    users = _users(last, left)
    if not users or not all(user.op == "binary" and user.inputs == [last] for user in users):
        return False
    found = sign_threshold(node.attributes["weight"], node.attributes["scale"], **norm.attributes)
    if found is None:
        return False
    if last is not norm:
        left.remove(norm)
    direction, threshold = found
    weight = node.attributes["weight"] * direction[:, None, None, None]
    kept = {name: node.attributes[name] for name in ("stride", "padding")}
    node.attributes = {"weight": weight, "threshold": threshold, **kept}
    _become(last, node, left, {})
    return True


def sign_threshold(
    weight: NDArray[np.int8], scale: Values, factor: Values, shift: Values
) -> tuple[NDArray[np.int8], NDArray[np.int32]] | None:
    """Which whole numbers, results of a convolution, a BatchNorm turns into positive ones.

    Args:
        weight: (O, kH, kW, I) of -1, 0 and 1.
        scale: (O,) or (1,).
        factor: (O,).
        shift: (O,).

    Returns:
        Direction (1 or -1) and threshold, both (O,): those numbers whose product with the direction is above the
        threshold. None where the BatchNorm makes zero of a number, whose sign is neither, or overflows.
    """
    most = np.full(len(factor), weight[0].size)
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (fused_multiply_add(whole.astype(np.float32) * scale, factor, shift) for whole in (-most, most))
    if not (np.isfinite(low) & np.isfinite(high)).all():
        return None
    # Times its direction, a number falls where the function falls, and the function of the product rises.
    direction = np.where(high >= low, 1, -1)

    def smallest(reached: Callable[[Values], NDArray[np.bool_]]) -> NDArray[np.int64]:
        """The least number that, times the direction, reaches it; one beyond the largest if none does."""
        below, above = -most - 1, most + 1
        while (above - below > 1).any():
            middle = (below + above) // 2
            whole = (middle * direction).astype(np.float32)
            true = reached(fused_multiply_add(whole * scale, factor, shift))
            above, below = np.where(true, middle, above), np.where(true, below, middle)
        return above

    positive = smallest(lambda value: value > 0)
    if (positive != smallest(lambda value: value >= 0)).any():
        return None
    return direction.astype(np.int8), (positive - 1).astype(np.int32)


def _become(last: Node, node: Node, left: list[Node], more: dict[str, Any], *inputs: Node) -> None:
    """Let `last` stand for `node` and itself, at its own place, so that whoever reads its result need not know."""
    last.op, last.inputs, last.attributes = "binary", [*node.inputs, *inputs], node.attributes | more
    left.remove(node)


def _users(node: Node, left: Sequence[Node]) -> list[Node]:
    return [user for user in left if any(each is node for each in user.inputs)]


def _only_user(node: Node, left: Sequence[Node]) -> Node | None:
    users = _users(node, left)
    return users[0] if len(users) == 1 else None


def _bounds(hardtanh: Node) -> tuple[float, float]:
    return hardtanh.attributes["low"], hardtanh.attributes["high"]
