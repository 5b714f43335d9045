"""The local file of records that a tracking store has not taken yet: one JSON object a line, the first
describes the run.

A record is written here before it is sent, and the file is cut back once everything was taken. So whatever
happens, what is missing in the store is in the file; that a record may be in both does no harm, since
sending one twice stores it once.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from recu.errors import ResultError
from recu.files import atomic_write_text
from recu.tracking.tracker import DatasetDescription, Row, RunDescription, Tracker, rows_of

Record = dict[str, Any]
"""`{"event": "epoch" | "metrics" | "tags" | "artifact" | "finish", ...}`; see `apply`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """What an outbox file holds."""

    description: RunDescription | None
    """None where there is no file, or its first line cannot be read."""
    records: tuple[Record, ...] = ()
    unreadable: tuple[str, ...] = ()
    """Lines that are no records: the last one of a process that was killed while writing, or damaged ones."""


class Outbox:
    """One outbox file. Only the holder of its lock may change it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = None

    @property
    def folder(self) -> Path:
        """Artifact paths in records are relative to it, so that a moved project keeps its records."""
        return self.path.parent

    def acquire(self) -> bool:
        """Take the lock without waiting; False if another process has it. The system frees it when the
        process ends.
        """
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        self._lock = lock
        return True

    def release(self) -> None:
        """Give the lock back, if held."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def read(self) -> Content:
        """Parse the file; lines that cannot be read are kept apart rather than lost.

        Raises:
            ResultError: the file exists but cannot be opened.
        """
        try:
            lines = self.path.read_bytes().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return Content(None)
        except OSError as error:
            raise ResultError(f"cannot read {self.path}: {error.strerror}") from error
        description, records, unreadable = None, [], []
        for number, line in enumerate(lines):
            try:
                value = json.loads(line)
                if number == 0:
                    description = _description(value)
                else:
                    records.append(_checked(value))
            except (ValueError, TypeError, KeyError, RecursionError):
                unreadable.append(line)
        return Content(description, tuple(records), tuple(unreadable))

    def append(self, record: Record) -> None:
        """Add one record. Raises OSError."""
        # One write to an append-only descriptor: a kill leaves at most a torn last line.
        with self.path.open("ab", buffering=0) as stream:
            stream.write(_line(record))

    def rewrite(self, description: RunDescription, records: Iterable[Record] = ()) -> None:
        """Replace the content atomically. Raises OutputError."""
        lines = [_line({"event": "start", **dataclasses.asdict(description)}), *map(_line, records)]
        atomic_write_text(self.path, b"".join(lines).decode())

    def remove(self) -> None:
        """Delete the file: everything was taken."""
        self.path.unlink(missing_ok=True)

    def artifact_record(self, path: Path, folder: str | None) -> Record:
        """The record of one artifact."""
        return {"event": "artifact", "path": os.path.relpath(path, self.folder), "folder": folder}


def apply(record: Record, tracker: Tracker, base: Path) -> None:
    """Do to `tracker` what `record` says; relative artifact paths start at `base`."""
    match record["event"]:
        case "epoch":
            tracker.log_epoch(record["epoch"], record["metrics"])
        case "metrics":
            tracker.log_metrics(record["metrics"])
        case "tags":
            tracker.log_tags(record["tags"])
        case "artifact":
            tracker.log_artifact(base / record["path"], record["folder"])
        case "finish":
            tracker.finish(record["status"])


def rows_in(records: Iterable[Record]) -> tuple[Row, ...]:
    """The epochs that records tell of."""
    return rows_of(record["metrics"] | {"epoch": record["epoch"]} for record in records if record["event"] == "epoch")


def find_outboxes(folder: Path) -> Iterator[Path]:
    """Every outbox file below `folder`."""
    with suppress(FileNotFoundError):
        yield from sorted(path for path in folder.rglob("*outbox*.jsonl") if path.is_file())


_REQUIRED = {
    "epoch": {"epoch": int, "metrics": dict},
    "metrics": {"metrics": dict},
    "tags": {"tags": dict},
    "artifact": {"path": str, "folder": (str, type(None))},
    "finish": {"status": str},
}


def _checked(value: Any) -> Record:
    for name, kind in _REQUIRED[value["event"]].items():
        if not isinstance(value[name], kind):
            raise TypeError(name)
    return value


def _description(value: Any) -> RunDescription:
    fields = {name: content for name, content in value.items() if name != "event"}
    if fields.get("dataset") is not None:
        fields["dataset"] = DatasetDescription(**fields["dataset"])
    if fields.get("rows") is not None:
        fields["rows"] = tuple(Row(*row) for row in fields["rows"])
    return RunDescription(**fields)


def _line(record: Record) -> bytes:
    return json.dumps(record).encode() + b"\n"
