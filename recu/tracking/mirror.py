"""Makes a run in MLflow what the run's files say: sends what is missing there, and nothing twice.

It uses MLflow's client with an explicit run id: no global "active run" that others could change.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from recu.base.files import hash_file
from recu.base.redaction import redact
from recu.tracking.client import connect
from recu.tracking.description import CHECKPOINT_TAG, RunDescription
from recu.tracking.store import prepare_store
from recu.tracking.wanted import MOST_NUMBERS, Folders, Row, Wanted, read_run

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

_ENTITIES_PER_CALL = 100
_LONGEST_PARAM, _LONGEST_TAG, _DIGEST = 6000, 5000, 12
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
    """The store answered and will not take this, so sending it again is no use."""


@dataclass(slots=True)
class Mirrored:
    """What became of one run."""

    run_id: str
    sent: int = 0
    """Parts that the store did not have."""
    left: list[str] = field(default_factory=list)
    """What it does not have now, in words, without credentials: each other part was sent all the same."""


def bring(folders: Folders, tracking_uri: str, *, live: bool = False, upload_checkpoint: bool = False) -> Mirrored:
    """Mirror the run of these folders into the store at `tracking_uri`.

    Args:
        folders: the run's own.
        tracking_uri: the store.
        live: as for `recu.tracking.wanted.read_run`.
        upload_checkpoint: as for `mirror`.

    Raises:
        OutputError: the store cannot be used.
        ResultError: the files do not say which run they are of.
        Refused: the store cannot have this run.
        mlflow.exceptions.MlflowException: the store failed half-way; calling again goes on.
    """
    wanted = read_run(folders, live=live)
    prepare_store(tracking_uri, [wanted.description.experiment])
    return mirror(wanted, connect(tracking_uri), upload_checkpoint=upload_checkpoint)


def mirror(wanted: Wanted, client: MlflowClient, *, upload_checkpoint: bool = False) -> Mirrored:
    """Send what the store lacks of a run; its experiment is there. Called again it changes nothing.

    A run is continued only if every epoch in it is one of the training's, so that no run ever shows two trainings. It
    is found by its identity, and its end is told last, so that a call that fails half-way is made good by the next.

    Args:
        wanted: the run.
        client: of the store.
        upload_checkpoint: whether a store that is not on this machine gets a copy of the published checkpoint; it is
            told its name and its SHA-256 anyway.

    Raises:
        Refused, mlflow.exceptions.MlflowException: as `bring`.
    """
    description = wanted.description
    experiment = client.get_experiment_by_name(description.experiment)
    if experiment is None:
        raise Refused(f"the store has no experiment {description.experiment!r}")
    experiment_id = experiment.experiment_id
    with _refusals():
        alike = _runs_with(client, experiment_id, description.identity)
        run = next((run for run in alike if _is_ours(client, run, wanted)), None)
        tags = _all_tags(client, experiment_id, wanted)
        if run is None:
            run = _make_run(client, experiment_id, alike, wanted)
            done = Mirrored(run.info.run_id, sent=1)
        else:
            done = Mirrored(run.info.run_id)
    done.left += wanted.problems
    sender = _Sender(client, run, done)
    sender.status(wanted, "RUNNING")
    sender.params(description.params)
    sender.tags(tags)
    sender.dataset(description)
    sender.rows(wanted.rows or ())
    sender.numbers(wanted.numbers, wanted.time)
    sender.files(wanted.files)
    if wanted.checkpoint is not None:
        sender.checkpoint(wanted.checkpoint, wanted.tags[CHECKPOINT_TAG], upload_checkpoint)
    sender.status(wanted, wanted.status)
    return done


class _Sender:
    """Sends the parts of one run that the store lacks."""

    def __init__(self, client: MlflowClient, run: Run, done: Mirrored) -> None:
        self._client, self._run, self._done = client, run, done
        self._run_id = run.info.run_id
        self._status = run.info.status

    def status(self, wanted: Wanted, status: str) -> None:
        """A run is open while anything is sent, and its end is told last."""
        if status == self._status or (status == "RUNNING" and wanted.status == self._status):
            return
        if status == "RUNNING":
            self._client.update_run(self._run_id, status=status)
        else:
            self._client.set_terminated(self._run_id, status=status, end_time=wanted.time)
        self._status = status
        self._done.sent += 1

    def params(self, params: Mapping[str, str]) -> None:
        """MLflow never lets a parameter change, and the same identity has the same parameters."""
        from mlflow.entities import Param

        missing = [
            Param(name, _fitted(value, _LONGEST_PARAM))
            for name, value in params.items()
            if name not in self._run.data.params
        ]
        self._send(missing, _ENTITIES_PER_CALL, lambda some: self._client.log_batch(self._run_id, params=some))

    def tags(self, tags: Mapping[str, str]) -> None:
        """A tag of the same name is replaced."""
        from mlflow.entities import RunTag

        shown = self._run.data.tags
        missing = [RunTag(name, value) for name, value in tags.items() if shown.get(name) != value]
        self._send(missing, _ENTITIES_PER_CALL, lambda some: self._client.log_batch(self._run_id, tags=some))

    def dataset(self, description: RunDescription) -> None:
        """Name the data as an input."""
        inputs = self._run.inputs
        if inputs is None or not inputs.dataset_inputs:
            self._send([_dataset_input(description)], 1, self._log_inputs)

    def _log_inputs(self, inputs: list) -> None:
        """Also where another run names the data for the first time just now.

        MLflow looks for a dataset and then adds it; whoever adds it second is refused, and finds it when asking again.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_inputs(self._run_id, inputs)
        except MlflowException as error:
            if error.error_code != _TAKEN:
                raise
            self._client.log_inputs(self._run_id, inputs)

    def rows(self, rows: Sequence[Row]) -> None:
        """A row is stored in one transaction, so one of its numbers tells whether it is there."""
        from mlflow.entities import Metric

        stored = set(_stored_rows(self._client, self._run, rows)) if self._run.data.metrics else set()
        missing = [row for row in rows if (row.mark, row.epoch) not in stored]

        def send(some: list[Row]) -> None:
            metrics = [Metric(name, value, row.time, row.epoch) for row in some for name, value in row.numbers.items()]
            self._client.log_batch(self._run_id, metrics=metrics)

        longest = max((len(row.numbers) for row in missing), default=1)
        self._send(missing, max(1, MOST_NUMBERS // longest), send)

    def numbers(self, numbers: Mapping[str, float], time: int) -> None:
        """Numbers that belong to no epoch."""
        from mlflow.entities import Metric

        shown = self._run.data.metrics
        missing = [
            Metric(name, value, time, 0)
            for name, value in numbers.items()
            if name not in shown or not _same_number(shown[name], value)
        ]
        self._send(missing, _ENTITIES_PER_CALL, lambda some: self._client.log_batch(self._run_id, metrics=some))

    def files(self, files: Sequence[Path]) -> None:
        """Copies of small files, known by their SHA-256; the same name again replaces the copy."""
        for file in files:
            self._guarded(file, partial(self._upload_whole, file))

    def checkpoint(self, file: Path, sha256: str, upload: bool) -> None:
        """A second name of the file among the run's artifacts, where they lie on the same disk; a copy only if asked.

        The tags say where it is and what is in it anyway.
        """
        folder = _local_folder(self._run.info.artifact_uri)
        if folder is not None:
            self._guarded(file, lambda: self._link(file, folder / file.name, sha256))
        elif upload:
            self._guarded(file, lambda: self._upload(file, sha256))

    def _link(self, file: Path, target: Path, sha256: str) -> None:
        if target.exists() and target.samefile(file):
            return
        if hash_file(file) != sha256:
            raise Refused("it is not the checkpoint that metrics.json names")
        target.parent.mkdir(parents=True, exist_ok=True)
        name = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            name.hardlink_to(file)
            name.replace(target)
        except OSError:
            # Another disk, or one without such links. What lies there of another training must not pass for it.
            if target.exists() and hash_file(target) != sha256:
                target.unlink()
        else:
            self._done.sent += 1
        finally:
            name.unlink(missing_ok=True)

    def _upload_whole(self, file: Path) -> None:
        self._upload(file, hash_file(file))

    def _upload(self, file: Path, sha256: str) -> None:
        tag = f"sha256.{file.name}"
        there = {found.path for found in self._client.list_artifacts(self._run_id)}
        if file.name in there and self._run.data.tags.get(tag) == sha256:
            return
        self._client.log_artifact(self._run_id, str(file))
        self._client.set_tag(self._run_id, tag, sha256)
        self._done.sent += 1

    def _guarded(self, file: Path, send: Callable[[], None]) -> None:
        """Artifacts go to a place of their own, which may fail while numbers arrive."""
        try:
            send()
        except Exception as error:
            self._done.left.append(f"{file}: {worded(error)}")

    def _send(self, items: list[Any], at_once: int, send: Callable[[list[Any]], object]) -> None:
        """All items in few calls; of a call that is refused each for itself, so that one holds no other up."""
        for start in range(0, len(items), at_once):
            some = items[start : start + at_once]
            try:
                with _refusals():
                    send(some)
                self._done.sent += len(some)
            except Refused as error:
                if len(some) > 1:
                    self._send(some, 1, send)
                else:
                    self._done.left.append(worded(error))


def worded(error: Exception) -> str:
    """An error of a store in one line, without credentials."""
    return " ".join(redact(str(error)).split())[:300] or type(error).__name__


def _is_ours(client: MlflowClient, run: Run, wanted: Wanted) -> bool:
    """Whether a run of this identity holds nothing but epochs of this training."""
    if wanted.rows is None:
        return True
    known = {(row.mark, row.epoch): row for row in wanted.rows}
    stored = _stored_rows(client, run, wanted.rows) if run.data.metrics else {}
    if not stored:
        # Nothing can be mixed up, but a training that runs beside this one may be about to log to it.
        return wanted.started_ns is not None and run.data.tags.get(_STARTED) == str(wanted.started_ns)
    return all(
        place in known and time == known[place].time and _same_number(value, known[place].numbers[place[0]])
        for place, (time, value) in stored.items()
    )


def _stored_rows(client: MlflowClient, run: Run, rows: Sequence[Row]) -> dict[tuple[str, int], tuple[int, float]]:
    """By metric and epoch, time and value of what the run has of the metrics that stand for rows."""
    return {
        (metric, entry.step): (entry.timestamp, entry.value)
        for metric in sorted({row.mark for row in rows})
        for entry in client.get_metric_history(run.info.run_id, metric)
    }


def _runs_with(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> list[Run]:
    """Every run with these tags, the newest first."""
    # The values are names that params/ restricts to letters, digits, "_", ".", "-" and "/", or digests, unless the
    # files come from elsewhere.
    if any("'" in value for value in tags.values()):
        raise Refused("a run's identity holds no quotation mark")
    conditions = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
    return client.search_runs([experiment_id], conditions, order_by=["attributes.start_time DESC"])


def _make_run(client: MlflowClient, experiment_id: str, alike: list[Run], wanted: Wanted) -> Run:
    """A new run with the tags that find it again; earlier ones of the same training say where it was begun anew."""
    begin = wanted.rows[0].time if wanted.rows else wanted.time
    start_time = begin if wanted.started_ns is None else wanted.started_ns // 1_000_000
    name = wanted.description.run_name
    run = client.create_run(experiment_id, start_time=start_time, tags=_finding_tags(wanted), run_name=name)
    for earlier in alike:
        if _NEWER not in earlier.data.tags and earlier.info.start_time <= run.info.start_time:
            client.set_tag(earlier.info.run_id, _NEWER, run.info.run_id)
    return run


def _finding_tags(wanted: Wanted) -> dict[str, str]:
    # The login name that MLflow would take is nobody's business in a shared store.
    tags = wanted.description.identity | {
        "mlflow.user": "recu",
        "mlflow.source.name": f"recu {wanted.description.stage}",
    }
    return tags if wanted.started_ns is None else tags | {_STARTED: str(wanted.started_ns)}


def _all_tags(client: MlflowClient, experiment_id: str, wanted: Wanted) -> dict[str, str]:
    description = wanted.description
    tags = {name: _fitted(value, _LONGEST_TAG) for name, value in (dict(description.tags) | dict(wanted.tags)).items()}
    if description.parent_checkpoint is not None:
        made_it = {"recu.stage": "train", CHECKPOINT_TAG: description.parent_checkpoint}
        for run in _runs_with(client, experiment_id, made_it)[:1]:
            tags["mlflow.parentRunId"] = run.info.run_id
    return tags | _finding_tags(wanted)


def _fitted(value: str, longest: int) -> str:
    """`value`, or its beginning and how long it is: a part must not pass for the whole."""
    if len(value) <= longest:
        return value
    mark = f" [cut: {len(value)} characters]"
    return value[: longest - len(mark)] + mark


def _same_number(stored: float, value: float) -> bool:
    """Also for what a store changes: it keeps infinity as the largest number."""
    if math.isfinite(value):
        return stored == value
    return math.isnan(stored) if math.isnan(value) else abs(stored) > _STORED_INFINITY


def _dataset_input(description: RunDescription) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    context = InputTag("mlflow.data.context", "training" if description.stage == "train" else "testing")
    fingerprint = description.data_fingerprint
    source = json.dumps({"description": description.data_source, "fingerprint": fingerprint})
    digest = fingerprint[:_DIGEST]
    entity = Dataset(name=description.dataset, digest=digest, source_type="recu", source=source)
    return DatasetInput(entity, [context])


def _local_folder(artifact_uri: str) -> Path | None:
    """The folder of a run's artifacts; None where they are not in a file system."""
    parts = urlsplit(artifact_uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what will not change into `Refused`: a permanent answer, and values that cannot be sent at all."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in _PERMANENT:
            raise Refused(str(error)) from error
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise Refused(f"{type(error).__name__}: {error}") from error
