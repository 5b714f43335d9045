"""Mirrors a run into MLflow, through its client with an explicit run id: no global "active run" that
others could change.

Every method raises what MLflow raises, or `Refused`; `recu.tracking.safe` stands between this and a training.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from recu.base.addresses import sqlite_file
from recu.tracking.client import connect, import_mlflow
from recu.tracking.store import empty_log, names_a_folder, prepare_store
from recu.tracking.tracker import CHECKPOINT_TAG, DatasetDescription, RunDescription, Status, Tracker, numbers_of

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run
    from mlflow.tracking import MlflowClient

_ENTITIES_PER_CALL = 100
_LONGEST_PARAM, _LONGEST_TAG, _LONGEST_DIGEST = 6000, 5000, 36
_TAKEN = "BAD_REQUEST"
"""Among others, of a database in which something unique is there already."""
_STORED_INFINITY = 1.7e308
"""A store keeps an infinite number as the largest finite one."""
_STARTED = "recu.started"
"""Tag: when the run was asked for, in nanoseconds."""
_NEWER = "recu.newer_run"
"""Tag of a training's run: the same training was begun anew, in this run."""
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
        self._stored_by_metric: dict[str, dict[int, float]] = {}

    @property
    def run_id(self) -> str | None:
        """Known from `start` on."""
        return self._run_id

    def load(self) -> None:
        """Import MLflow; may raise ImportError, as `start` does then."""
        import_mlflow(self._tracking_uri)

    def start(self, description: RunDescription) -> None:
        """Continue the given run, else one of the same identity, else make one.

        A run is continued only if every epoch in it is one of the description's `rows`, so that no run ever shows two
        trainings. Calling it again after it failed half-way is safe: the tags that find the run are set when it is
        made.
        """
        if not names_a_folder(description.experiment):
            raise Refused(f"{description.experiment!r} cannot be the name of an experiment")
        prepare_store(self._tracking_uri, [description.experiment])
        client = connect(self._tracking_uri)
        experiment_id = client.get_experiment_by_name(description.experiment).experiment_id
        with _refusals({"INVALID_PARAMETER_VALUE"}):
            description = _with_parent(client, experiment_id, description)
            alike = _runs_with(client, experiment_id, description.identity)
            run = _run_to_continue(client, alike, description)
            self._continued = run is not None
            if run is None:
                run = _make_run(client, experiment_id, alike, description)
            else:
                client.update_run(run.info.run_id, status="RUNNING")
            _complete(client, run, description)
        self._client, self._run_id = client, run.info.run_id
        self._stored_by_metric.clear()

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """One call for the whole row; a row that the run already has is left out.

        Raises:
            Refused: the run has another row of this epoch, which would stay beside it.
        """
        from mlflow.entities import Metric

        timestamp = int(metrics["time"])
        numbers = numbers_of(metrics)
        if not numbers:
            return
        probe = min(numbers)
        stored = self._stored(probe)
        if epoch in stored:
            if not _same_number(stored[epoch], numbers[probe]):
                raise Refused(f"the run already has another epoch {epoch} ({probe} {stored[epoch]})")
            return
        entities = [Metric(name, value, timestamp, epoch) for name, value in numbers.items()]
        with _refusals():
            self._started().log_batch(self._run_id, metrics=entities)
        stored[epoch] = numbers[probe]

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

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """One call for all; a tag of the same name is replaced."""
        from mlflow.entities import RunTag

        with _refusals():
            self._started().log_batch(self._run_id, tags=[RunTag(name, value) for name, value in tags.items()])

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

    def _stored(self, metric: str) -> dict[int, float]:
        """The metric's value by epoch. A row is stored in one transaction, so one metric tells which rows are there."""
        # Asked once: nobody else writes.
        if metric not in self._stored_by_metric:
            stored = self._started().get_metric_history(self._run_id, metric) if self._continued else ()
            self._stored_by_metric[metric] = {entry.step: entry.value for entry in stored}
        return self._stored_by_metric[metric]


def _run_to_continue(client: MlflowClient, alike: list[Run], description: RunDescription) -> Run | None:
    """The run named by the checkpoint, else the newest of the same identity, that belongs to this very training."""
    named = None if description.run_id is None else _get_run(client, description.run_id)
    # A checkpoint may have been copied from elsewhere, with the id of another run.
    if named is not None and _has_tags(named, description.identity) and _is_ours(client, named, description):
        return named
    return next((run for run in alike if _is_ours(client, run, description)), None)


def _is_ours(client: MlflowClient, run: Run, description: RunDescription) -> bool:
    """Whether a run of this identity holds nothing but epochs of this training."""
    if description.rows is None:
        return True
    if not run.data.metrics:
        # Nothing can be mixed up, but a training that runs beside this one may be about to log to it.
        started = run.data.tags.get(_STARTED)
        return description.run_id == run.info.run_id or (started is not None and started == str(description.started_ns))
    times = {(row.metric, row.epoch): row.time for row in description.rows}
    stored = [
        (metric, entry.step, entry.timestamp)
        for metric in sorted({row.metric for row in description.rows})
        for entry in client.get_metric_history(run.info.run_id, metric)
    ]
    return bool(stored) and all(times.get((metric, epoch)) == time for metric, epoch, time in stored)


def _runs_with(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> list[Run]:
    """Every run with these tags, the newest first."""
    # The values are names that params/ restricts to letters, digits, "_", ".", "-" and "/", or digests, unless an
    # outbox comes from elsewhere.
    if any("'" in value for value in tags.values()):
        raise Refused("a run's identity holds no quotation mark")
    conditions = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
    return client.search_runs([experiment_id], conditions, order_by=["attributes.start_time DESC"])


def _has_tags(run: Run, tags: Mapping[str, str]) -> bool:
    return all(run.data.tags.get(tag) == value for tag, value in tags.items())


def _make_run(client: MlflowClient, experiment_id: str, alike: list[Run], description: RunDescription) -> Run:
    """A new run; earlier ones of the same training say where it was begun anew."""
    tags, start_time = _all_tags(description), None
    if description.started_ns is not None:
        tags[_STARTED] = str(description.started_ns)
        start_time = description.started_ns // 1_000_000
    run = client.create_run(experiment_id, start_time=start_time, tags=tags, run_name=description.run_name)
    for earlier in alike:
        if _NEWER not in earlier.data.tags and earlier.info.start_time <= run.info.start_time:
            client.set_tag(earlier.info.run_id, _NEWER, run.info.run_id)
    return run


def _with_parent(client: MlflowClient, experiment_id: str, description: RunDescription) -> RunDescription:
    """With the parent's run as this store knows it: the id stems from a file that may have met another store."""
    wanted = description.parent_checkpoint
    if wanted is None:
        return description
    parent = None if description.parent_run_id is None else _get_run(client, description.parent_run_id)
    if parent is not None and parent.data.tags.get(CHECKPOINT_TAG, wanted) == wanted:
        return description
    found = _runs_with(client, experiment_id, {"recu.stage": "train", CHECKPOINT_TAG: wanted})
    return replace(description, parent_run_id=found[0].info.run_id) if found else description


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
        Param(name, _fitted(value, _LONGEST_PARAM))
        for name, value in description.params.items()
        if name not in run.data.params
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


def _all_tags(description: RunDescription) -> dict[str, str]:
    tags = {name: _fitted(value, _LONGEST_TAG) for name, value in description.tags.items()}
    # The login name that MLflow would take is nobody's business in a shared store.
    tags["mlflow.user"] = "recu"
    tags["mlflow.source.name"] = f"recu {description.stage}"
    if description.parent_run_id is not None:
        tags["mlflow.parentRunId"] = description.parent_run_id
    return tags | description.identity


def _fitted(value: str, longest: int) -> str:
    """`value`, or its beginning and how long it is: a part must not pass for the whole."""
    if len(value) <= longest:
        return value
    mark = f" [cut: {len(value)} characters]"
    return value[: longest - len(mark)] + mark


def _same_number(first: float, second: float) -> bool:
    """Also for what a store changes: it keeps infinity as the largest number."""
    if math.isfinite(second):
        return first == second
    return math.isnan(first) if math.isnan(second) else abs(first) > _STORED_INFINITY


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
def _refusals(permanent: Collection[str] = _PERMANENT) -> Iterator[None]:
    """Turn what will not change into `Refused`: errors with these codes, and values that cannot be sent at all."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in permanent:
            raise Refused(str(error)) from error
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise Refused(f"{type(error).__name__}: {error}") from error
