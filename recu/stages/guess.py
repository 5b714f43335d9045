"""What a network takes an image for: a class and its probability."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Guess:
    """One class that an image may be of."""

    label: int
    """Number of the class, counted from 0."""
    name: str | None
    """Of the class, as its training's data called it; None where the file does not say."""
    probability: float
    """Softmax of the logits, 0 to 1."""

    def __str__(self) -> str:
        return f"{self.label if self.name is None else self.name} {100 * self.probability:.2f} %"


def say_unnamed(path: Path) -> None:
    """That a file does not name its classes."""
    _log.warning(
        "%s does not name its classes (only files of this program do, since it writes them): classes are numbers here,"
        " counted from 0 in the order of its training's data",
        path,
    )


def guesses(shares: NDArray[np.float64], classes: Sequence[str] | None, top: int) -> list[Guess]:
    """The `top` likeliest classes, the likeliest first; of equal ones the lower number first.

    Args:
        shares: softmax of one image's logits, (classes,).
        classes: their names.
        top: how many, or all where there are fewer.
    """
    labels = np.argsort(-shares, kind="stable")[:top].tolist()
    return [Guess(label, None if classes is None else classes[label], float(shares[label])) for label in labels]
