"""Datasets: preparation (`recu.data.preparation.prepare`) and input pipelines (`build_loaders`).

Importing this package imports no torch, so that decoding processes start quickly.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from recu.config import Dataset
from recu.data.loader import Loaders
from recu.data.manifest import Manifest, read_manifest
from recu.data.preparation import prepare
from recu.errors import ConfigError, DataError, unknown_name

if TYPE_CHECKING:
    import torch

__all__ = ["Loaders", "Manifest", "build_loaders", "prepare", "read_manifest"]

LoaderName = Literal["auto", "memory", "torchvision", "dali"]
_NAMES = ("auto", "memory", "torchvision", "dali")


def build_loaders(
    folder: Path,
    dataset: Dataset,
    *,
    batch_size: int,
    batch_size_test: int,
    loader: LoaderName,
    seed: int,
    device: torch.device | str,
    workers: int,
) -> Loaders:
    """Loaders of both splits of the prepared data in `folder`.

    Args:
        folder: what `prepare` filled.
        dataset: its entry in params/datasets.yaml.
        batch_size: training images a batch.
        batch_size_test: test images a batch.
        loader: "auto" takes "memory" for small stored images that are cropped and flipped, else "torchvision".
        seed: decides order and augmentation of the training images.
        device: where batches are delivered.
        workers: loader processes or threads; unused by "memory".

    Raises:
        DataError: the folder holds no prepared data, or data prepared with other settings.
        ConfigError: unknown loader, one that does not fit the dataset, or a batch size that leaves one image over.
    """
    import torch

    manifest = read_manifest(folder)
    if manifest.identity != dataset.identity():
        message = f"{folder} was prepared with other settings than those of {dataset.title} in params/datasets.yaml"
        raise DataError(f"{message}; run `recu prepare` again")
    if manifest.splits["train"] % batch_size == 1:
        message = f"batch size {batch_size} leaves one of {manifest.splits['train']} training images for the last batch"
        raise ConfigError(f"{message}, which BatchNorm cannot use; choose another batch_size")
    chosen = _choose(loader, dataset, manifest)
    arguments = (folder, dataset, manifest, batch_size, batch_size_test, seed, torch.device(device))
    if chosen == "memory":
        return _memory_loaders(*arguments)
    raise ConfigError(f"loader {chosen!r} is not available")


def _choose(loader: str, dataset: Dataset, manifest: Manifest) -> str:
    from recu.data.augmentation import BATCH_AUGMENTATIONS

    if loader not in _NAMES:
        raise unknown_name("loader", loader, _NAMES)
    fits_memory = manifest.storage == "arrays" and dataset.augmentation in BATCH_AUGMENTATIONS
    if loader == "auto":
        return "memory" if fits_memory else "torchvision"
    if loader == "memory" and not fits_memory:
        message = f"loader 'memory' cannot serve {dataset.title} (augmentation {dataset.augmentation!r})"
        raise ConfigError(f"{message}; choose 'torchvision'")
    return loader


def _memory_loaders(
    folder: Path,
    dataset: Dataset,
    manifest: Manifest,
    batch_size: int,
    batch_size_test: int,
    seed: int,
    device: torch.device,
) -> Loaders:
    from recu.data.augmentation import BATCH_AUGMENTATIONS
    from recu.data.memory import MemoryLoader, load_arrays

    common = {"mean": dataset.mean, "std": dataset.std, "device": device}
    augmentation = BATCH_AUGMENTATIONS[dataset.augmentation]
    train = MemoryLoader(
        *load_arrays(folder, "train"), batch_size=batch_size, seed=seed, augmentation=augmentation, **common
    )
    test = MemoryLoader(
        *load_arrays(folder, "test"), batch_size=batch_size_test, seed=None, augmentation=None, **common
    )
    return Loaders(train, test, manifest)
