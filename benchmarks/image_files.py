"""Input of large images: the loaders that are compared, each reading the same files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.engines import MEAN, SEED, STD
from recu.base.errors import ConfigError, DataError
from recu.data.decoding import open_image
from recu.data.index import FileIndex, index_files
from recu.data.prepare.archives import iter_members
from recu.experiment.augmentations import CROP_SCALES

if TYPE_CHECKING:
    import torch

    from recu.data.load.loader import Loader

DATASET = "imagenet"
IMAGE_SIZE = 224
AUGMENTATION = "resized_crop_lighting"
TEST_VIEW = "resize_centre"

_log = logging.getLogger(__name__)


def extract_images(source: Path, folder: Path, count: int) -> FileIndex:
    """Write JPEGs out of class folders into `folder` and list `count` of them, from the front again where the source
    has fewer.

    Args:
        source: a folder, tar or zip that holds .../<class>/<name>.jpg, .jpeg or .JPEG.
        folder: existing and empty.
        count: length of the list.

    Raises:
        DataError: see `iter_members`; there is no such image, or one cannot be read.
    """

    def is_wanted(name: str) -> bool:
        return "/" in name and name.lower().endswith((".jpg", ".jpeg"))

    found = (member for member in iter_members(source, is_wanted) if not member.is_folder and is_wanted(member.name))
    paths, classes = [], []
    for number, member in enumerate(islice(found, count)):
        open_image(member.data, f"{source}: {member.name}")
        path = f"{number:06}.jpg"  # names from elsewhere are not needed
        (folder / path).write_bytes(member.data)
        paths.append(path)
        classes.append(PurePosixPath(member.name).parent.name)
    if not paths:
        raise DataError(f"{source} has no JPEG in a class folder; expected <class>/<name>.JPEG")
    label_of = {name: label for label, name in enumerate(sorted(set(classes)))}
    chosen = np.arange(count) % len(paths)
    labels = np.array([label_of[classes[number]] for number in chosen], dtype=np.int64)
    return index_files(folder, tuple(paths[number] for number in chosen), labels, title="hashing")


def build_inputs(
    index: FileIndex, *, train: bool, batch_size: int, workers: int, device: torch.device
) -> dict[str, Callable[[], int]]:
    """Of each loader, a call that delivers a whole epoch and returns its number of images.

    A whole epoch, because worker processes read ahead: they must have ended before another loader takes its turn.
    "dali" is left out, with a warning, where DALI is not installed.

    Raises:
        ConfigError: no benchmarks/ beside the package.
    """
    from benchmarks.reference import image_files as reference
    from recu.data.load.torchvision_loader import FileImages, TorchvisionLoader, View

    paths = [index.root / path for path in index.paths]
    plain = reference.build_loader(paths, index.labels.tolist(), batch_size, train=train, workers=workers)
    seed = SEED if train else None
    view = View(AUGMENTATION, TEST_VIEW, IMAGE_SIZE)
    seen = {"crop_scale": CROP_SCALES[AUGMENTATION], "test_view": TEST_VIEW, "size": IMAGE_SIZE}
    common = {"mean": MEAN, "std": STD, "batch_size": batch_size, "device": device, "workers": workers, "seed": seed}
    tasks = {
        "reference": lambda: reference.load_epoch(plain, device),
        "shipped": _epochs(TorchvisionLoader(FileImages(index), view, **common)),
    }
    try:
        from recu.data.load.dali import DaliLoader

        dali = DaliLoader(index, **seen, **common)
    except ConfigError:
        _log.warning("the DALI loader is not measured: DALI is not installed (`pip install nvidia-dali-cuda130`)")
        return tasks
    return {**tasks, "dali": _epochs(dali)}


def _epochs(loader: Loader) -> Callable[[], int]:
    epoch = 0

    def load() -> int:
        nonlocal epoch
        epoch += 1
        return sum(len(labels) for _images, labels in loader.batches(epoch))

    return load
