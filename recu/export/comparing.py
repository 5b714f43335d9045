"""What an exported form gives beside the network that it was made of, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recu.base.errors import CheckpointError
from recu.runtime.network import Network
from recu.runtime.operations import OPERATIONS, Apply, Pair, Values

Form = Callable[[Values], Values]
"""From normalised images (N, S, S, 3) float32 to logits (N, classes)."""


@dataclass
class Comparison:
    """Of one form with the network, over images; counted batch by batch."""

    images: int = 0
    right: int | None = 0
    """Images whose label is the likeliest class; None where they have no labels."""
    differing: int = 0
    """Images for which form and network take another class for the likeliest."""
    unequal: int = 0
    """Logits that differ in at least one bit."""
    largest: float = 0.0
    """Largest difference of two logits."""

    def add(self, network: Values, form: Values, labels: np.ndarray | None) -> None:
        """Count a batch: logits of both, (N, classes), and labels (N,)."""
        taken = form.argmax(1)
        self.images += len(taken)
        self.right = None if labels is None or self.right is None else self.right + int((taken == labels).sum())
        self.differing += int((taken != network.argmax(1)).sum())
        self.unequal += int((form != network).sum())
        self.largest = max(self.largest, float(np.abs(form.astype(np.float64) - network).max(initial=0.0)))

    @property
    def top1(self) -> float | None:
        """Per cent of the images; None where they have no labels."""
        return None if self.right is None else 100 * self.right / self.images


@torch.inference_mode()
def compare(
    network: Callable[[Tensor], Tensor], forms: Mapping[str, Form], batches: Iterable[tuple[Tensor, Tensor | None]]
) -> dict[str, Comparison]:
    """Run a network and forms of it over batches.

    Args:
        network: from (N, 3, S, S), channels_last, to logits.
        forms: by name.
        batches: normalised images, and labels where there are any.

    Returns:
        The network itself as "network", then each form.

    Raises:
        CheckpointError: a logit of the network is not finite.
    """
    found = {name: Comparison() for name in ("network", *forms)}
    for images, labels in batches:
        # Before the network has a chance to write into them.
        seen, given = images.permute(0, 2, 3, 1).contiguous().numpy().copy(), None if labels is None else labels.numpy()
        expected = network(images.contiguous(memory_format=torch.channels_last)).numpy()
        if not np.isfinite(expected).all():
            raise CheckpointError("the network gives no finite numbers for some of the images: train again")
        found["network"].add(expected, expected, given)
        for name, form in forms.items():
            found[name].add(expected, form(seen), given)
    return found


def _convolution(*, weight: Values, stride: Pair, padding: Pair, bias: Values | None = None) -> Apply:
    filters = torch.from_numpy(weight).permute(0, 3, 1, 2)
    shift = None if bias is None else torch.from_numpy(bias)

    def apply(x: Values) -> Values:
        out = F.conv2d(torch.from_numpy(x).permute(0, 3, 1, 2), filters, shift, stride, padding)
        return np.ascontiguousarray(out.permute(0, 2, 3, 1).numpy())

    return apply


def _linear(*, weight: Values, bias: Values | None = None) -> Apply:
    rows, shift = torch.from_numpy(weight), None if bias is None else torch.from_numpy(bias)
    return lambda x: F.linear(torch.from_numpy(np.ascontiguousarray(x)), rows, shift).numpy()


def _mean() -> Apply:
    return lambda x: (
        F.adaptive_avg_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), 1).permute(0, 2, 3, 1).contiguous().numpy()
    )


LIBRARY: Mapping[str, Any] = MappingProxyType(
    {**OPERATIONS, "convolution": _convolution, "linear": _linear, "mean": _mean}
)
"""The runtime's operations with PyTorch's own order of summation where that is another: a packed file of which these
give the very bits of the network holds everything that the network is."""


class Zeros:
    """The network as a form, which counts the activations whose sign is 0 where signs are taken.

    Attributes:
        zeros: how many, so far.
        activations: of how many.
    """

    def __init__(self, operations: Sequence[Mapping[str, Any]], *, plus_one: bool = False) -> None:
        """Nothing is counted yet.

        Args:
            operations: as `recu.runtime.reader.Packed` has them.
            plus_one: give the logits that the network would have if the sign of 0 were +1. What they differ in comes
                of the zeros alone, since sums are still taken in PyTorch's order.
        """
        self.zeros = self.activations = 0
        self._counting = Network(operations, _with_signs(self._count))
        self._replaced = Network(operations, _with_signs(_plus_one)) if plus_one else None

    def __call__(self, images: Values) -> Values:
        """From normalised images (N, S, S, 3) to logits (N, classes)."""
        before = self.zeros
        logits = self._counting(images)
        # All images once more, not those with zeros alone: PyTorch's sums may depend on how many there are.
        return logits if self._replaced is None or self.zeros == before else self._replaced(images)

    def _count(self, x: Values) -> Values:
        self.zeros += x.size - int(np.count_nonzero((x > 0) | (x < 0)))
        self.activations += x.size
        return x


def _plus_one(x: Values) -> Values:
    return np.where(x >= 0, np.float32(1), np.float32(-1))


def _with_signs(prepared: Callable[[Values], Values]) -> Mapping[str, Callable[..., Apply]]:
    """`LIBRARY`, where this is done to whatever is about to lose all but its sign."""

    def taking(make: Callable[..., Apply]) -> Callable[..., Apply]:
        def made(**attributes: Any) -> Apply:
            apply = make(**attributes)
            return lambda x, *more: apply(prepared(x), *more)

        return made

    return {**LIBRARY, **{name: taking(OPERATIONS[name]) for name in ("binary", "sign")}}
