"""Datasets: preparation (`recu.data.prepare.preparation.prepare`) and input pipelines (`build_loaders`).

Importing this package imports no torch, so that decoding processes start quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from recu.base.imports import imported
from recu.data.load.loader import WHOLE, Loader, Loaders, Share
from recu.data.manifest import Manifest, Prepared, read_manifest
from recu.data.opening import check_settings, check_split, open_prepared
from recu.data.prepare.preparation import prepare, prepare_beside
from recu.experiment.fit import check_batch_size, choose_loader
from recu.experiment.loaders import LOADERS
from recu.experiment.schema import Dataset

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
        loader: a name in `recu.experiment.loaders`, or "auto".
        seed: decides order and augmentation of the training images.
        device: where batches are delivered.
        workers: the loader's processes or threads.
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

    from recu.data.load.split_loader import Builder, Request, Settings

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
    build: Builder = imported(
        LOADERS[choose_loader(loader, dataset, manifest.storage, trains="train" in splits)].builder
    )

    def loader_of(split: str, batch_size: int, seed: int | None) -> Loader:
        settings = Settings(
            mean=dataset.mean,
            std=dataset.std,
            batch_size=batch_size,
            device=torch.device(device),
            seed=seed,
            workers=workers,
            skip_unreadable=skip_unreadable,
            share=share,
        )
        return build(Request(prepared=prepared, dataset=dataset, split=split, settings=settings))

    train = loader_of("train", batch_size, seed) if "train" in splits else None
    return Loaders(train, loader_of("test", batch_size_test, None), manifest)
