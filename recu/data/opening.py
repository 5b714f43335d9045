"""Opening prepared data: a reader gets exactly the content that it asks for, or is refused."""

from __future__ import annotations

from pathlib import Path

from recu.config import Dataset
from recu.data.manifest import Manifest, Prepared, read_manifest
from recu.errors import DataError


def open_prepared(folder: Path, dataset: Dataset, *, expected: str | None = None) -> Prepared:
    """Prepared data in `folder`, if it is what the caller means.

    Args:
        folder: what `recu.data.prepare` filled.
        dataset: its entry in params/datasets.yaml.
        expected: fingerprint that it must have; None accepts any.

    Raises:
        DataError: the folder holds no prepared data, data prepared with other settings, or other data than expected.
    """
    manifest = read_manifest(folder)
    check_settings(folder, manifest, dataset)
    if expected is not None and manifest.fingerprint != expected:
        message = f"{folder} holds other data (fingerprint {manifest.fingerprint:.12}) than expected ({expected:.12})"
        raise DataError(f"{message}; run `recu prepare` with the source that is meant")
    return Prepared(folder, manifest)


def check_settings(folder: Path, manifest: Manifest, dataset: Dataset) -> None:
    """Raise DataError where the data was prepared with other settings than the dataset's."""
    if manifest.identity != dataset.identity():
        message = f"{folder} was prepared with other settings than those of {dataset.title} in params/datasets.yaml"
        raise DataError(f"{message}; run `recu prepare` again")
