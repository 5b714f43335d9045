"""The local file of records that a tracking store has not taken yet: one JSON object a line, the first
describes the run.

A record is written here before it is sent, and the file is cut back once everything was taken. So whatever
happens, what is missing in the store is in the file; that a record may be in both does no harm, since
sending one twice stores it once.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter

from recu.base.errors import ResultError
from recu.base.files import atomic_write_text, check_ordinary, free_name
from recu.tracking.tracker import Row, RunDescription, Status, Tracker, rows_of

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
    foreign: tuple[str, ...] = ()
    """Lines that name a file outside the run's folders as its artifact: an outbox may come from elsewhere."""


class Outbox:
    """One outbox file. Only the holder of its lock may change it.

    Args:
        path: the file, in the run's state folder.
        published: folders the run may have published into. Artifacts lie there, or beside the outbox.
    """

    def __init__(self, path: Path, published: Iterable[Path] = ()) -> None:
        self.path, self.published = path, tuple(published)
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
        """Parse the file; lines that cannot be read, or must not be sent, are kept apart rather than lost.

        Raises:
            ResultError: the file exists but cannot be opened, or is larger than any outbox.
        """
        description: RunDescription | None = None
        records: list[Record] = []
        unreadable: list[str] = []
        foreign: list[str] = []
        for number, line in enumerate(self._lines()):
            try:
                value = _parsed(line)
                if number == 0:
                    description = _checkers().description.validate_python(value)
                    continue
                record = _checkers().record.validate_python(value).model_dump()
                own = record["event"] != "artifact" or self._is_own(record["path"])
            except (ValueError, RecursionError):
                unreadable.append(line)
                continue
            if own:
                records.append(record)
            else:
                foreign.append(line)
        return Content(description, tuple(records), tuple(unreadable), tuple(foreign))

    def _lines(self) -> list[str]:
        try:
            check_ordinary(self.path)
            if self.path.stat().st_size > _LARGEST_BYTES:
                raise ResultError(f"{self.path} is larger than any outbox; move it away")
            return self.path.read_bytes().decode(errors="replace").removesuffix("\n").split("\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ResultError(f"cannot read {self.path}: {error.strerror}") from error

    def _is_own(self, artifact: str) -> bool:
        """Whether a path of a record leads, links followed, to a place below the run's own folders."""
        if Path(artifact).is_absolute():
            return False
        file = os.path.realpath(self.folder / artifact)
        return any(_is_below(file, os.path.realpath(folder)) for folder in (self.folder, *self.published))

    def append(self, record: Record) -> None:
        """Add one record. Raises OSError."""
        # One write to an append-only descriptor: a kill leaves at most a torn last line.
        with self.path.open("ab", buffering=0) as stream:
            stream.write(_line(record))

    def rewrite(self, description: RunDescription, records: Iterable[Record] = ()) -> None:
        """Replace the content atomically. Raises OutputError."""
        lines = [_line({"event": "start", **dataclasses.asdict(description)}), *map(_line, records)]
        atomic_write_text(self.path, b"".join(lines).decode())

    def set_aside(self, lines: Iterable[str]) -> Path | None:
        """Keep lines that will never be sent in a file beside the outbox; None if there are none.

        Raises:
            OutputError: it cannot be written.
        """
        text = "".join(f"{line}\n" for line in lines)
        if not text:
            return None
        file = self._rejected()
        atomic_write_text(file, text)
        return file

    def set_all_aside(self) -> Path:
        """Rename the whole file as `set_aside` would. Raises OSError."""
        return self.path.rename(self._rejected())

    def _rejected(self) -> Path:
        return free_name(self.path.with_suffix(".rejected"))

    def remove(self) -> None:
        """Delete the file: everything was taken."""
        self.path.unlink(missing_ok=True)

    def artifact_record(self, path: Path, folder: str | None) -> Record:
        """The record of one artifact."""
        # Of real paths: what ".." leads to from a folder that is a link is not what its name says.
        where = os.path.relpath(os.path.realpath(path), os.path.realpath(self.folder))
        return {"event": "artifact", "path": where, "folder": folder}


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
    """Every outbox file below `folder`; links are not followed."""
    with suppress(FileNotFoundError):
        yield from sorted(path for path in folder.rglob("*outbox*.jsonl") if path.is_file() and not path.is_symlink())


_LARGEST_BYTES = 1 << 26
_LATEST = 1 << 53
"""Times and epochs beyond are no integers everywhere."""


def _parsed(line: str) -> Any:
    value = json.loads(line)
    # Half of a character, which JSON can hold and no store.
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _is_below(file: str, folder: str) -> bool:
    return Path(folder) in Path(file).parents


def _check_time(metrics: dict[str, float]) -> dict[str, float]:
    if not 0 <= metrics.get("time", -1) < _LATEST:
        raise ValueError("no time")
    return metrics


def _check_folder(folder: str) -> str:
    if not folder or folder != str(PurePosixPath(folder)) or folder.startswith("/") or ".." in folder.split("/"):
        raise ValueError("no plain folder")
    return folder


_TimedNumbers = Annotated[dict[str, float], AfterValidator(_check_time)]


class _Epoch(BaseModel):
    event: Literal["epoch"]
    epoch: Annotated[int, Field(ge=0, lt=_LATEST)]
    metrics: _TimedNumbers


class _Metrics(BaseModel):
    event: Literal["metrics"]
    metrics: _TimedNumbers


class _Tags(BaseModel):
    event: Literal["tags"]
    tags: dict[str, str]


class _Artifact(BaseModel):
    event: Literal["artifact"]
    path: str
    folder: Annotated[str, AfterValidator(_check_folder)] | None


class _Finish(BaseModel):
    event: Literal["finish"]
    status: Status


@dataclasses.dataclass(frozen=True)
class _Checkers:
    """What a line may be."""

    description: TypeAdapter[RunDescription]
    record: TypeAdapter[BaseModel]


@functools.cache
def _checkers() -> _Checkers:
    record = Annotated[_Epoch | _Metrics | _Tags | _Artifact | _Finish, Field(discriminator="event")]
    return _Checkers(TypeAdapter(RunDescription), TypeAdapter(record))


def _line(record: Record) -> bytes:
    return json.dumps(record).encode() + b"\n"
