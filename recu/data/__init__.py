"""Datasets: preparation (`recu.data.prepare.preparation.prepare`) and input pipelines (`build_loaders`).

Importing this package imports no torch, so that decoding processes start quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recu.data.load.loader import WHOLE, Loader, Loaders, Share
from recu.data.manifest import Manifest, Prepared, read_manifest
from recu.data.opening import check_settings, check_split, open_index, open_prepared
from recu.data.prepare.preparation import prepare, prepare_beside
from recu.experiment.fit import check_batch_size, choose_loader
from recu.experiment.schema import CROP_SCALES, Dataset

if TYPE_CHECKING:
    import torch

__all__ = [
    "Loaders",
    "Manifest",
    "Prepared",
    "Share",
    "build_loaders",
    "open_prepared",
    "prepare",
    "prepare_beside",
    "read_manifest",
]


def build_loaders(
    prepared: Prepared,
    dataset: Dataset,
    *,
    batch_size: int,
    batch_size_test: int,
    loader: str,
    seed: int,
    device: torch.device | str,
    workers: int,
    augmentation: str | None = None,
    skip_unreadable: bool = False,
    splits: Sequence[str] = ("train", "test"),
    share: Share = WHOLE,
) -> Loaders:
    """Loaders of prepared data: of exactly the content that `prepared` names.

    Args:
        prepared: what `prepare` or `open_prepared` returned.
        dataset: its entry in params/datasets.yaml.
        batch_size: training images a batch.
        batch_size_test: test images a batch.
        loader: "auto" takes "memory" for small stored images that are cropped and flipped, else "torchvision".
        seed: decides order and augmentation of the training images.
        device: where batches are delivered.
        workers: loader processes (torchvision) or threads (DALI); unused by "memory".
        augmentation: of the training images, in place of the dataset's.
        skip_unreadable: leave out image files that cannot be read, with a warning, and count them in `Loader.skipped`,
            instead of stopping with a DataError.
        splits: what will be read; ("test",) needs no training images, and `Loaders.train` is then None.
        share: what of each split comes to this process.

    Raises:
        DataError: the data was prepared with other settings, lacks a split, or is no longer what was prepared.
        ConfigError: unknown loader, one that does not fit the dataset or is not installed, or a batch size that leaves
            one image over.
    """
    import torch

    manifest = prepared.manifest
    check_settings(prepared.folder, manifest, dataset)
    for split in splits:
        check_split(prepared, split)
    if "train" in splits:
        check_batch_size(batch_size, manifest.splits["train"])
    # A training's augmentation never changes how test images are seen.
    dataset = dataset.model_copy(
        update={"augmentation": augmentation or dataset.augmentation, "test_view": dataset.seen_as}
    )
    chosen = choose_loader(loader, dataset, manifest.storage)
    build = {"memory": _memory_loader, "torchvision": _torchvision_loader, "dali": _dali_loader}[chosen]
    common = {"mean": dataset.mean, "std": dataset.std, "device": torch.device(device), "share": share}
    large = {"workers": workers, "skip_unreadable": skip_unreadable} if chosen != "memory" else {}
    train = None
    if "train" in splits:
        train = build(prepared, dataset, "train", batch_size=batch_size, seed=seed, **common, **large)
    test = build(prepared, dataset, "test", batch_size=batch_size_test, seed=None, **common, **large)
    return Loaders(train, test, manifest)


def _memory_loader(prepared: Prepared, dataset: Dataset, split: str, *, seed: int | None, **settings: Any) -> Loader:
    from recu.data.load.memory import MemoryLoader, load_arrays
    from recu.experiment.schema import BATCH_AUGMENTATIONS

    augmentation = None if seed is None else BATCH_AUGMENTATIONS[dataset.augmentation]
    images, labels, check = load_arrays(prepared, split)
    return MemoryLoader(images, labels, seed=seed, augmentation=augmentation, check=check, **settings)


def _torchvision_loader(
    prepared: Prepared, dataset: Dataset, split: str, *, seed: int | None, **settings: Any
) -> Loader:
    from recu.data.load.memory import load_arrays
    from recu.data.load.torchvision_loader import ArrayImages, FileImages, TorchvisionLoader, View

    if prepared.manifest.storage == "arrays":
        stored, labels, settings["check"] = load_arrays(prepared, split)
        images: ArrayImages | FileImages = ArrayImages(stored, labels)
    else:
        images = FileImages(open_index(prepared, split))
    return TorchvisionLoader(images, View(dataset.augmentation, dataset.seen_as, dataset.image_size, seed), **settings)


def _dali_loader(prepared: Prepared, dataset: Dataset, split: str, *, seed: int | None, **settings: Any) -> Loader:
    from recu.data.load.dali import DaliLoader

    index = open_index(prepared, split)
    scale = CROP_SCALES[dataset.augmentation]
    size, test_view = dataset.image_size, dataset.seen_as
    return DaliLoader(index, crop_scale=scale, test_view=test_view, size=size, seed=seed, **settings)
