"""The input pipelines that `loader` may name, and which images each can serve. Free of torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from recu.experiment.augmentations import BATCH_AUGMENTATIONS, CROP_SCALES
from recu.experiment.dataset_kinds import Storage


@dataclass(frozen=True, slots=True)
class LoaderKind:
    """One input pipeline."""

    builder: str
    """`module:function`, called as `recu.data.load.split_loader.Builder`."""
    storage: Storage | None = None
    """How prepared images have to lie; None: either way."""
    augmentations: Collection[str] | None = None
    """Those of training images that it can do; None: all."""
    as_stored: bool = False
    """Whether stored images have to be the network's input as they are: of its size, and seen by `resize`."""
    automatic: bool = False
    """Whether `auto` may take it: it takes the first of the table that serves the images. A further one would change
    what trainings compute that name none."""


LoaderName = Literal["auto", "memory", "torchvision", "dali"]

LOADERS: Mapping[str, LoaderKind] = MappingProxyType(
    {
        "memory": LoaderKind(
            "recu.data.load.memory:build",
            storage="arrays",
            augmentations=BATCH_AUGMENTATIONS.keys(),
            as_stored=True,
            automatic=True,
        ),
        "torchvision": LoaderKind("recu.data.load.torchvision_loader:build", automatic=True),
        "dali": LoaderKind("recu.data.load.dali:build", storage="files", augmentations=CROP_SCALES.keys()),
    }
)
"""By the name that `loader` gives."""
