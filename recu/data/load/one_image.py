"""One image from anywhere, brought into the form in which a network sees the test images of a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recu.data.decoding import as_rgb, fit_square, open_image, read_image, unusable
from recu.data.load.transforms import decode, evaluation_view
from recu.experiment.fit import stored_size_of
from recu.experiment.schema import Dataset


def as_test_image(image: Path | Image.Image, dataset: Dataset) -> Tensor:
    """What preparation of the dataset would store of the image, seen as its test images are: uint8 (S, S, 3).

    Args:
        image: a file, or an opened image.
        dataset: its sizes and its test view.

    Raises:
        DataError: it cannot be read or viewed; the message names it.
    """
    name, side = str(image) if isinstance(image, Path) else "as given", stored_size_of(dataset)
    try:
        if isinstance(image, Path):
            data = read_image(image)
            pixels = decode(data, name) if side is None else _stored(open_image(data, name), side)
        else:
            pixels = _stored(as_rgb(image, name), side)
        return evaluation_view(pixels, dataset.seen_as, dataset.image_size).permute(1, 2, 0).contiguous()
    except Exception as error:  # whatever it is, only here it is known which image it was
        raise unusable(name, error) from error


def _stored(image: Image.Image, side: int | None) -> Tensor:
    """uint8 (3, H, W), scaled and cut to `side` pixels where images are stored in one size."""
    stored = image if side is None else fit_square(image, side)
    return torch.from_numpy(np.array(stored)).permute(2, 0, 1)
