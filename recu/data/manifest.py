"""What a folder of prepared data holds: manifest.json, written last, so that its presence means completeness."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from recu.base.errors import DataError
from recu.base.files import atomic_write_text, canonical_json
from recu.experiment.dataset_kinds import Storage

MANIFEST_NAME = "manifest.json"
FORMAT = 2
"""Raised when the files beside the manifest change their form, so that older folders are prepared again."""


class Source(BaseModel):
    """What the data was made from; describes the content, never where it lay."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    """File or folder name without its path; for bundled data the library that ships it."""
    size_bytes: int
    """Of the file; 0 for folders and bundled data."""
    checksum: str | None
    """`sha256:...` of the file; null for folders and bundled data."""


class Manifest(BaseModel):
    """Description of prepared data; equal content gives an equal `fingerprint` on any machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int
    dataset: str
    """Name in params/datasets.yaml."""
    identity: dict[str, Any]
    """`recu.experiment.schema.Dataset.identity()` at the time of preparation."""
    storage: Storage
    """`arrays`: <split>_images.npy, uint8 (N, H, W, 3), beside the manifest; `files`: encoded images and an index."""
    splits: dict[str, int]
    """Number of images of "train" and "test"."""
    classes: tuple[str, ...]
    """Names in label order: label i is classes[i]."""
    content: dict[str, str]
    """Hexadecimal SHA-256 over class names, labels and images of each split; the same wherever the images came from."""
    fingerprint: str
    """`fingerprint_of` content and identity: the data's identity, in every result."""
    source: Source
    stored_size: int | None
    """Side of the stored square images in pixels; null where files keep their own sizes."""
    files: dict[str, str]
    """Hexadecimal SHA-256 of each file beside the manifest, by name."""
    notes: tuple[str, ...] = ()
    """What preparation changed, in sentences, e.g. that images were resized."""

    @model_validator(mode="after")
    def _check_fingerprint(self) -> Manifest:
        if self.fingerprint != fingerprint_of(self.content, self.identity):
            raise ValueError("the fingerprint is not that of the content")
        if self.storage == "arrays" and any(self.content.get(split) != self._digest(split) for split in self.splits):
            raise ValueError("the content is not that of the files")
        return self

    def _digest(self, split: str) -> str:
        return digest_of_arrays(self.classes, *(self.files.get(f"{split}_{part}.npy") for part in ("images", "labels")))


@dataclass(frozen=True, slots=True)
class Prepared:
    """Prepared data as its own preparation left it; whoever reads it opens exactly this content, or is refused."""

    folder: Path
    manifest: Manifest


def digest_of_arrays(classes: Sequence[str], images: str | None, labels: str | None) -> str:
    """SHA-256 of the content of a split that is held in arrays.

    Args:
        classes: names in label order.
        images: SHA-256 of the file with the images.
        labels: likewise.
    """
    return hashlib.sha256(canonical_json([classes, images, labels]).encode()).hexdigest()


def fingerprint_of(content: Mapping[str, str], identity: Mapping[str, Any]) -> str:
    """The data's identity: SHA-256 (hexadecimal) over the content of its splits and how the test images are seen.

    Args:
        content: SHA-256 by split.
        identity: `recu.experiment.schema.Dataset.identity()`, of which normalisation, image size and test view count.
    """
    seen = {key: identity.get(key) for key in ("mean", "std", "image_size", "test_view")}
    return hashlib.sha256(canonical_json({"content": dict(content)} | seen).encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json into `folder`, atomically."""
    atomic_write_text(folder / MANIFEST_NAME, manifest.model_dump_json(indent=2) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the prepared data in `folder`.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"no prepared data in {folder}: {MANIFEST_NAME} is missing; {advice(folder)} with its source, or in the"
            " workflow `snakemake --cores all --forcerun prepare`"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise DataError(f"{path} is not a manifest of this version; {advice(folder)}") from error
    if manifest.format != FORMAT:
        raise DataError(f"{path} has format {manifest.format}, expected {FORMAT}; {advice(folder)}")
    return manifest


def published_copy(manifest: Manifest) -> str:
    """The manifest as JSON without what does not tell the data's identity: where it came from, and its files.

    The same data gives the same text, so nothing that rests on it is made again where only its source moved.
    """
    return manifest.model_dump_json(indent=2, exclude={"source", "files"}) + "\n"


def advice(folder: Path, dataset: str | None = None) -> str:
    """How to make prepared data in `folder` what it should be.

    Args:
        folder: where it lies, or what a link there leads to.
        dataset: its name; None takes the folder's.
    """
    # A folder of one source has its name after the dataset's; preparing that source again is what its use does.
    name, _, source = folder.name.partition("@")
    return "run the same command again" if source else f"run `recu prepare {dataset or name}`"
