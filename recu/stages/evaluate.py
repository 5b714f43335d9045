"""The evaluate stage: a published training of the workflow, or any checkpoint file."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recu import paths
from recu.config import Dataset
from recu.errors import CheckpointError, Interrupted
from recu.experiments import Experiment, network_name
from recu.integrity import write_sealed_json
from recu.registry import check_network
from recu.stages.networks import Weights, build_network
from recu.stages.train import Running, check_writable, opened_tracker, tracked, use_threads
from recu.stages.trained import Trained, read_trained

if TYPE_CHECKING:
    import torch
    from torch import nn

    from recu.data import Loaders, Manifest, Prepared
    from recu.engine.evaluation import Evaluation
    from recu.engine.weights import LoadReport
    from recu.tracking import Tracker

_log = logging.getLogger(__name__)


def evaluate(
    experiment: Experiment,
    *,
    dataset: Dataset,
    prepared: Prepared,
    results_dir: Path,
    runs_dir: Path,
    running: Running | None = None,
) -> None:
    """Evaluate the published best checkpoint of an experiment and write metrics.json into its evaluation folder.

    Args:
        experiment: what was trained.
        dataset: its dataset's entry.
        prepared: the data.
        results_dir: where the training was published and the evaluation will be.
        runs_dir: holds what could not be sent to the tracking store.
        running: how to run it.

    Raises:
        RecuError: one line each: a missing result, one of other parameters, an altered checkpoint, bad data.
        Interrupted: a signal came.
    """
    running = running or Running()
    folder = paths.evaluate_folder(results_dir, experiment.id)
    check_writable(folder)
    trained = read_trained(results_dir, experiment.id, experiment.spec_hash)
    state = paths.state_folder(runs_dir, experiment.id, experiment.spec_hash)
    with opened_tracker(running, state / "evaluate" / paths.OUTBOX) as tracker, tracked(tracker):
        from recu import provenance
        from recu.engine.device import choose_device, describe
        from recu.stages.description import describe_run

        device = choose_device(running.gpus)
        use_threads(running.threads)
        loaders = build_test_loaders(
            dataset,
            prepared,
            experiment.hyperparameters.batch_size_test,
            experiment.hyperparameters.loader,
            device,
            running,
        )
        origin = provenance.collect(describe(device))
        run = describe_run(
            experiment,
            "evaluate",
            loaders.manifest,
            origin,
            parent_run_id=trained.run_id,
            parent_checkpoint=trained.metrics["checkpoint_sha256"],
        )
        tracker.start(run)
        evaluation = _measure_trained(trained, experiment, loaders, device)
        metrics = _metrics(experiment, evaluation, trained, loaders.manifest, origin, tracker.wait_for_run_id())
        write_sealed_json(folder / paths.METRICS, metrics)
        mirror_evaluation(tracker, evaluation, folder / paths.METRICS)
    _log.info("%s: %s", experiment.id, describe_evaluation(evaluation))


def evaluate_file(
    checkpoint: Path,
    *,
    model: str,
    family: str,
    variant: str | None,
    stage: int,
    dataset: Dataset,
    prepared: Prepared,
    batch_size_test: int,
    loader: str,
    running: Running | None = None,
) -> tuple[Evaluation, LoadReport]:
    """Evaluate a checkpoint of this program or the authors'.

    Args:
        checkpoint: the file.
        model: network name.
        family: network family.
        variant: None to recognise it from the checkpoint's keys.
        stage: what the network binarises.
        dataset: the dataset's entry.
        prepared: the data.
        batch_size_test: images a step.
        loader: input pipeline.
        running: how to run it.

    Returns:
        The measurement over the test split, and what became of the checkpoint's tensors.

    Raises:
        RecuError: one line each: unknown names, an unreadable checkpoint or one that does not fit, bad data.
    """
    from recu.engine.device import choose_device

    running = running or Running()
    device = choose_device(running.gpus)
    use_threads(running.threads)
    loaded = load_file(
        checkpoint, model=model, family=family, variant=variant, stage=stage, num_classes=dataset.num_classes
    )
    loaders = build_test_loaders(dataset, prepared, batch_size_test, loader, device, running)
    return measure(loaded.network, loaders, device), loaded.report


@dataclass(frozen=True, kw_only=True)
class LoadedFile:
    """A network with the weights of a checkpoint file."""

    network: nn.Module
    variant: str | None
    """As given, or as recognised from the file's keys."""
    report: LoadReport


def load_file(
    checkpoint: Path, *, model: str, family: str, variant: str | None, stage: int, num_classes: int
) -> LoadedFile:
    """Build the network of a checkpoint of this program or the authors' and load it; arguments as for `evaluate_file`.

    Raises:
        RecuError: one line each: unknown names, an unreadable checkpoint or one that does not fit.
    """
    from recu.engine.checkpoint import read_checkpoint
    from recu.engine.weights import load_weights
    from recu.models import build_model, recognise_variant

    state_dict = read_checkpoint(checkpoint)["state_dict"]
    try:
        variant = variant or recognise_variant(state_dict)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
    check_network(model, family=family, variant=variant, stage=stage)
    network = build_model(model, family=family, num_classes=num_classes, variant=variant, stage=stage)
    try:
        report = load_weights(network, state_dict)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint} as {network_name(family, variant, model)}: {error}") from error
    return LoadedFile(network=network, variant=variant, report=report)


def describe_evaluation(evaluation: Evaluation) -> str:
    """One line for people."""
    return (
        f"top-1 {evaluation.top1:.2f} %, top-5 {evaluation.top5:.2f} %, loss {evaluation.loss:.4f}"
        f" on {evaluation.n} images"
    )


def _measure_trained(trained: Trained, experiment: Experiment, loaders: Loaders, device: torch.device) -> Evaluation:
    network = build_network(experiment)
    Weights(checkpoint=trained.checkpoint).load_into(network)
    return measure(network, loaders, device)


def measure(network: nn.Module, loaders: Loaders, device: torch.device) -> Evaluation:
    """Evaluate a network over the test split. Raises Interrupted when a signal came."""
    from recu.engine.device import place
    from recu.engine.evaluation import evaluate as evaluate_network
    from recu.engine.seeding import make_deterministic
    from recu.engine.signals import stop_on_signals

    make_deterministic()
    with stop_on_signals() as stop:
        evaluation = evaluate_network(place(network, device), loaders.test, stop=stop)
    if evaluation is None:
        raise Interrupted(f"evaluation stopped by {stop.signal_name}: run the same command again")
    return evaluation


def build_test_loaders(
    dataset: Dataset, prepared: Prepared, batch_size_test: int, loader: str, device: torch.device, running: Running
) -> Loaders:
    """Loaders of prepared data of which only the test split is read. Raises DataError."""
    from recu.data import build_loaders

    return build_loaders(
        prepared,
        dataset,
        splits=("test",),
        batch_size=batch_size_test,
        batch_size_test=batch_size_test,
        loader=loader,
        seed=0,
        device=device,
        workers=running.workers,
    )


def _metrics(
    experiment: Experiment,
    evaluation: Evaluation,
    trained: Trained,
    manifest: Manifest,
    origin: dict[str, Any],
    run_id: str | None,
) -> dict[str, Any]:
    return asdict(evaluation) | {
        "experiment_id": experiment.id,
        "spec_hash": experiment.spec_hash,
        "checkpoint_sha256": trained.metrics["checkpoint_sha256"],
        "data_fingerprint": manifest.fingerprint,
        "provenance": origin,
        "mlflow_run_id": run_id,
    }


def mirror_evaluation(tracker: Tracker, evaluation: Evaluation, file: Path) -> None:
    """Send a measurement and the file it was published in to the tracking store."""
    tracker.log_metrics({f"test_{name}": value for name, value in asdict(evaluation).items()})
    tracker.log_artifact(file)
