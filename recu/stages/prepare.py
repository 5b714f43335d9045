"""The prepare stage: a dataset as it is distributed becomes a folder that training reads."""

from __future__ import annotations

from pathlib import Path

from recu.base.files import atomic_write_text
from recu.data import Prepared
from recu.data import prepare as prepare_data
from recu.data.manifest import published_copy
from recu.data.opening import SPLITS
from recu.experiment.schema import Dataset


def prepare(
    name: str,
    dataset: Dataset,
    *,
    data_dir: Path,
    source: Path | None,
    workers: int,
    needed: tuple[str, ...] = SPLITS,
    output: Path | None = None,
) -> Prepared:
    """As `recu.data.prepare`, in the dataset's folder below `data_dir`; `output` is for a copy of the manifest."""
    prepared = prepare_data(name, dataset, folder=data_dir / name, source=source, workers=workers, needed=needed)
    if output is not None:
        atomic_write_text(output, published_copy(prepared.manifest))
    return prepared
