"""MLflow in another process: what it is asked, how it answers, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from recu.tracking.client import connect
from recu.tracking.mlflow_tracker import Refused
from recu.tracking.process import ProcessTracker, StoreError


@pytest.fixture
def tracker(store):
    with closing(ProcessTracker(store)) as tracker:
        yield tracker


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ends(pid: int, within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_whole_run(tracker, store, description, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("log").write_text("x")
    tracker.load()
    assert tracker.run_id is None
    tracker.start(description)
    tracker.log_epoch(0, {"epoch": 0, "time": 1000, "test_top1": 50.0})
    tracker.log_metrics({"best_top1": 50.0})
    tracker.log_artifact(Path("log"), "logs")
    tracker.finish("FINISHED")
    run = connect(store).get_run(tracker.run_id)
    assert run.info.status == "FINISHED" and run.data.params == dict(description.params)
    assert run.data.metrics == {"test_top1": 50.0, "best_top1": 50.0}
    assert [file.path for file in connect(store).list_artifacts(tracker.run_id, "logs")] == ["logs/log"]


def test_errors_arrive_in_words_and_the_next_request_is_answered(tracker, description, tmp_path):
    with pytest.raises(StoreError, match="RuntimeError: the tracker was not started"):
        tracker.finish("FINISHED")
    tracker.start(description)
    with pytest.raises(Refused, match="does not exist"):
        tracker.log_artifact(tmp_path / "absent")
    tracker.finish("FINISHED")


def test_mlflow_that_cannot_be_imported_is_an_answer_and_no_traceback(description, tmp_path, monkeypatch, capfd):
    (tmp_path / "mlflow.py").write_text("raise ImportError('mlflow is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with closing(ProcessTracker(f"sqlite:///{tmp_path}/mlflow.db")) as tracker:
        with pytest.raises(StoreError, match="ImportError: mlflow is broken"):
            tracker.load()
        with pytest.raises(StoreError, match="mlflow is broken"):
            tracker.start(description)
    assert "Traceback" not in capfd.readouterr().err


def test_it_ends_although_another_process_holds_its_requests_open(tracker):
    tracker.load()
    holder = subprocess.Popen(["sleep", "60"], pass_fds=[tracker._process.stdin.fileno()])
    try:
        tracker.close()
    finally:
        holder.kill()
        holder.wait()
    assert tracker._process.returncode == 0


def test_nothing_heavy_is_imported_here_and_no_address_is_shown():
    code = """
import sys
from pathlib import Path
from contextlib import closing
from recu.tracking.process import ProcessTracker

with closing(ProcessTracker("http://alice:pa55word@127.0.0.1:9")) as tracker:
    process = Path(f"/proc/{tracker._process.pid}")
    shown = (process / "cmdline").read_text() + (process / "environ").read_text()
print("mlflow" in sys.modules, "pa55word" in shown)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False False"


def test_a_process_that_was_killed_is_an_error(tracker, description):
    os.kill(tracker._process.pid, signal.SIGKILL)
    assert ends(tracker._process.pid)
    with pytest.raises(StoreError, match="has ended"):
        tracker.start(description)


def test_signals_meant_for_the_training_do_not_end_it(tracker, description):
    tracker.start(description)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(tracker._process.pid, number)
    tracker.finish("KILLED")


def test_closing_leaves_a_database_that_is_whole_without_its_log(tracker, store, description):
    file = Path(store.removeprefix("sqlite:///"))
    log = file.with_name(f"{file.name}-wal")
    tracker.start(description)
    tracker.log_epoch(0, {"epoch": 0, "time": 1000, "test_top1": 50.0})
    assert log.stat().st_size > 0
    tracker.close()
    assert tracker._process.returncode == 0
    assert not log.exists() or log.stat().st_size == 0
    with pytest.raises(StoreError, match="has ended"):
        tracker.finish("FINISHED")


def test_one_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr("recu.tracking.process._LONGEST_END_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        tracker = ProcessTracker(f"http://127.0.0.1:{server.getsockname()[1]}")
        tracker._send(("finish", ("FINISHED",)))
        os.kill(tracker._process.pid, signal.SIGSTOP)
        begin = time.monotonic()
        tracker.close()
    assert tracker._process.returncode == -signal.SIGKILL and time.monotonic() - begin < 3


def test_it_ends_with_the_process_that_was_killed(store):
    code = f"import time; from recu.tracking.process import ProcessTracker as P; t = P({store!r}); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 20
    while not (found := children(parent.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    (child,) = found
    parent.kill()
    parent.wait()
    assert ends(child)
