"""The publish stage: a released checkpoint file joins the results as a training that somebody else ran."""

from __future__ import annotations

import logging
from pathlib import Path

from recu.base.errors import CheckpointError
from recu.base.files import hash_file, link_or_copy
from recu.experiment import paths
from recu.experiment.networks import find_network
from recu.experiment.released import Released, file_state
from recu.experiment.resolving import network_sources
from recu.experiment.schema import Dataset
from recu.results.records import ReleasedRecord, write_record
from recu.stages.networks import describe_cost
from recu.stages.subject import load_network, recognise_released
from recu.stages.train import check_writable

_log = logging.getLogger(__name__)


def publish_released(released: Released, *, dataset: Dataset, results_dir: Path) -> None:
    """Give a released file another name beside the trainings, with its hash and load report in metrics.json.

    Args:
        released: which file, and what is claimed of it.
        dataset: the entry of its dataset.
        results_dir: where trainings are published.

    Raises:
        RecuError: one line each: the file is missing, damaged, of another network or stage, or not the one that was
            planned; an unwritable folder.
    """
    from recu.results import provenance
    from recu.training.checkpoint import open_checkpoint
    from recu.training.device import choose_device, describe

    folder, path = paths.train_folder(results_dir, released.id), Path(released.path)
    check_writable(folder)
    _check_present(released)
    file = open_checkpoint(path)
    _check_planned(file.sha256, released)
    subject = recognise_released(file, released, dataset)
    network, report = load_network(subject, dataset.num_classes)
    # Another name of the file itself, not of a link to it.
    link_or_copy(path.resolve(), folder / paths.BEST_CHECKPOINT)
    # As it looks with its new name, before its content is read once more: who finds it so later has this content.
    state = file_state(path)
    _check_planned(hash_file(path), released)
    record = ReleasedRecord(
        released=released,
        spec_hash=released.spec_hash,
        checkpoint_sha256=file.sha256,
        file_state=str(state),
        load=report.as_json(),
        shortcut=find_network(subject.model, family=subject.family, variant=subject.variant).shortcut,
        cost=describe_cost(network, dataset.image_size),
        provenance=provenance.collect(
            describe(choose_device("cpu")), network_sources(subject.model, subject.binariser)
        ),
    )
    write_record(folder / paths.METRICS, record)
    _log.info("%s: %s is %s: %s", released.id, path, subject.network, report)


def _check_present(released: Released) -> None:
    if not Path(released.path).exists():
        where = f": {released.obtain}" if released.obtain else " any more"
        raise CheckpointError(
            f"released file {released.path} is not here{where}; put it there, or change its `path` in"
            f" params/suites/{released.suite}.yaml"
        )


def _check_planned(sha256: str, released: Released) -> None:
    if sha256 != released.sha256:
        raise CheckpointError(
            f"released file {released.path} is not the one that was planned (SHA-256 {sha256:.12}, planned"
            f" {released.sha256 or 'none':.12}): it changed meanwhile; run the same command again"
        )
