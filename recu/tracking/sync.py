"""Sends what is left in outboxes, after the jobs that wrote them have ended (`recu sync`)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from recu.base.errors import RecuError, ResultError
from recu.base.files import canonical_json
from recu.base.redaction import redact
from recu.experiment import paths
from recu.tracking.mlflow_tracker import MlflowTracker, Refused
from recu.tracking.outbox import Content, Outbox, Record, apply, rows_in
from recu.tracking.tracker import CHECKPOINT_TAG, RunDescription


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of one outbox."""

    outbox: Path
    run_id: str | None
    """None where there was nothing to send, or a live training holds the outbox and sends it itself."""
    sent: int = 0
    rejected: int = 0
    """Lines that cannot be read, that name a file which is not the run's, or that the store will not take; they are
    kept in a file named `*.rejected`.
    """
    kept: int = 0
    """Records that stay in the outbox, since they may be taken later."""
    busy: bool = False
    """True where a live training holds the outbox."""
    reason: str = ""
    """Why the first line that was not sent was not."""


def replay(outbox: Path, tracking_uri: str, results_dirs: Iterable[Path] = ()) -> Replay:
    """Send every record of `outbox` to the MLflow store at `tracking_uri`, then remove the file.

    Doing it twice, or after a part was sent before, stores nothing twice. A run that did not say how it
    ended was killed and is closed as such.

    Args:
        outbox: the file.
        tracking_uri: the store.
        results_dirs: where the workflow may have published; files are sent from the run's own folders in them, and
            from the outbox's.

    Raises:
        OutputError: the store cannot be used; the outbox stays as it is.
        ResultError: the outbox cannot be read, or does not say which run it belongs to.
    """
    if not outbox.exists():
        return Replay(outbox, None)
    box = Outbox(outbox)
    if not box.acquire():
        return Replay(outbox, None, busy=True)
    try:
        content = box.read()
        if content.description is None:
            raise ResultError(
                f"{outbox}: the first line does not describe a run; move the file away (the training's own history"
                " is not affected)"
            )
        box.published = tuple(_published(results_dirs, content.description))
        return _replay(box, content.description, box.read(), tracking_uri)
    finally:
        box.release()


def parents_first(outboxes: Iterable[Path]) -> list[Path]:
    """The same outboxes, each training before what starts from its checkpoint or measures it."""
    waiting = {outbox: _read(outbox) for outbox in outboxes}
    ordered: list[Path] = []
    while waiting:
        made = {checkpoint for content in waiting.values() for checkpoint in _made(content)}
        ready = [outbox for outbox, content in waiting.items() if _wanted(content) not in made]
        # None is ready where damaged or crafted ones wait for each other.
        for outbox in ready or list(waiting):
            ordered.append(outbox)
            del waiting[outbox]
    return ordered


def _read(outbox: Path) -> Content:
    try:
        return Outbox(outbox).read()
    except ResultError:  # It is reported when it is sent.
        return Content(None)


def _made(content: Content) -> set[str]:
    return {record["tags"].get(CHECKPOINT_TAG, "") for record in content.records if record["event"] == "tags"}


def _wanted(content: Content) -> str | None:
    return None if content.description is None else content.description.parent_checkpoint


def _published(results_dirs: Iterable[Path], description: RunDescription) -> Iterator[Path]:
    """Where a run may have published, but for folders to which its name or a link leads from elsewhere."""
    identifier = Path(description.experiment_id)
    if identifier.is_absolute() or not identifier.parts or "\0" in description.experiment_id:
        return
    kinds = (paths.train_folder, paths.evaluate_folder, paths.released_folder)
    for results_dir in results_dirs:
        for folder in (kind(results_dir, str(identifier)) for kind in kinds):
            expected = Path(os.path.realpath(results_dir), folder.relative_to(results_dir))
            if os.path.realpath(folder) == str(expected):
                yield folder


def _replay(box: Outbox, description: RunDescription, content: Content, tracking_uri: str) -> Replay:
    tracker = MlflowTracker(tracking_uri)
    records = list(content.records)
    if not any(record["event"] == "finish" for record in records):
        records.append({"event": "finish", "status": "KILLED"})
    description = description.with_rows(rows_in(records))
    try:
        tracker.start(description)
        done = _send(records, tracker, box.folder)
    except RecuError:
        raise
    except Refused as error:
        # Nothing of a run that the store cannot have can be sent.
        box.set_all_aside()
        return Replay(box.path, None, rejected=len(content.records), reason=_worded(error))
    except Exception as error:
        return Replay(box.path, tracker.run_id, kept=len(content.records), reason=_worded(error))
    rejected = [*content.unreadable, *content.foreign, *map(canonical_json, done.refused)]
    box.set_aside(rejected)
    if done.kept:
        # The run's end is said once more, since sending again opens it.
        box.rewrite(replace(description, run_id=tracker.run_id), [*done.kept, records[-1]])
    else:
        box.remove()
    tracker.close()
    return Replay(
        box.path,
        tracker.run_id,
        sent=len(content.records) - len(done.refused) - len(done.kept),
        rejected=len(rejected),
        kept=len(done.kept),
        reason=_first_reason(content, done),
    )


@dataclass(slots=True)
class _Done:
    refused: list[Record]
    kept: list[Record]
    reason: str = ""


def _first_reason(content: Content, done: _Done) -> str:
    if content.foreign:
        return f"not a file of this run: {content.foreign[0][:200]}"
    return f"not a record: {content.unreadable[0][:200]}" if content.unreadable else done.reason


def _send(records: list[Record], tracker: MlflowTracker, base: Path) -> _Done:
    """Apply all records in order, in spite of those that the store refuses and of artifacts that it cannot take."""
    done = _Done([], [])
    # The end comes last, whatever order an interrupted writer left: a closed run takes no more.
    records.sort(key=lambda record: record["event"] == "finish")
    for record in records:
        try:
            if done.kept and record["event"] == "artifact":
                done.kept.append(record)
            else:
                apply(record, tracker, base)
        except Refused as error:
            done.refused.append(record)
            done.reason = done.reason or _worded(error)
        except Exception as error:
            if record["event"] != "artifact":
                raise
            # Artifacts go to a place of their own, which may fail while numbers arrive.
            done.kept.append(record)
            done.reason = done.reason or _worded(error)
    return done


def _worded(error: Exception) -> str:
    return " ".join(redact(str(error)).split())[:300]
