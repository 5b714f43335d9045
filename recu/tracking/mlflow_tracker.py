"""Mirrors a run into MLflow, through its client with an explicit run id: no global "active run" that
others could change.

Every method raises what MLflow raises, or `Refused`; `recu.tracking.safe` stands between this and a training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recu.tracking.client import connect, import_mlflow
from recu.tracking.store import empty_log, prepare_store, sqlite_file
from recu.tracking.tracker import DatasetDescription, RunDescription, Status, Tracker, numbers_of

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run
    from mlflow.tracking import MlflowClient

_ENTITIES_PER_CALL = 100
_LONGEST_PARAM, _LONGEST_TAG, _LONGEST_DIGEST = 6000, 5000, 36
_TAKEN = "BAD_REQUEST"
"""Among others, of a database in which something unique is there already."""
_PERMANENT = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST"}


class Refused(Exception):
    """The store answered and will not take this record, so sending it again is no use."""


class MlflowTracker(Tracker):
    """One run in the MLflow store at `tracking_uri`; nothing is contacted before `start`."""

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri
        self._client: MlflowClient | None = None
        self._run_id: str | None = None
        self._continued = False
        self._epochs_by_metric: dict[str, set[int]] = {}

    @property
    def run_id(self) -> str | None:
        """Known from `start` on."""
        return self._run_id

    def load(self) -> None:
        """Import MLflow; may raise ImportError, as `start` does then."""
        import_mlflow(self._tracking_uri)

    def start(self, description: RunDescription) -> None:
        """Continue the given run, else the one with the same identity tags, else make one.

        Calling it again after it failed half-way is safe: the identity tags are set when the run is made.
        """
        prepare_store(self._tracking_uri, [description.experiment])
        client = connect(self._tracking_uri)
        experiment = client.get_experiment_by_name(description.experiment)
        run = _find_run(client, experiment.experiment_id, description)
        self._continued = run is not None
        if run is None:
            run = client.create_run(
                experiment.experiment_id, tags=_all_tags(description), run_name=description.run_name
            )
        else:
            client.update_run(run.info.run_id, status="RUNNING")
        _complete(client, run, description)
        self._client, self._run_id = client, run.info.run_id
        self._epochs_by_metric.clear()

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """One call for the whole row; a row whose epoch the run already has is left out."""
        from mlflow.entities import Metric

        timestamp = int(metrics["time"])
        numbers = numbers_of(metrics)
        if not numbers:
            return
        known = self._known_epochs(min(numbers))
        if epoch in known:
            return
        entities = [Metric(name, value, timestamp, epoch) for name, value in numbers.items()]
        with _refusals():
            self._started().log_batch(self._run_id, metrics=entities)
        known.add(epoch)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """One call for all; a number that the run already shows is left out. "time" as in `log_epoch`, if
        given.
        """
        from mlflow.entities import Metric

        client = self._started()
        timestamp = int(metrics.get("time", time.time() * 1000))
        with _refusals():
            shown = client.get_run(self._run_id).data.metrics
            changed = {name: value for name, value in numbers_of(metrics).items() if shown.get(name) != value}
            if changed:
                entities = [Metric(name, value, timestamp, 0) for name, value in changed.items()]
                client.log_batch(self._run_id, metrics=entities)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy the file into the run's artifacts; the same file again replaces itself."""
        if not path.is_file():
            raise Refused(f"{path} does not exist")
        with _refusals():
            self._started().log_artifact(self._run_id, str(path), artifact_path=folder)

    def finish(self, status: Status) -> None:
        """Set the run's end and status."""
        with _refusals():
            self._started().set_terminated(self._run_id, status=status)

    def close(self) -> None:
        """Leave a SQLite store as one file."""
        file = sqlite_file(self._tracking_uri)
        if self._client is not None and file is not None:
            empty_log(file)

    def _started(self) -> MlflowClient:
        if self._client is None:
            raise RuntimeError("the tracker was not started")
        return self._client

    def _known_epochs(self, metric: str) -> set[int]:
        # A row is stored in one transaction, so one metric tells which rows are there. Asked once: nobody
        # else writes.
        if metric not in self._epochs_by_metric:
            stored = self._started().get_metric_history(self._run_id, metric) if self._continued else ()
            self._epochs_by_metric[metric] = {entry.step for entry in stored}
        return self._epochs_by_metric[metric]


def _find_run(client: MlflowClient, experiment_id: str, description: RunDescription) -> Run | None:
    identity = _identity(description)
    if description.run_id is not None:
        run = _get_run(client, description.run_id)
        # A checkpoint may have been copied from elsewhere, with the id of another run.
        if run is not None and all(run.data.tags.get(tag) == value for tag, value in identity.items()):
            return run
    # Identities are made of names that params/ restricts to letters, digits, "_", ".", "-" and "/".
    conditions = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in identity.items())
    found = client.search_runs([experiment_id], conditions, order_by=["attributes.start_time ASC"], max_results=1)
    return found[0] if found else None


def _get_run(client: MlflowClient, run_id: str) -> Run | None:
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def _complete(client: MlflowClient, run: Run, description: RunDescription) -> None:
    """Add the parameters, tags and dataset that the run does not have yet."""
    from mlflow.entities import Param, RunTag

    run_id = run.info.run_id
    # MLflow never lets a parameter change, and the same identity has the same parameters.
    params = [
        Param(name, value[:_LONGEST_PARAM]) for name, value in description.params.items() if name not in run.data.params
    ]
    tags = [RunTag(name, value) for name, value in _all_tags(description).items() if run.data.tags.get(name) != value]
    for some in _chunks(params):
        client.log_batch(run_id, params=some)
    for some in _chunks(tags):
        client.log_batch(run_id, tags=some)
    if description.dataset is not None and not run.inputs.dataset_inputs:
        _log_input(client, run_id, _dataset_input(description.dataset, description.stage))


def _log_input(client: MlflowClient, run_id: str, dataset_input: DatasetInput) -> None:
    """Name a dataset as an input, also where another run names it for the first time just now.

    MLflow looks for a dataset and then adds it; whoever adds it second is refused, and finds it when asking again.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.log_inputs(run_id, [dataset_input])
    except MlflowException as error:
        if error.error_code != _TAKEN:
            raise
        client.log_inputs(run_id, [dataset_input])


def _identity(description: RunDescription) -> dict[str, str]:
    return {
        "recu.experiment_id": description.experiment_id,
        "recu.spec_hash": description.spec_hash,
        "recu.stage": description.stage,
    }


def _all_tags(description: RunDescription) -> dict[str, str]:
    tags = {name: value[:_LONGEST_TAG] for name, value in description.tags.items()}
    # The login name that MLflow would take is nobody's business in a shared store.
    tags["mlflow.user"] = "recu"
    tags["mlflow.source.name"] = f"recu {description.stage}"
    if description.parent_run_id is not None:
        tags["mlflow.parentRunId"] = description.parent_run_id
    return tags | _identity(description)


def _dataset_input(dataset: DatasetDescription, stage: str) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    context = InputTag("mlflow.data.context", "training" if stage == "train" else "testing")
    entity = Dataset(
        name=dataset.name,
        digest=dataset.digest[:_LONGEST_DIGEST],
        source_type="recu",
        source=json.dumps({"description": dataset.source, "fingerprint": dataset.digest}),
    )
    return DatasetInput(entity, [context])


def _chunks(items: list) -> Iterator[list]:
    for start in range(0, len(items), _ENTITIES_PER_CALL):
        yield items[start : start + _ENTITIES_PER_CALL]


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn answers that will not change into `Refused`."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in _PERMANENT:
            raise Refused(str(error)) from error
        raise
