"""Tracking can neither block nor break a training, and loses nothing."""

import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from recu.tracking import Tracker, open_tracker, resolve_tracking_uri
from recu.tracking.client import connect
from recu.tracking.mlflow_tracker import Refused
from recu.tracking.outbox import Outbox
from recu.tracking.safe import SafeTracker
from recu.tracking.sync import replay
from recu.tracking.tracker import Row


class Recorder(Tracker):
    """Stands for a store: keeps what it is given, and fails on demand."""

    def __init__(self):
        self.calls = []
        self.works = True
        self.hangs = threading.Event()
        self.hangs.set()

    @property
    def run_id(self):
        return "r1" if self.calls else None

    def _take(self, *call):
        self.hangs.wait(60)
        if not self.works:
            raise ConnectionError("refused by https://alice:pa55word@host")
        self.calls.append(call)

    def start(self, description):
        self._take("start", description.experiment_id)
        return self.run_id

    def log_epoch(self, epoch, metrics):
        self._take("epoch", epoch)

    def log_metrics(self, metrics):
        self._take("metrics", metrics["top1"])

    def log_artifact(self, path, folder=None):
        if not path.exists():
            raise Refused("absent")
        self._take("artifact", path.name)

    def finish(self, status):
        self._take("finish", status)


@pytest.fixture
def target():
    return Recorder()


@pytest.fixture
def outbox(tmp_path):
    return tmp_path / "state" / "tracking-outbox.jsonl"


def make(target, outbox, **waits):
    waits = {"answer_wait_s": 0.3, "finish_wait_s": 0.5, "pause_s": 60.0} | waits
    return SafeTracker(lambda: target, outbox, address="https://alice:pa55word@host", **waits)


def events(outbox):
    return [json.loads(line) for line in outbox.read_text().splitlines()]


def test_everything_arrives_in_order_and_nothing_stays(target, outbox, description, tmp_path):
    (tmp_path / "log").write_text("x")
    tracker = make(target, outbox)
    tracker.start(description)
    assert tracker.wait_for_run_id() == tracker.run_id == "r1"
    tracker.log_epoch(0, {"time": 1, "a": 1.0})
    tracker.log_epoch(1, {"time": 2, "a": 1.0})
    tracker.log_metrics({"top1": 5.0})
    tracker.log_artifact(tmp_path / "log")
    tracker.finish("FINISHED")
    assert [call[1] for call in target.calls[1:]] == [0, 1, 5.0, "log", "FINISHED"]
    assert tracker.unsent == 0 and not outbox.exists()


def test_a_store_that_fails_costs_nothing_and_everything_is_kept(target, outbox, description, caplog):
    target.works = False
    tracker = make(target, outbox)
    begin = time.monotonic()
    tracker.start(description)
    for epoch in range(50):
        tracker.log_epoch(epoch, {"time": epoch, "a": 1.0})
    assert tracker.wait_for_run_id() is None
    tracker.finish("FINISHED")
    assert time.monotonic() - begin < 3
    assert tracker.unsent == 51
    kept = events(outbox)
    assert [event["event"] for event in kept] == ["start"] + ["epoch"] * 50 + ["finish"]
    assert "pa55word" not in caplog.text + outbox.read_text()
    assert len(caplog.records) == 2 and "recu sync" in caplog.text


def test_a_store_that_hangs_holds_nothing_up(target, outbox, description):
    target.hangs.clear()
    tracker = make(target, outbox)
    begin = time.monotonic()
    tracker.start(description)
    tracker.log_epoch(0, {"time": 1, "a": 1.0})
    assert tracker.wait_for_run_id() is None
    tracker.finish("KILLED")
    assert time.monotonic() - begin < 3
    target.hangs.set()
    assert [event["event"] for event in events(outbox)] == ["start", "epoch", "finish"]


def test_starting_and_logging_do_not_wait_for_an_answer(target, outbox, description):
    target.hangs.clear()
    tracker = make(target, outbox, answer_wait_s=30, finish_wait_s=30)
    begin = time.monotonic()
    tracker.start(description)
    tracker.log_epoch(0, {"time": 1, "a": 1.0})
    assert time.monotonic() - begin < 5
    target.hangs.set()
    tracker.finish("FINISHED")
    assert tracker.unsent == 0


def test_imports_are_waited_for_however_short_the_wait_for_an_answer_is(target, outbox, description):
    target.load = lambda: time.sleep(1)
    tracker = make(target, outbox)
    tracker.start(description)
    assert tracker.wait_for_run_id() == "r1"
    tracker.finish("FINISHED")
    assert tracker.unsent == 0


def test_a_store_that_comes_back_gets_everything(target, outbox, description):
    target.works = False
    tracker = make(target, outbox, pause_s=0.05, finish_wait_s=5)
    tracker.start(description)
    tracker.log_epoch(0, {"time": 1, "a": 1.0})
    target.works = True
    tracker.finish("FINISHED")
    assert [call[0] for call in target.calls] == ["start", "epoch", "finish"]
    assert not outbox.exists()


def test_a_pause_between_attempts_is_kept_but_the_end_tries_once_more(target, outbox, description):
    attempts = []
    target.start = lambda description: attempts.append(time.monotonic()) or (_ for _ in ()).throw(OSError("down"))
    tracker = make(target, outbox)
    tracker.start(description)
    tracker.wait_for_run_id()
    time.sleep(0.3)
    assert len(attempts) == 1
    tracker.finish("FINISHED")
    assert len(attempts) == 2


def test_one_record_that_is_refused_does_not_stop_the_others(target, outbox, description, tmp_path):
    tracker = make(target, outbox)
    tracker.start(description)
    tracker.log_artifact(tmp_path / "absent")
    tracker.log_epoch(0, {"time": 1, "a": 1.0})
    tracker.finish("FINISHED")
    assert [call[0] for call in target.calls] == ["start", "epoch", "finish"]
    assert tracker.unsent == 1 and events(outbox)[1]["event"] == "artifact"


def test_artifacts_that_fail_hold_nothing_up(target, outbox, description, tmp_path):
    (tmp_path / "log").write_text("x")
    failures = []

    def fail(path, folder=None):
        failures.append(path)
        raise ConnectionError("no credentials for the bucket")

    target.log_artifact = fail
    tracker = make(target, outbox, finish_wait_s=5)
    tracker.start(description)
    tracker.log_artifact(tmp_path / "log")
    tracker.log_epoch(0, {"time": 1, "a": 1.0})
    tracker.finish("FINISHED")
    assert [call[0] for call in target.calls] == ["start", "epoch", "finish"] and len(failures) == 2
    assert tracker.unsent == 1 and [event["event"] for event in events(outbox)] == ["start", "artifact", "finish"]


def test_a_file_that_is_not_the_runs_is_not_sent_from_an_outbox_found(target, outbox, description, tmp_path, caplog):
    (tmp_path / "secret").write_text("x")
    outbox.parent.mkdir()
    Outbox(outbox).rewrite(description)
    with outbox.open("a") as stream:
        stream.write('{"event": "artifact", "path": "../secret", "folder": null}\n{"event": "unheard of"}\n')
    tracker = make(target, outbox)
    tracker.start(description)
    tracker.finish("FINISHED")
    assert [call[0] for call in target.calls] == ["start", "finish"] and ".rejected" in caplog.text
    assert len(outbox.with_suffix(".rejected").read_text().splitlines()) == 2 and not outbox.exists()


def test_a_pipe_in_place_of_the_outbox_holds_nothing_up(target, outbox, description):
    outbox.parent.mkdir()
    os.mkfifo(outbox)
    tracker = make(target, outbox)
    tracker.start(description)
    tracker.log_epoch(0, {"time": 1, "a": 1.0})
    tracker.finish("FINISHED")
    assert [call[0] for call in target.calls] == ["start", "epoch", "finish"]


def test_a_run_that_the_store_refuses_is_kept_whole(target, outbox, description):
    def refuse(description):
        raise Refused("a parameter's name")

    target.start = refuse
    tracker = make(target, outbox)
    tracker.start(description)
    tracker.log_epoch(0, {"time": 1, "a": 1.0})
    tracker.finish("FINISHED")
    assert [event["event"] for event in events(outbox)] == ["start", "epoch", "finish"]


def test_what_a_killed_process_left_is_sent_by_the_next(target, outbox, description):
    box = Outbox(outbox)
    outbox.parent.mkdir()
    box.rewrite(description, [{"event": "epoch", "epoch": 0, "metrics": {"time": 1, "a": 1.0}}])
    with outbox.open("a") as stream:
        stream.write('{"event": "finish", "status": "KILLED"}\n{"event": "epo')
    tracker = make(target, outbox)
    tracker.start(replace(description, run_id="r1"))
    tracker.log_epoch(1, {"time": 2, "a": 1.0})
    tracker.finish("FINISHED")
    assert [call[:2] for call in target.calls[1:]] == [("epoch", 0), ("epoch", 1), ("finish", "FINISHED")]


def test_the_outbox_of_a_training_begun_anew_is_kept_apart(target, outbox, description):
    earlier = [{"event": "epoch", "epoch": 0, "metrics": {"time": 1, "a": 1.0}}]
    outbox.parent.mkdir()
    Outbox(outbox).rewrite(replace(description, rows=(), started_ns=1), earlier)
    tracker = make(target, outbox)
    tracker.start(replace(description, rows=()))
    tracker.log_epoch(0, {"time": 9, "a": 2.0})
    tracker.finish("FINISHED")
    (kept,) = outbox.parent.glob("*.jsonl")
    assert events(kept)[1:] == earlier
    assert [call[0] for call in target.calls] == ["start", "epoch", "finish"]


def test_a_start_killed_before_its_first_epoch_asks_for_the_same_run(target, outbox, description):
    described = []
    target.start = described.append
    outbox.parent.mkdir()
    Outbox(outbox).rewrite(replace(description, rows=(), started_ns=7))
    tracker = make(target, outbox)
    tracker.start(replace(description, rows=()))
    tracker.finish("FINISHED")
    assert described[0].started_ns == 7


def test_an_outbox_knows_the_epochs_that_were_sent(target, outbox, description, tmp_path):
    tracker = make(target, outbox)
    tracker.start(replace(description, rows=(Row(0, 1, "a"),)))
    tracker.log_epoch(1, {"time": 2, "a": 1.0})
    tracker.log_artifact(tmp_path / "absent")
    tracker.finish("FINISHED")
    content = Outbox(outbox, [tmp_path]).read()
    assert content.description.rows == (Row(0, 1, "a"), Row(1, 2, "a")) and content.description.started_ns is not None
    assert [record["event"] for record in content.records] == ["artifact", "finish"]


def test_the_outbox_of_another_run_is_kept_apart(target, outbox, description):
    outbox.parent.mkdir()
    Outbox(outbox).rewrite(replace(description, stage="evaluate"))
    tracker = make(target, outbox)
    tracker.start(description)
    tracker.finish("FINISHED")
    (kept,) = outbox.parent.glob("*.jsonl")
    assert events(kept)[0]["stage"] == "evaluate"


def test_an_outbox_that_cannot_be_written_stops_nothing(target, tmp_path, description, caplog):
    (tmp_path / "file").touch()
    tracker = make(target, tmp_path / "file" / "outbox.jsonl")
    tracker.start(description)
    tracker.log_epoch(0, {"time": 1, "a": 1.0})
    tracker.finish("FINISHED")
    assert [call[0] for call in target.calls] == ["start", "epoch", "finish"]
    assert "cannot write the outbox" in caplog.text and len(caplog.records) == 1


def test_values_that_are_no_plain_numbers(target, outbox, description):
    import numpy

    tracker = make(target, outbox)
    target.log_epoch = lambda epoch, metrics: target.calls.append(metrics)
    tracker.start(description)
    tracker.log_epoch(0, {"epoch": 0, "time": 7, "a": numpy.float32(1.5), "b": "text", "c": None, "d": numpy.ones(3)})
    tracker.finish("FINISHED")
    assert target.calls[1] == {"time": 7, "a": 1.5}


def test_a_tracker_that_was_never_started_may_be_finished_and_closed(target, outbox):
    closed = []
    target.close = lambda: closed.append(True)
    tracker = make(target, outbox)
    assert tracker.wait_for_run_id() is None
    tracker.finish("FAILED")
    tracker.close()
    assert target.calls == [] and closed == [True] and not outbox.exists()


def test_a_tracker_that_cannot_be_made_is_tried_again_at_the_start(target, outbox, description):
    outcomes = iter([OSError("no process can be started"), target])

    def make_target():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    tracker = SafeTracker(make_target, outbox, address="sqlite:///x.db")
    tracker.start(description)
    assert tracker.wait_for_run_id() == "r1"
    tracker.finish("FINISHED")
    assert [call[0] for call in target.calls] == ["start", "finish"]


def test_secrets_reach_neither_store_nor_outbox(store, description, tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pa55word!")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-t0ken")
    leaky = replace(
        description,
        params={"address": "https://alice:pa55word!@host", "plain": "1"},
        tags={"note": "token t0ken-t0ken"},
    )
    tracker = open_tracker(store, tmp_path / "outbox.jsonl")
    tracker.start(leaky)
    tracker.log_artifact(tmp_path / "absent")
    tracker.finish("FINISHED")
    files = [Path(store.removeprefix("sqlite:///")), *tmp_path.rglob("*.db-wal"), *tmp_path.rglob("*outbox*")]
    assert len(files) >= 2
    for file in files:
        content = file.read_bytes()
        assert b"pa55word" not in content and b"t0ken" not in content and b"alice" not in content


def test_a_server_that_refuses_then_the_outbox_is_sent_to_a_store_that_works(store, description, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    outbox = tmp_path / "tracking-outbox.jsonl"
    tracker = open_tracker("http://alice:pa55word@127.0.0.1:9", outbox)
    begin = time.monotonic()
    tracker.start(description)
    for epoch in range(20):
        tracker.log_epoch(epoch, {"time": 1000 + epoch, "test_top1": float(epoch)})
    tracker.finish("FINISHED")
    assert time.monotonic() - begin < 15
    assert "pa55word" not in caplog.text + outbox.read_text()
    assert len(events(outbox)) == 22

    done = replay(outbox, store)
    assert (done.sent, done.rejected) == (21, 0) and not outbox.exists()
    run = connect(store).get_run(done.run_id)
    assert run.info.status == "FINISHED" and len(connect(store).get_metric_history(done.run_id, "test_top1")) == 20


def test_a_server_that_accepts_and_never_answers(description, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        tracker = SafeTracker(
            lambda: open_mlflow(f"http://127.0.0.1:{server.getsockname()[1]}"),
            tmp_path / "outbox.jsonl",
            address="http://server",
            answer_wait_s=1,
            finish_wait_s=1,
        )
        begin = time.monotonic()
        tracker.start(description)
        tracker.log_epoch(0, {"time": 1, "a": 1.0})
        tracker.finish("FAILED")
        assert time.monotonic() - begin < 4
    assert tracker.unsent == 2


def open_mlflow(address):
    from recu.tracking.mlflow_tracker import MlflowTracker

    return MlflowTracker(address)


def test_no_address_means_no_tracking_at_all(tmp_path, description):
    tracker = open_tracker(None, tmp_path / "outbox.jsonl")
    tracker.start(description)
    assert tracker.wait_for_run_id() is None
    tracker.log_epoch(0, {})
    tracker.finish("FINISHED")
    assert list(tmp_path.iterdir()) == []


def test_the_environment_wins(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_tracking_uri("sqlite:///a.db") == "sqlite:///a.db"
    assert resolve_tracking_uri("") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    assert resolve_tracking_uri("sqlite:///a.db") == "http://host"


def test_importing_and_opening_import_no_mlflow():
    code = (
        "import sys; from pathlib import Path; from recu.tracking import open_tracker;"
        "open_tracker('sqlite:///x.db', Path('x.jsonl')); print('mlflow' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_mlflow_is_imported_without_telemetry_and_with_short_waits():
    code = (
        "import json, os; from recu.tracking.client import import_mlflow; import_mlflow('http://host');"
        "print(json.dumps(dict(os.environ)))"
    )
    environment = os.environ | {"DO_NOT_TRACK": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "9"}
    environment.pop("MLFLOW_HTTP_REQUEST_MAX_RETRIES", None)
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    seen = json.loads(answer.stdout)
    assert seen["DO_NOT_TRACK"] == seen["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert (seen["MLFLOW_HTTP_REQUEST_TIMEOUT"], seen["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) == ("9", "1")


def _log_and_die(store, outbox, description):
    tracker = open_tracker(store, outbox)
    tracker.start(description)
    for epoch in range(20):
        tracker.log_epoch(epoch, {"time": 1000 + epoch, "test_top1": float(epoch)})
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_killed_while_sending_loses_and_doubles_nothing(store, description, tmp_path):
    outbox = tmp_path / "outbox.jsonl"
    process = multiprocessing.get_context("spawn").Process(target=_log_and_die, args=(store, outbox, description))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    tracker = open_tracker(store, outbox)
    tracker.start(description)
    tracker.log_epoch(20, {"time": 1020, "test_top1": 20.0})
    tracker.finish("FINISHED")
    (run,) = connect(store).search_runs([connect(store).get_experiment_by_name("demo").experiment_id])
    history = connect(store).get_metric_history(run.info.run_id, "test_top1")
    assert sorted(entry.step for entry in history) == list(range(21))
    assert run.info.status == "FINISHED" and not outbox.exists()
