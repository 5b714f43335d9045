"""Augmentation of large images, one at a time: draws from an explicit generator, then functions of image and draws.

Images are uint8 tensors (3, H, W). What each name of `recu.experiment.schema.Dataset.augmentation` means:

- `none`: the image at the network's size.
- `crop`, `crop_flip`: as `recu.data.load.augmentation` defines them for batches.
- `rotate_flip`: resize to the network's size, rotate by up to 20 degrees, mirror.
- `resized_crop_lighting`: cut out a random part of area 0.08 to 1.25, resize it, lighting noise, mirror.
- `resized_crop_within_lighting`: the same with an area of 0.08 to 1.
"""

from __future__ import annotations

import math
import operator
import random
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from recu.base.errors import ConfigError
from recu.data.decoding import as_rgb, opened_image
from recu.data.load.augmentation import crop_flip
from recu.data.load.plain_view import Box, validation_geometry
from recu.experiment.augmentations import BATCH_AUGMENTATIONS, CROP_SCALES, own_augmentation
from recu.experiment.schema import TestView

CROP_RATIO = (3 / 4, 4 / 3)
"""Aspect ratio of a random part, torchvision's default."""
ROTATION_DEGREES = 20.0
LIGHTING_STD = 0.1
LIGHTING_EIGENVALUES = (0.2175, 0.0188, 0.0045)
"""Of the covariance of ImageNet's RGB values in [0, 1]. The recipe adds the noise to uint8 images without rescaling
it and
truncates: a channel darkens by one level or stays. Kept as the authors' program does it (docs/deviations.md)."""
LIGHTING_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
"""Rows red, green, blue; Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012."""

_ATTEMPTS = 10


def decode(data: bytes, name: str) -> Tensor:
    """Decode an image into uint8 (3, H, W): the pixels of `recu.data.decoding.open_image`.

    Ordinary JPEGs by torchvision, which is faster and gives the same; everything else by Pillow. Both refuse images
    that are cut off.

    Raises:
        DataError: the image is unreadable; the message names it.
    """
    with opened_image(data, name) as image:
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
            with suppress(RuntimeError):
                return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
        return torch.from_numpy(np.array(as_rgb(image, name))).permute(2, 0, 1)


def draw_box(height: int, width: int, scale: tuple[float, float], generator: random.Random) -> Box:
    """A random part of an image of the given size, drawn as torchvision's RandomResizedCrop does.

    Up to ten times an area and an aspect ratio (uniform in its logarithm) are drawn; parts that do not fit are
    discarded.
    The fallback is the central part of the nearest allowed ratio.
    """
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    for _ in range(_ATTEMPTS):
        area = height * width * generator.uniform(*scale)
        ratio = math.exp(generator.uniform(low, high))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = generator.randrange(height - box_height + 1)
            left = generator.randrange(width - box_width + 1)
            return Box(top, left, box_height, box_width)
    ratio = min(max(width / height, CROP_RATIO[0]), CROP_RATIO[1])
    box_width, box_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def draw_flip(generator: random.Random) -> bool:
    """Whether to mirror."""
    return generator.random() < 0.5


def lighting(image: Tensor, alphas: tuple[float, float, float]) -> Tensor:
    """Add PCA noise to a uint8 image and truncate the sum to uint8.

    Args:
        image: uint8 (3, H, W).
        alphas: one normal draw of standard deviation `LIGHTING_STD` for each eigenvector.
    """
    weights = [alpha * value for alpha, value in zip(alphas, LIGHTING_EIGENVALUES, strict=True)]
    noise = [sum(map(operator.mul, weights, vector)) for vector in LIGHTING_EIGENVECTORS]
    # Pixels are whole numbers: truncating a sum with noise is adding the noise rounded down.
    levels = [math.floor(value) for value in noise]
    if not any(levels):
        return image
    rows = image.permute(1, 2, 0).flatten(1).to(torch.int16)
    rows.add_(torch.tensor(levels, dtype=torch.int16).repeat(image.shape[-1])).clamp_(0, 255)
    return rows.to(torch.uint8).view(*image.shape[1:], 3).permute(2, 0, 1)


def augment(image: Tensor, augmentation: str, size: int, generator: random.Random) -> Tensor:
    """The training view of an image: uint8 (3, size, size).

    Raises:
        ConfigError: one's own augmentation (`recu.experiment.own`) gives something else.
    """
    own = own_augmentation(augmentation)
    if own is not None:
        view = own(image, size, generator)
        if not isinstance(view, Tensor) or view.dtype != torch.uint8 or view.shape != (3, size, size):
            raise ConfigError(
                f"augmentation {augmentation!r} gives {_described(view)}, expected uint8 (3, {size}, {size})"
            )
        return view
    if augmentation in CROP_SCALES:
        box = draw_box(image.shape[-2], image.shape[-1], CROP_SCALES[augmentation], generator)
        part = image[:, box.top : box.top + box.height, box.left : box.left + box.width]
        # Pixels of three neighbouring bytes: the layout for which PyTorch resizes and mirrors twice as fast.
        part = part.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        image = F.resize(part, [size, size], antialias=True)
        flip = draw_flip(generator)
        red, green, blue = (generator.gauss(0, LIGHTING_STD) for _ in range(3))
        image = lighting(image, (red, green, blue))
        return image.flip(-1) if flip else image
    image = _to_size(image, size)
    if augmentation == "rotate_flip":
        angle = generator.uniform(-ROTATION_DEGREES, ROTATION_DEGREES)
        image = F.rotate(image, angle, interpolation=InterpolationMode.NEAREST)
        return image.flip(-1) if draw_flip(generator) else image
    small = BATCH_AUGMENTATIONS[augmentation]
    corner = [generator.randrange(2 * small.padding + 1) for _ in range(2)]
    draws = torch.tensor([[*corner, int(small.flip and draw_flip(generator))]])
    return crop_flip(image.permute(1, 2, 0)[None], draws, small.padding)[0].permute(2, 0, 1)


def _described(view: object) -> str:
    return f"{view.dtype} {tuple(view.shape)}" if isinstance(view, Tensor) else f"a {type(view).__name__}"


def evaluation_view(image: Tensor, view: TestView, size: int) -> Tensor:
    """A test image as the network sees it: uint8 (3, size, size)."""
    if view == "resize":
        return _to_size(image, size)
    resized, box = validation_geometry(image.shape[-2], image.shape[-1], size)
    image = F.resize(image, list(resized), antialias=True)
    return image[:, box.top : box.top + size, box.left : box.left + size]


def _to_size(image: Tensor, size: int) -> Tensor:
    return image if image.shape[-2:] == (size, size) else F.resize(image, [size, size], antialias=True)
