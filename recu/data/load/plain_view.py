"""Test images as a network sees them, with NumPy and Pillow alone: the pixels of `recu.data.load.transforms`.

torchvision scales 8-bit images by a way of its own on processors with AVX2: weights of 16 bits, each direction rounded
to 8 bits. That is done here with the same numbers. (Elsewhere torchvision scales in float32, and a grey level may
differ.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recu.base.errors import DataError
from recu.data.decoding import MAX_PIXELS, as_rgb, fit_square, open_image, read_image, unusable
from recu.experiment.schema import TestView

RESIZE_RATIO = 256 / 224
"""Validation images are resized to this multiple of the network's input before their centre is cut out."""
_WEIGHT_BITS = 15
_MOST_PRECISION = 22

Pixels = NDArray[np.uint8]
"""(H, W, 3)."""


@dataclass(frozen=True, slots=True)
class Box:
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Seen:
    """How a dataset's test images become the network's input."""

    size: int
    """Side of that, in pixels."""
    stored_size: int | None
    """Side of the stored images; None where files keep their own sizes."""
    view: TestView


def as_test_image(image: Path | Image.Image, seen: Seen) -> Pixels:
    """What preparation of the dataset would store of the image, seen as its test images are: (size, size, 3).

    Raises:
        DataError: it cannot be read or viewed; the message names it.
    """
    name = str(image) if isinstance(image, Path) else "as given"
    try:
        opened = open_image(read_image(image), name) if isinstance(image, Path) else as_rgb(image, name)
        stored = opened if seen.stored_size is None else fit_square(opened, seen.stored_size)
        return evaluation_view(np.asarray(stored), seen)
    except Exception as error:  # whatever it is, only here it is known which image it was
        raise unusable(name, error) from error


def evaluation_view(image: Pixels, seen: Seen) -> Pixels:
    """A stored test image as the network sees it: (size, size, 3)."""
    if seen.view == "resize":
        return resized(image, (seen.size, seen.size))
    shape, box = validation_geometry(image.shape[0], image.shape[1], seen.size)
    return resized(image, shape)[box.top : box.top + box.height, box.left : box.left + box.width]


def normalised(images: Pixels, mean: NDArray[np.float32], std: NDArray[np.float32]) -> NDArray[np.float32]:
    """(images / 255 - mean) / std of (N, H, W, 3), rounded at each step as `recu.data.load.augmentation.normalise`."""
    return (images.astype(np.float32) / np.float32(255) - mean) / std


def validation_geometry(height: int, width: int, size: int) -> tuple[tuple[int, int], Box]:
    """Resized height and width (shorter side `size` * 256/224) and the central part that is kept.

    Raises:
        DataError: the image is so long and narrow that it would take all memory.
    """
    shorter = round(size * RESIZE_RATIO)
    longer = int(shorter * max(height, width) / min(height, width))  # rounded down, as torchvision does
    if shorter * longer > MAX_PIXELS:
        message = f"{width}x{height} pixels would be scaled to {shorter * longer}, more than {MAX_PIXELS}"
        raise DataError(f"{message}; cut the image or move it away")
    resized = (shorter, longer) if height <= width else (longer, shorter)
    return resized, Box(round((resized[0] - size) / 2), round((resized[1] - size) / 2), size, size)


def resized(image: Pixels, shape: tuple[int, int]) -> Pixels:
    """Scaled bilinearly with anti-aliasing, across first, then down."""
    across = _scaled(image.transpose(1, 0, 2), shape[1]).transpose(1, 0, 2)
    return np.ascontiguousarray(_scaled(across, shape[0]))


def _scaled(image: Pixels, size: int) -> Pixels:
    """The first axis scaled to `size`."""
    if len(image) == size:
        return image
    weights, bits = _weights(len(image), size)
    # Whole numbers below 2 ** 53: exact, and faster than with integers.
    total = weights @ image.reshape(len(image), -1).astype(np.float64)
    levels = np.clip(np.floor((total + 2 ** (bits - 1)) / 2**bits), 0, 255)
    return levels.astype(np.uint8).reshape(size, *image.shape[1:])


def _weights(before: int, after: int) -> tuple[NDArray[np.float64], int]:
    """Of each old place for each new one, whole numbers (after, before), and how many bits stand behind the point."""
    scale = before / after
    support = max(scale, 1.0)
    centres = scale * (np.arange(after) + 0.5)
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)[:, None]
    stop = np.minimum((centres + support + 0.5).astype(np.int64), before)[:, None]
    places = np.arange(before)
    distance = np.abs((places - centres[:, None] + 0.5) / support)
    shares = np.where((places >= first) & (places < stop) & (distance < 1), 1 - distance, 0.0)
    shares /= shares.sum(1, keepdims=True)
    too_many = (n for n in range(_MOST_PRECISION) if int(0.5 + shares.max() * 2 ** (n + 1)) >= 2**_WEIGHT_BITS)
    bits = next(too_many, _MOST_PRECISION)
    return np.floor(shares * 2**bits + 0.5), bits
