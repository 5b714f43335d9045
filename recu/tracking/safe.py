"""A tracker that can neither block nor break a training.

Records go to a local outbox file and to a background thread that sends them. A store that
is down, hangs or answers with errors costs the training nothing while it runs, and a few seconds at its end;
what could not be sent stays in the outbox, where the next start of the same run, or `recu sync`, finds it.
"""

from __future__ import annotations

import logging
import os
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from recu.base.errors import ResultError
from recu.base.files import hash_text
from recu.base.redaction import redact
from recu.tracking.mlflow_tracker import Refused
from recu.tracking.outbox import Content, Outbox, Record, apply, rows_in
from recu.tracking.process import StoreError
from recu.tracking.redaction import redact_description, redact_values
from recu.tracking.tracker import Row, RunDescription, Status, Tracker, numbers_of

_log = logging.getLogger(__name__)

_START = {"event": "start"}
_LOAD_WAIT_S = 60.0
"""The longest that anything waits for imports, which on a busy machine take longer than any answer of a store."""


class SafeTracker(Tracker):
    """Wraps the tracker that `make_target` builds; no method raises or waits longer than said.

    Args:
        make_target: builds the real tracker; called at once, and again in the background if it fails.
        outbox: file for what is not sent yet, in the run's own state folder.
        address: what messages call the store.
        results: the folder that the run publishes into; see `Outbox`.
        answer_wait_s: the longest that `wait_for_run_id` and `finish` wait for one answer of the store.
        finish_wait_s: the longest that `finish` waits for a store that does answer to take everything.
        pause_s: time between two attempts once the store has failed.
    """

    def __init__(
        self,
        make_target: Callable[[], Tracker],
        outbox: Path,
        *,
        address: str,
        results: Path | None = None,
        answer_wait_s: float = 6.0,
        finish_wait_s: float = 10.0,
        pause_s: float = 300.0,
    ) -> None:
        self._make_target = make_target
        self._address = redact(address)
        self._answer_wait_s, self._finish_wait_s, self._pause_s = answer_wait_s, finish_wait_s, pause_s
        self._outbox = Outbox(outbox, () if results is None else (results,))
        self._outbox_failed = False
        self._target = _made(make_target)
        self._description: RunDescription | None = None
        self._rows: list[Row] = []
        self._end: Record | None = None
        # Everything below is shared with the sending thread and guarded by the condition.
        self._changed = threading.Condition()
        self._pending: deque[Record] = deque()
        self._refused: list[Record] = []
        self._put_off: list[Record] = []
        self._failed_artifacts: list[Record] = []
        self._attempts = self._failures = 0
        self._loaded = self._finishing = self._gave_up = self._closed = False

    @property
    def run_id(self) -> str | None:
        """None until the store has answered."""
        return None if self._target is None else self._target.run_id

    @property
    def unsent(self) -> int:
        """Records that the store has not taken."""
        with self._changed:
            return len(self._left())

    def start(self, description: RunDescription) -> None:
        """Returns at once."""
        self._description = replace(
            redact_description(description), started_ns=description.started_ns or time.time_ns()
        )
        self._guarded(self._open_outbox)
        self._pending.appendleft(_START)
        thread = threading.Thread(target=self._send_all, name="recu-tracking", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            _log.warning("tracking: no thread to send records with (%s); they are kept in the outbox", error)
            self._attempts, self._loaded, self._gave_up = 1, True, True

    def wait_for_run_id(self) -> str | None:
        """Waits for imports, then up to `answer_wait_s` for the store's first answer, good or bad."""
        if self._description is not None:
            with self._changed:
                self._changed.wait_for(lambda: self._loaded, timeout=_LOAD_WAIT_S)
                self._changed.wait_for(lambda: self._attempts > 0, timeout=self._answer_wait_s)
        return self.run_id

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Returns at once."""
        record = {"event": "epoch", "epoch": epoch, "metrics": _with_time(metrics)}
        self._rows += rows_in([record])
        self._post(record)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Returns at once."""
        self._post({"event": "metrics", "metrics": _with_time(metrics)})

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Returns at once."""
        self._post({"event": "tags", "tags": redact_values(tags)})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Returns at once; the file is read later."""
        self._post(self._outbox.artifact_record(path, folder))

    def finish(self, status: Status) -> None:
        """Waits for the store to take everything, as long as it answers; what is left stays in the outbox."""
        if self._description is None:
            return
        self._end = {"event": "finish", "status": status}
        self._post(self._end)
        with self._changed:
            self._finishing = True
            self._changed.notify_all()
            self._wait_until_sent()
            self._closed = True
            self._changed.notify_all()
        left = self.unsent
        if left:
            _log.warning(
                "tracking: %d records were not taken by %s; they are kept in %s, send them with:"
                " recu sync --runs_dir %s",
                left,
                self._address,
                self._outbox.path,
                shlex.quote(str(self._outbox.folder)),
            )
        self._guarded(self._cut_back)
        self._guarded(self._outbox.release)

    def close(self) -> None:
        """Closes the real tracker, whatever it is doing."""
        if self._target is not None:
            self._target.close()

    def _wait_until_sent(self) -> None:
        """The condition is held."""
        self._changed.wait_for(lambda: self._loaded, timeout=_LOAD_WAIT_S)
        deadline = time.monotonic() + self._finish_wait_s
        while self._pending and not self._gave_up and (left := deadline - time.monotonic()) > 0:
            seen = self._attempts
            answered = self._changed.wait_for(
                lambda seen=seen: self._attempts > seen or self._gave_up, timeout=min(left, self._answer_wait_s)
            )
            if not answered:
                return

    def _post(self, record: Record) -> None:
        if self._description is None or self._closed:
            return
        with self._changed:
            self._guarded(lambda: self._outbox.append(record))
            self._pending.append(record)
            self._changed.notify_all()

    def _open_outbox(self) -> None:
        """Take the outbox; what an earlier process of this run left in it is sent first."""
        if not self._outbox.acquire():
            # `recu sync` is sending it just now.
            path = self._outbox.path
            self._outbox = Outbox(path.with_name(f"{path.stem}-{os.getpid()}{path.suffix}"), self._outbox.published)
            self._outbox.acquire()
        try:
            content = self._outbox.read()
        except ResultError as error:
            _log.warning("tracking: %s; it is now %s", error, self._outbox.set_all_aside())
            content = Content(None)
        if content.description is not None and self._continues(content.description.with_rows(rows_in(content.records))):
            # How the earlier process ended no longer matters: the run goes on.
            self._pending.extend(record for record in content.records if record["event"] != "finish")
            started_ns = content.description.started_ns or self._description.started_ns
            self._description = replace(self._description, started_ns=started_ns)
        elif content.description is not None or content.records:
            self._put_aside(content.description)
            content = Content(None)
        aside = self._outbox.set_aside([*content.unreadable, *content.foreign])
        if aside is not None:
            _log.warning("tracking: what cannot be sent of %s is kept in %s", self._outbox.path, aside)
        self._outbox.rewrite(self._description, self._pending)

    def _continues(self, earlier: RunDescription) -> bool:
        """Whether this run goes on from where the one ended that left the outbox."""
        now = self._description
        if earlier.identity != now.identity:
            return False
        return now.rows is None or earlier.rows is None or set(earlier.rows) <= set(now.rows)

    def _put_aside(self, description: RunDescription | None) -> None:
        path = self._outbox.path
        mark = hash_text(repr(description))
        path.rename(path.with_name(f"{path.stem}-{mark}{path.suffix}"))

    def _send_all(self) -> None:
        """The background thread."""
        try:
            if self._target is not None:
                self._target.load()
        except Exception as error:
            # Sending fails too, then, and that is reported.
            _log.debug("tracking: %s", _worded(error))
        with self._changed:
            self._loaded = True
            self._changed.notify_all()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                if self._closed:
                    return
                record = self._pending[0]
            try:
                self._send(record)
            except Refused as error:
                self._after_refusal(record, error)
            except Exception as error:
                if record["event"] == "artifact":
                    self._after_failed_artifact(record, error)
                else:
                    self._after_failure(error)
            else:
                self._after_success()

    def _send(self, record: Record) -> None:
        if record is _START:
            self._target = self._target or self._make_target()
            try:
                self._target.start(self._description)
            except Refused as error:
                # Without a run nothing else can be sent.
                raise StoreError(str(error)) from error
        else:
            apply(record, self._target, self._outbox.folder)

    def _after_success(self) -> None:
        with self._changed:
            self._attempts += 1
            if self._closed:
                return
            self._pending.popleft()
            self._changed.notify_all()

    def _after_refusal(self, record: Record, error: Refused) -> None:
        with self._changed:
            self._attempts += 1
            if self._closed:
                return
            if not self._refused:
                _log.warning("tracking: %s refused a record: %s", self._address, _worded(error))
            self._refused.append(record)
            self._pending.popleft()
            self._changed.notify_all()

    def _after_failed_artifact(self, record: Record, error: Exception) -> None:
        """Artifacts go to a place of their own: what fails there is tried once more, behind everything else."""
        with self._changed:
            self._count_failure(error)
            if self._closed:
                return
            self._pending.popleft()
            (self._failed_artifacts if record in self._put_off else self._pending).append(record)
            self._put_off.append(record)
            self._changed.notify_all()

    def _count_failure(self, error: Exception) -> None:
        """The condition is held."""
        self._attempts += 1
        self._failures += 1
        if self._failures == 1 and not self._closed:
            _log.warning(
                "tracking: %s does not work (%s); training goes on, records are kept in %s",
                self._address,
                _worded(error),
                self._outbox.path,
            )

    def _after_failure(self, error: Exception) -> None:
        with self._changed:
            self._count_failure(error)
            if self._finishing:
                self._gave_up = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._finishing or self._closed, timeout=self._pause_s)
            if self._gave_up:
                self._changed.wait_for(lambda: self._closed)

    def _cut_back(self) -> None:
        """Reduce the outbox to what is still to be sent and to what the run is; remove it where nothing is left."""
        left = self._left()
        if left or self._pending:
            # Sending the rest opens the run again, so its end is told again too.
            if self._end not in left:
                left.append(self._end)
            description = replace(self._description, run_id=self.run_id or self._description.run_id)
            description = description.with_rows(self._rows)
            self._outbox.rewrite(description, left)
        else:
            self._outbox.remove()

    def _left(self) -> list[Record]:
        return [
            *self._refused,
            *self._failed_artifacts,
            *(record for record in self._pending if record is not _START),
        ]

    def _guarded(self, action: Callable[[], object]) -> None:
        """Do something with the outbox; a full disk must not stop the training here."""
        try:
            action()
        except Exception as error:
            if not self._outbox_failed:
                _log.warning("tracking: cannot write the outbox %s: %s", self._outbox.path, _worded(error))
            self._outbox_failed = True


def _made(make_target: Callable[[], Tracker]) -> Tracker | None:
    try:
        return make_target()
    except Exception:
        # It is tried again when the run starts, and reported then.
        return None


def _with_time(metrics: Mapping[str, float]) -> dict[str, float]:
    # Fixed here and now, so that a record sent twice carries the same time.
    return {"time": int(metrics.get("time", time.time() * 1000)), **numbers_of(metrics)}


def _worded(error: Exception) -> str:
    text = " ".join(redact(str(error)).split())
    return text[:1000] if isinstance(error, (StoreError, Refused)) else f"{type(error).__name__}: {text[:1000]}"
