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
    """Prepare a dataset in its folder below `data_dir`; done before, it is recognised and left alone.

    Args:
        name: in params/datasets.yaml.
        dataset: its entry.
        data_dir: holds one folder a dataset.
        source: local archive or folder; None takes what was prepared before, or the published archive.
        workers: decoding processes.
        needed: splits that must be there; ("test",) is enough to evaluate.
        output: where to write a copy of the manifest, if anywhere.

    Raises:
        DataError: the source is missing, damaged or not of the expected form.
        OutputError: a file cannot be written.
    """
    prepared = prepare_data(name, dataset, folder=data_dir / name, source=source, workers=workers, needed=needed)
    if output is not None:
        atomic_write_text(output, published_copy(prepared.manifest))
    return prepared
