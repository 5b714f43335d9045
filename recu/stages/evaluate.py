"""The evaluate stage: a published training or released file of the workflow, or any checkpoint file.

Every measurement says what was measured (the file's SHA-256, and which network it was taken for), on what (the data's
fingerprint) and how (batch size, loader, device, code).
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from recu.base.errors import Interrupted, ResultError
from recu.experiment import paths
from recu.experiment.fit import choose_loader
from recu.experiment.released import Released
from recu.experiment.resolving import Experiment, own_sources
from recu.experiment.running import Running
from recu.experiment.schema import Dataset
from recu.results.records import MOST_CLASSES, EvaluationRecord, MeasuredWith, Measurement, Provenance, write_record
from recu.stages.subject import Subject, load, recognise, recognise_released
from recu.stages.train import check_writable, followed_run, use_threads
from recu.stages.trained import published_checkpoint

if TYPE_CHECKING:
    import torch
    from torch import nn

    from recu.data import Loaders, Manifest, Prepared
    from recu.training.evaluation import Evaluation
    from recu.training.processes import Processes
    from recu.training.weights import LoadReport

_log = logging.getLogger(__name__)


def evaluate(
    planned: Experiment | Released,
    *,
    dataset: Dataset,
    prepared: Prepared,
    results_dir: Path,
    runs_dir: Path,
    running: Running | None = None,
    processes: Processes | None = None,
) -> None:
    """Evaluate what an experiment or released file published, and write metrics.json into its evaluation folder.

    Args:
        planned: what was trained, by us or somebody else.
        dataset: its dataset's entry.
        prepared: the data.
        results_dir: where the training was published and the evaluation will be.
        runs_dir: where the run is noted.
        running: how to run it.
        processes: that share it, of which this is the first; None for this one alone.

    Raises:
        RecuError: one line each: a missing result, one of other parameters, an altered checkpoint, bad data.
        Interrupted: a signal came.
    """
    running = running or Running()
    folder = paths.evaluate_folder(results_dir, planned.id)
    check_writable(folder)
    checkpoint, digest = published_checkpoint(results_dir, planned)
    state = paths.state_folder(runs_dir, planned.id, planned.spec_hash)
    with followed_run(running, state / "evaluate", folder) as run:
        from recu.tracking.description import describe_run

        how = Measuring(planned.dataset, dataset, prepared, *planned.measured_with, running)
        testbed = Testbed.opened(how, processes)
        manifest = prepared.manifest
        subject = _published(checkpoint, digest, planned, dataset, manifest)
        description = describe_run(
            planned, "evaluate", manifest, testbed.origin, parent_checkpoint=digest, network=subject.network
        )
        with run.recorded(description):
            network, _report = load(subject, manifest.classes)
            record = EvaluationRecord(
                **dict(testbed.measure(subject, network)),
                experiment_id=planned.id,
                spec_hash=planned.spec_hash,
                mlflow_run_id=run.id(),
            )
            write_record(folder / paths.METRICS, record)
    claim = f", claimed {planned.claimed_top1:.2f} %" if isinstance(planned, Released) else ""
    _log.info("%s%s: %s", planned.id, claim, describe_evaluation(record))


def evaluate_file(
    subject: Subject, how: Measuring, processes: Processes | None = None
) -> tuple[Measurement, LoadReport]:
    """Evaluate a checkpoint of this program or the authors'; what became of its tensors comes with it.

    Args:
        subject: the file, and which network it is taken for.
        how: on which images.
        processes: as for `evaluate`.

    Raises:
        RecuError: one line each: a checkpoint that does not fit, bad data, a network of a user's code that has changed,
            where the images are not those that its training measured it on.
    """
    from recu.training.checkpoint_identity import check_code

    identity = subject.identity
    if identity is not None and identity.data_fingerprint != how.prepared.manifest.fingerprint:
        check_code(identity, subject.file.path)
    network, report = load(subject, how.prepared.manifest.classes)
    measured = Testbed.opened(how, processes).measure(subject, network)
    _check_agreement(subject, measured)
    return measured, report


@dataclass(frozen=True)
class Measuring:
    """On which images to measure, and how."""

    name: str
    """Of the dataset."""
    dataset: Dataset
    """Its entry."""
    prepared: Prepared
    """The data."""
    batch_size_test: int
    """Images a step."""
    loader: str
    """Input pipeline."""
    running: Running


@dataclass(frozen=True, kw_only=True)
class Testbed:
    """Test images on a device, with all that a measurement on them rests on."""

    how: Measuring
    loaders: Loaders
    device: torch.device
    settings: MeasuredWith
    origin: Provenance
    processes: Processes
    """That share it."""

    @classmethod
    def opened(cls, how: Measuring, processes: Processes | None = None) -> Testbed:
        """The test split of prepared data; the other processes open theirs too. Raises DataError."""
        from recu.data import build_loaders
        from recu.training.device import choose_device, origin_of
        from recu.training.processes import ALONE

        processes = processes or ALONE
        processes.call_others(_assist, how)
        device = choose_device(how.running.gpus, processes)
        use_threads(how.running.threads, processes)
        loaders = build_loaders(
            how.prepared,
            how.dataset,
            splits=("test",),
            batch_size=how.batch_size_test,
            batch_size_test=how.batch_size_test,
            loader=how.loader,
            seed=0,
            device=device,
            workers=processes.of_this_machine(how.running.workers),
            share=processes.share,
        )
        settings = MeasuredWith(
            batch_size_test=how.batch_size_test,
            loader=choose_loader(how.loader, how.dataset, how.prepared.manifest.storage, trains=False),
            # Evaluation is in fp32 whatever the training's precision (see `recu.training.evaluation`).
            precision="fp32",
            kernels=how.running.kernels,
        )
        origin = origin_of(device, processes)
        return cls(how=how, loaders=loaders, device=device, settings=settings, origin=origin, processes=processes)

    def evaluation(self, network: nn.Module | None) -> Evaluation:
        """Of the first process's network, which no other process has to give. Raises Interrupted when a signal came."""
        from tqdm import tqdm

        from recu.base.signals import TIME_LIMIT, stop_on_signals
        from recu.training.device import place
        from recu.training.evaluation import evaluate as evaluate_network
        from recu.training.seeding import make_deterministic

        make_deterministic()
        images, processes = self.loaders.test.num_images, self.processes
        bar = tqdm(
            desc="evaluating", total=images, unit=" images", leave=False, disable=None if processes.first else True
        )
        with stop_on_signals(self.how.running.end_time) as stop, processes.in_words(), bar:
            shared = processes.from_first(lambda: cast("nn.Module", network))
            placed = place(shared, self.device, kernels=self.settings.kernels)
            evaluation = evaluate_network(
                placed,
                self.loaders.test,
                stop=stop,
                processes=processes,
                seen=lambda count: bar.update(min(count * processes.count, images - bar.n)),
                classes=self._counted,
            )
        if evaluation is None:
            reason = stop.reason or "a signal to another process"
            more = " with more of it, since nothing of an evaluation is kept" if reason == TIME_LIMIT else ""
            raise Interrupted(f"evaluation stopped by {reason}: run the same command again{more}")
        return evaluation

    @property
    def _counted(self) -> int:
        """Classes of the confusion matrix; 0 for none."""
        count = len(self.loaders.manifest.classes)
        return count if count <= MOST_CLASSES else 0

    def measure(self, subject: Subject, network: nn.Module) -> Measurement:
        """What the subject's network gives on the images. Raises Interrupted when a signal came."""
        from recu.results.provenance import with_own

        # Hashed before it computes, as it was imported: the files may change meanwhile.
        own = own_sources(subject.model, subject.binariser, self.how.dataset.identity())
        code = with_own(self.origin.code_hash, own)
        evaluation = self.evaluation(network)
        manifest = self.loaders.manifest
        return Measurement(
            **asdict(evaluation),
            classes=manifest.classes if self._counted else None,
            checkpoint=subject.file.path.name,
            checkpoint_sha256=subject.file.sha256,
            weights_key=subject.file.weights_key,
            model=subject.model,
            family=subject.family,
            variant=subject.variant,
            stage=subject.stage,
            binariser=subject.binariser,
            dataset=self.how.name,
            data=self.how.dataset.identity(),
            data_fingerprint=manifest.fingerprint,
            test_content=manifest.content["test"],
            settings=self.settings,
            provenance=self.origin.model_copy(update={"code_hash": code}),
        )


def _assist(processes: Processes, how: Measuring) -> None:
    """What every process but the first does of an evaluation: its part of the batches."""
    Testbed.opened(how, processes).evaluation(None)


def _check_agreement(subject: Subject, measured: Measurement) -> None:
    """Refuse to give a number where the file's own training, on the very same data, measured another one."""
    from recu.results.rows import beyond_rounding

    identity = subject.identity
    if identity is None or identity.trained is None or identity.data_fingerprint != measured.data_fingerprint:
        return
    difference = beyond_rounding(measured, identity.trained, measured.n)
    if difference is not None:
        raise ResultError(
            f"{subject.file.path}: {difference}; the file was altered, or written by another version of this program:"
            " train again with this one"
        )


def describe_evaluation(measured: Measurement) -> str:
    """One line for people."""
    return f"top-1 {measured.top1:.2f} %, top-5 {measured.top5:.2f} %, loss {measured.loss:.4f} on {measured.n} images"


def _published(
    checkpoint: Path, digest: str, experiment: Experiment | Released, dataset: Dataset, manifest: Manifest
) -> Subject:
    """The published checkpoint, read once. Raises ResultError where it is not of this experiment and this data."""
    from recu.training.checkpoint import open_checkpoint

    file = open_checkpoint(checkpoint)
    again = f"train {experiment.id} again"
    if file.sha256 != digest:
        raise ResultError(f"{file.path} changed while it was read (SHA-256 differs from metrics.json's): {again}")
    if isinstance(experiment, Released):
        return recognise_released(file, experiment, dataset)
    subject = recognise(file, {}, experiment.dataset, dataset)
    identity = subject.identity
    if identity is None or identity.experiment != experiment.canonical:
        says = "nothing" if identity is None else f"{identity.network}, {identity.method}, seed {identity.seed}"
        hashes = "" if identity is None else f", hash {identity.spec_hash}"
        raise ResultError(
            f"{file.path} says that it is of another training ({says}{hashes}) than {experiment.id} (hash"
            f" {experiment.spec_hash}): {again}"
        )
    if identity.data_fingerprint != manifest.fingerprint:
        raise ResultError(
            f"{file.path} was trained on other data (fingerprint {identity.data_fingerprint:.12}) than is prepared"
            f" ({manifest.fingerprint:.12}): {again}"
        )
    return subject
