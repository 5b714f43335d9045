"""Measuring a released checkpoint file of a suite: the evaluate stage for what nobody here trained."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recu import paths
from recu.config import Dataset
from recu.errors import CheckpointError
from recu.experiments import network_name
from recu.files import hash_file
from recu.integrity import write_sealed_json
from recu.registry import find_network
from recu.released import Released
from recu.stages.evaluate import (
    LoadedFile,
    build_test_loaders,
    describe_evaluation,
    load_file,
    measure,
    mirror_evaluation,
)
from recu.stages.networks import describe_cost
from recu.stages.train import Running, check_writable, opened_tracker, tracked, use_threads

if TYPE_CHECKING:
    from recu.data import Prepared
    from recu.engine.weights import LoadReport

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
        runs_dir: holds what could not be sent to the tracking store.
        output: metrics.json of the evaluation.
        running: how to run it.

    Raises:
        RecuError: one line each: the file is missing, damaged or of another network; bad data; an unwritable folder.
        Interrupted: a signal came.
    """
    running = running or Running()
    check_writable(output.parent)
    file = Path(released.path)
    digest = _digest(released, file)
    state = paths.state_folder(runs_dir, released.id, released.spec_hash)
    with opened_tracker(running, state / "evaluate" / paths.OUTBOX) as tracker, tracked(tracker):
        from recu import provenance
        from recu.engine.device import choose_device, describe
        from recu.stages.description import describe_released_run

        device = choose_device(running.gpus)
        use_threads(running.threads)
        loaded = load_file(
            file,
            model=released.model,
            family=released.family,
            variant=None,
            stage=released.stage,
            num_classes=dataset.num_classes,
        )
        _log.info("%s: %s", file, loaded.report)
        loaders = build_test_loaders(dataset, prepared, released.batch_size_test, released.loader, device, running)
        origin = provenance.collect(describe(device))
        network = network_name(released.family, loaded.variant, released.model)
        # Counted first: moving the network to the device may change its layout.
        about = _about(released, loaded, dataset)
        tracker.start(describe_released_run(released, network, loaders.manifest, origin, checkpoint=digest))
        evaluation = measure(loaded.network, loaders, device)
        metrics = asdict(evaluation) | about
        metrics |= {
            "checkpoint_sha256": digest,
            "data_fingerprint": loaders.manifest.fingerprint,
            "provenance": origin,
            "mlflow_run_id": tracker.wait_for_run_id(),
        }
        write_sealed_json(output, metrics)
        mirror_evaluation(tracker, evaluation, output)
    _log.info("%s, claimed %.2f %%: %s", released.id, released.claimed_top1, describe_evaluation(evaluation))


def _digest(released: Released, file: Path) -> str:
    try:
        return hash_file(file)
    except FileNotFoundError as error:
        where = f": {released.obtain}" if released.obtain else " any more"
        raise CheckpointError(
            f"released file {file} is not here{where}; put it there, or change its `path` in"
            f" params/suites/{released.suite}.yaml"
        ) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error


def _about(released: Released, loaded: LoadedFile, dataset: Dataset) -> dict[str, Any]:
    """What is known of the file besides its accuracy."""
    return {
        "name": released.name,
        "released": released.model_dump(mode="json"),
        "spec_hash": released.spec_hash,
        "model": released.model,
        "family": released.family,
        "variant": loaded.variant,
        "dataset": released.dataset,
        "method": released.method,
        "claimed_top1": released.claimed_top1,
        "load": _load(loaded.report),
        "shortcut": find_network(released.model, family=released.family, variant=loaded.variant).shortcut,
        "cost": describe_cost(loaded.network, dataset.image_size),
    }


def _load(report: LoadReport) -> dict[str, Any]:
    values = asdict(report)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
