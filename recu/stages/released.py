"""Measuring a released checkpoint file of a suite: the evaluate stage for what nobody here trained."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from recu.base.errors import CheckpointError
from recu.experiment import paths
from recu.experiment.networks import find_network
from recu.experiment.released import Released
from recu.experiment.running import Running
from recu.experiment.schema import Dataset
from recu.results.records import Cost, ReleasedRecord, write_record
from recu.stages.evaluate import Testbed, describe_evaluation
from recu.stages.networks import describe_cost
from recu.stages.subject import Subject, load, recognise
from recu.stages.train import check_writable, followed_run

if TYPE_CHECKING:
    from recu.data import Prepared

_log = logging.getLogger(__name__)


def evaluate_released(
    released: Released,
    *,
    dataset: Dataset,
    prepared: Prepared,
    runs_dir: Path,
    output: Path,
    running: Running | None = None,
) -> None:
    """Measure a released file and write what was found, with the file's hash and load report, to `output` (JSON).

    Args:
        released: which file, and what is claimed of it.
        dataset: the entry of its dataset.
        prepared: the data.
        runs_dir: where the run is noted.
        output: metrics.json of the evaluation.
        running: how to run it.

    Raises:
        RecuError: one line each: the file is missing, damaged or of another network; bad data; an unwritable folder.
        Interrupted: a signal came.
    """
    running = running or Running()
    check_writable(output.parent)
    _check_present(released)
    state = paths.state_folder(runs_dir, released.id, released.spec_hash)
    with followed_run(running, state / "evaluate", output.parent) as run:
        from recu.tracking.description import describe_released_run

        subject = _subject(released, dataset)
        network, report = load(subject, prepared.manifest.classes)
        _log.info("%s: %s", released.path, report)
        testbed = Testbed.opened(
            released.dataset, dataset, prepared, released.batch_size_test, released.loader, running=running
        )
        # Counted first: moving the network to the device may change its layout.
        cost = describe_cost(network, dataset.image_size)
        manifest, checkpoint = prepared.manifest, subject.file.sha256
        description = describe_released_run(released, subject.network, manifest, testbed.origin, checkpoint=checkpoint)
        with run.recorded(description):
            record = ReleasedRecord(
                **dict(testbed.measure(subject, network)),
                name=released.name,
                released=released,
                spec_hash=released.spec_hash,
                method=released.method,
                claimed_top1=released.claimed_top1,
                load=report.as_json(),
                shortcut=find_network(subject.model, family=subject.family, variant=subject.variant).shortcut,
                cost=Cost(**cost),
                mlflow_run_id=run.id(),
            )
            write_record(output, record)
    _log.info("%s, claimed %.2f %%: %s", released.id, released.claimed_top1, describe_evaluation(record))


def _check_present(released: Released) -> None:
    if not Path(released.path).exists():
        where = f": {released.obtain}" if released.obtain else " any more"
        raise CheckpointError(
            f"released file {released.path} is not here{where}; put it there, or change its `path` in"
            f" params/suites/{released.suite}.yaml"
        )


def _subject(released: Released, dataset: Dataset) -> Subject:
    """The file as its entry names it; of our own, only if it says the same of itself."""
    from recu.training.checkpoint import open_checkpoint

    entry = f"the entry {released.name} in params/suites/{released.suite}.yaml"
    stage = {} if released.stage is None else {"stage": released.stage}
    return recognise(
        open_checkpoint(Path(released.path)),
        {"model": released.model, "family": released.family} | stage,
        released.dataset,
        dataset,
        by=entry,
        advice="correct the entry",
        stage_key=f"`stage` in {entry}",
    )
