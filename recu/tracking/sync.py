"""Sends what is left in an outbox, after the training that wrote it has ended (`recu sync`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recu.errors import OutputError, ResultError
from recu.files import atomic_write_text, canonical_json
from recu.redaction import redact
from recu.tracking.mlflow_tracker import MlflowTracker, Refused
from recu.tracking.outbox import Content, Outbox, Record, apply, rows_in


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of one outbox."""

    outbox: Path
    run_id: str | None
    """None where there was nothing to send, or a live training holds the outbox and sends it itself."""
    sent: int = 0
    rejected: int = 0
    """Lines that cannot be read or that the store will not take; they are kept in a file named
    `*.rejected`.
    """
    busy: bool = False
    """True where a live training holds the outbox."""


def replay(outbox: Path, tracking_uri: str) -> Replay:
    """Send every record of `outbox` to the MLflow store at `tracking_uri`, then remove the file.

    Doing it twice, or after a part was sent before, stores nothing twice. A run that did not say how it
    ended was killed and is closed as such.

    Raises:
        OutputError: the store cannot be reached; the outbox stays as it is.
        ResultError: the outbox cannot be read, or does not say which run it belongs to.
    """
    box = Outbox(outbox)
    if not outbox.exists():
        return Replay(outbox, None)
    if not box.acquire():
        return Replay(outbox, None, busy=True)
    try:
        return _replay(box, box.read(), tracking_uri)
    finally:
        box.release()


def _replay(box: Outbox, content: Content, tracking_uri: str) -> Replay:
    if content.description is None:
        raise ResultError(
            f"{box.path}: the first line does not describe a run; move the file away (the training's own history "
            "is not affected)"
        )
    tracker = MlflowTracker(tracking_uri)
    records = list(content.records)
    if not any(record["event"] == "finish" for record in records):
        records.append({"event": "finish", "status": "KILLED"})
    try:
        tracker.start(content.description.with_rows(rows_in(records)))
        rejected = [*content.unreadable, *_send(records, tracker, box.folder)]
    except Exception as error:
        reason = " ".join(redact(str(error)).split())[:300]
        raise OutputError(
            f"cannot send {box.path} to {redact(tracking_uri)}: {reason}; it is kept, try again when the store answers"
        ) from error
    if rejected:
        atomic_write_text(box.path.with_suffix(".rejected"), "".join(f"{line}\n" for line in rejected))
    box.remove()
    tracker.close()
    sent = len(content.records) + len(content.unreadable) - len(rejected)
    return Replay(box.path, tracker.run_id, sent=sent, rejected=len(rejected))


def _send(records: list[Record], tracker: MlflowTracker, base: Path) -> list[str]:
    """Apply all records in order; returns those that the store refused, as lines."""
    refused = []
    # The end comes last, whatever order an interrupted writer left: a closed run takes no more.
    for record in sorted(records, key=lambda record: record["event"] == "finish"):
        try:
            apply(record, tracker, base)
        except Refused:
            refused.append(canonical_json(record))
    return refused
