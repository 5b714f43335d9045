"""The kinds of dataset that params/datasets.yaml may name, and what planning has to know of each. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, get_args

from recu.base.errors import ConfigError
from recu.experiment.own import find_own, own_hash

Storage = Literal["arrays", "files"]
"""How prepared images lie: decoded once into arrays, or as the files they are."""


@dataclass(frozen=True, slots=True)
class DatasetKind:
    """One kind of dataset."""

    builder: Any
    """`module:function`, or the function itself, called as `recu.data.prepare.content.Builder`."""
    storage: Storage | None = None
    """None: files where training cuts out random parts, arrays otherwise."""
    side: int | None = None
    """Side of stored images in pixels where they keep their own size; None for the network's input size."""
    shipped: bool = False
    """Whether a library brings it, so that it has no source."""
    extracts_to: str = ""
    """Folder that the published archive extracts to; "" where that is not fixed."""
    archives: tuple[str, ...] = ()
    """Files that are read of a source folder without class folders; empty where there is no such form."""
    resumable: bool = False
    """Whether its preparation, once interrupted, is continued; see `recu.data.prepare.content.RECORDS`."""


KindName = Literal["digits", "cifar10", "cifar100", "imagefolder", "tinyimagenet", "imagenet"]

KINDS: Mapping[KindName, DatasetKind] = MappingProxyType(
    {
        "digits": DatasetKind("recu.data.prepare.digits:build", storage="arrays", shipped=True),
        "cifar10": DatasetKind(
            "recu.data.prepare.cifar:build", storage="arrays", side=32, extracts_to="cifar-10-batches-py"
        ),
        "cifar100": DatasetKind(
            "recu.data.prepare.cifar:build", storage="arrays", side=32, extracts_to="cifar-100-python"
        ),
        "imagefolder": DatasetKind("recu.data.prepare.image_folder:build"),
        "tinyimagenet": DatasetKind("recu.data.prepare.tinyimagenet:build", storage="arrays", side=64),
        "imagenet": DatasetKind(
            "recu.data.prepare.imagenet:build",
            storage="files",
            archives=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"),
            resumable=True,
        ),
    }
)
"""By the name that `kind` gives."""


def find_kind(name: str) -> DatasetKind:
    """The entry of the table, or what stands on a user's builder. Raises ConfigError."""
    if name in KINDS:
        return KINDS[name]  # type: ignore[index]
    builder = find_own("dataset kind", name, KINDS).value
    if not callable(builder):
        raise ConfigError(
            f"dataset kind {name!r} is a {type(builder).__name__}: expected a function of request and folder"
        )
    said = {field.name: getattr(builder, field.name) for field in fields(DatasetKind) if hasattr(builder, field.name)}
    if said.get("storage", "arrays") not in get_args(Storage):
        raise ConfigError(
            f"dataset kind {name!r}: storage is {said['storage']!r}, expected {' or '.join(get_args(Storage))}"
        )
    return DatasetKind(**said | {"builder": builder})


def own_code(name: str) -> str | None:
    """`own_hash` of the user's code behind a kind as it is now; None for a kind of the package. Raises ConfigError."""
    return None if name in KINDS else own_hash(find_own("dataset kind", name, KINDS).sources)
