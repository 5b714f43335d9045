"""What may be done to training images, and what is fixed of it by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from recu.base.errors import ConfigError
from recu.experiment.own import find_own

Augmentation = Literal[
    "none", "crop", "crop_flip", "rotate_flip", "resized_crop_lighting", "resized_crop_within_lighting"
]
"""Training augmentations; see `recu.data.load.augmentation` and `recu.data.load.transforms`."""


@dataclass(frozen=True, slots=True)
class BatchAugmentation:
    """What an augmentation does to small images, on whole batches in memory (`recu.data.load.augmentation`)."""

    padding: int
    """Black pixels added on each side before an image-sized window is cut out at random; 0 does not crop."""
    flip: bool
    """Mirror left to right with probability one half."""


BATCH_AUGMENTATIONS: Mapping[str, BatchAugmentation] = MappingProxyType(
    {
        "none": BatchAugmentation(padding=0, flip=False),
        "crop": BatchAugmentation(padding=4, flip=False),
        "crop_flip": BatchAugmentation(padding=4, flip=True),
    }
)
"""ReCU, ICCV 2021, section 4.1 uses crop_flip on CIFAR."""
CROP_SCALES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"resized_crop_lighting": (0.08, 1.25), "resized_crop_within_lighting": (0.08, 1.0)}
)
"""Share of the image's area that a random part covers, by augmentation: that of ReCU's program, whose parts above 1
never fit, so that only their aspect ratio counts, and the competitor's. Images of class folders that are cut so stay
files; others are decoded once."""


def own_augmentation(name: str) -> Callable[..., Any] | None:
    """A user's function of an image, the input's side and a generator; None for an augmentation of the package.

    Raises:
        ConfigError: there is none of this name.
    """
    known = get_args(Augmentation)
    if name in known:
        return None
    found: Callable[..., Any] = find_own("augmentation", name, known).value
    if not callable(found):
        raise ConfigError(
            f"augmentation {name!r} is a {type(found).__name__}: expected a function of image, size and generator"
        )
    return found
