"""The embedded dataset: scikit-learn's handwritten digits, enlarged to the size the networks expect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recu.data.manifest import Source
from recu.data.prepare.content import Content, Request, store_arrays

_LEVELS = 16
"""Grey values run from 0 to 16."""
_EVERY = 5
"""One image in five is a test image."""


def build(request: Request, out: Path) -> Content:
    """Store the digits; a `recu.data.prepare.content.Builder`."""
    import sklearn

    arrays = load_digits_arrays(request.dataset.image_size)
    shipped_with = Source(name=f"scikit-learn {sklearn.__version__}", size_bytes=0, checksum=None)
    return store_arrays(tuple("0123456789"), arrays, out, shipped_with=shipped_with)


def load_digits_arrays(size: int) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Images (N, size, size, 3) uint8 and labels (N,) int64 of "train" (1,437) and "test" (360).

    Grey values are scaled from 0..16 to 0..255 (rounded), enlarged with Pillow's bilinear filter (integer
    arithmetic, so the same everywhere) and repeated over three channels. The split takes every fifth image after
    ordering by class, which keeps the classes' proportions; within a split images keep scikit-learn's order.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / _LEVELS)).astype(np.uint8)
    images = np.stack([_enlarge(image, size) for image in grey])
    labels = bunch.target.astype(np.int64)
    by_class = np.argsort(labels, kind="stable")
    test = np.sort(by_class[::_EVERY])
    train = np.setdiff1d(np.arange(len(labels)), test)
    return {"train": (images[train], labels[train]), "test": (images[test], labels[test])}


def _enlarge(grey: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    enlarged = Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(enlarged.convert("RGB"))
