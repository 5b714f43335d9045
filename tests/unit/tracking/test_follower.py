"""The mirroring process can neither block nor break a job, loses nothing, and ends with it."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from recu.base.errors import Interrupted, OutputError
from recu.base.signals import SIGNALS
from recu.tracking import resolve_tracking_uri
from recu.tracking import run as run_module
from recu.tracking.client import connect
from recu.tracking.follower import lock_of
from recu.tracking.run import FollowedRun
from tests.unit.tracking.conftest import finished, row

pytestmark = pytest.mark.processes

OWN_PATIENCE = {"patience_s": run_module._PATIENCE_S, "answer_s": run_module._ANSWER_S}


@pytest.fixture
def followed(job, monkeypatch):
    """A function that opens the job's run in a store, for long enough on a busy machine."""
    opened = []

    def open_run(address, patience_s=100.0, answer_s=90.0):
        monkeypatch.setattr(run_module, "_PATIENCE_S", patience_s)
        monkeypatch.setattr(run_module, "_ANSWER_S", answer_s)
        opened.append(FollowedRun(address, job.state, job.results))
        return opened[-1]

    yield open_run
    for run in opened:
        run.close()


def status(job):
    return json.loads((job.state / "run.json").read_text())["status"]


def runs(store):
    client = connect(store)
    return client.search_runs([found.experiment_id for found in client.search_experiments()])


def steps(store, run_id):
    return sorted(entry.step for entry in connect(store).get_metric_history(run_id, "test/top1"))


def until(true, within_s=30.0):
    deadline = time.monotonic() + within_s
    while not (done := true()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return done


def ended(pid):
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_epochs_appear_within_seconds_and_the_end_is_told(followed, job, store):
    run = followed(store)
    with run.recorded(job.description):
        assert status(job) == "RUNNING"
        run_id = run.id()
        assert connect(store).get_run(run_id).info.status == "RUNNING"
        for epoch in range(2):
            job.history(*map(row, range(epoch + 1)))
            assert until(lambda epoch=epoch: steps(store, run_id) == list(range(epoch + 1)), within_s=10)
        job.publish(row(0), row(1))
    (shown,) = runs(store)
    assert shown.info.run_id == run_id and shown.info.status == "FINISHED" and status(job) == "FINISHED"
    assert shown.data.metrics["best/top1"] == 51.0 and steps(store, run_id) == [0, 1]
    assert len(connect(store).list_artifacts(run_id)) == 3


@pytest.mark.parametrize("asked", ["true", "false"])
def test_the_machine_is_measured_where_mlflows_own_variable_asks(followed, job, store, monkeypatch, asked):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", asked)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")

    def measured():
        return "system/cpu_utilization_percentage" in runs(store)[0].data.metrics

    run = followed(store)
    with run.recorded(job.description):
        run.id()
        assert until(measured, within_s=30 if asked == "true" else 2) == (asked == "true")
        job.history(row(0))
        assert until(lambda: steps(store, run.id()) == [0])
        job.publish(row(0))
    (shown,) = runs(store)
    assert shown.info.status == "FINISHED" and measured() == (asked == "true")


@pytest.mark.parametrize(
    ("error", "told"), [(Interrupted("x"), "KILLED"), (KeyboardInterrupt(), "KILLED"), (OSError("full"), "FAILED")]
)
def test_how_a_job_ends_early(followed, job, store, error, told):
    with pytest.raises(type(error)), followed(store).recorded(job.description):
        raise error
    assert status(job) == told and [run.info.status for run in runs(store)] == [told]


def test_a_run_that_goes_on_is_the_same(followed, job, store):
    for known in (1, 2):
        with followed(store).recorded(job.description):
            job.history(*map(row, range(known)))
    (shown,) = runs(store)
    assert steps(store, shown.info.run_id) == [0, 1]


def test_a_start_killed_before_its_first_epoch_asks_for_the_same_run(followed, job):
    job.note(started_ns=7)
    with followed(None).recorded(job.description):
        assert json.loads((job.state / "run.json").read_text())["started_ns"] == 7


def test_another_run_in_the_folder_is_another(followed, job):
    job.note(started_ns=7)
    with followed(None).recorded(replace(job.description, spec_hash="f" * 16)):
        assert json.loads((job.state / "run.json").read_text())["started_ns"] != 7


def test_a_server_that_refuses_costs_seconds_and_nothing_is_lost(followed, job, store, caplog):
    run = followed("http://alice:pa55word@127.0.0.1:9", **OWN_PATIENCE)
    assert until(lambda: run._loaded, within_s=60)
    begin = time.monotonic()
    with run.recorded(job.description):
        assert run.id() is None
        finished(job, 20)
    assert time.monotonic() - begin < 15
    assert "pa55word" not in caplog.text and "recu sync" in caplog.text and len(caplog.records) == 2
    done = job.bring(store)
    assert done.left == [] and steps(store, done.run_id) == list(range(20))
    assert connect(store).get_run(done.run_id).info.status == "FINISHED"


def test_a_server_that_accepts_and_never_answers(followed, job, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:
        run = followed(f"http://127.0.0.1:{server.getsockname()[1]}", **OWN_PATIENCE)
        assert until(lambda: run._loaded, within_s=60)
        begin = time.monotonic()
        with run.recorded(job.description):
            assert run.id() is None
        assert time.monotonic() - begin < 12
    assert "recu sync" in caplog.text and status(job) == "FINISHED"


def test_a_store_that_comes_back_gets_everything(followed, job, store, monkeypatch):
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    run = followed(f"http://127.0.0.1:{port}")
    with run.recorded(job.description):
        job.history(row(0))
        assert run.id() is None
        from mlflow.server import app
        from werkzeug.serving import make_server

        monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", store)
        monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", str(job.folder / "artifacts"))
        server = make_server("127.0.0.1", port, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        job.history(row(0), row(1))
    server.shutdown()
    (shown,) = runs(store)
    assert shown.info.status == "FINISHED" and steps(store, shown.info.run_id) == [0, 1]


def test_starting_does_not_wait_for_an_answer(followed, job):
    with socket.create_server(("127.0.0.1", 0)) as server:
        begin = time.monotonic()
        run = followed(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(ZeroDivisionError), run.recorded(job.description):
            assert time.monotonic() - begin < 2
            run.close()
            raise ZeroDivisionError


def test_mlflow_that_cannot_be_imported_is_one_line_and_no_traceback(followed, job, monkeypatch, capfd, caplog):
    (job.folder / "mlflow.py").write_text("raise ImportError('mlflow is broken')")
    monkeypatch.setenv("PYTHONPATH", f"{job.folder}:{os.environ.get('PYTHONPATH', '')}")
    with followed(f"sqlite:///{job.folder}/mlflow.db").recorded(job.description):
        pass
    assert caplog.text.count("mlflow is broken") == 1 and "Traceback" not in capfd.readouterr().err


def test_a_process_that_was_killed_holds_nothing_up(followed, job, store, caplog):
    run = followed(store)
    with run.recorded(job.description):
        os.kill(run._process.pid, signal.SIGKILL)
        begin = time.monotonic()
        assert run.id() is None
        finished(job)
    assert time.monotonic() - begin < 5 and "recu sync" in caplog.text
    assert job.bring(store).left == []


def test_a_process_that_hangs_is_ended(followed, job, store, caplog):
    run = followed(store, patience_s=1.0)
    with run.recorded(job.description):
        run.id()
        process = run._process
        os.kill(process.pid, signal.SIGSTOP)
        begin = time.monotonic()
    assert process.returncode == -signal.SIGKILL and time.monotonic() - begin < 3 and "recu sync" in caplog.text


def test_a_process_that_cannot_be_started_stops_nothing(followed, job, monkeypatch, caplog):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: (_ for _ in ()).throw(OSError("no more processes")))
    run = followed("sqlite:///x.db")
    with run.recorded(job.description):
        assert run.id() is None
    assert "no more processes" in caplog.text and status(job) == "FINISHED"


def test_a_note_that_cannot_be_written_stops_nothing(followed, job, monkeypatch, caplog):
    def fail(*_):
        raise OutputError("disk full")

    monkeypatch.setattr("recu.tracking.run.atomic_write_json", fail)
    with followed(None).recorded(job.description):
        pass
    assert "disk full" in caplog.text


def test_signals_meant_for_the_job_do_not_end_it(followed, job, store):
    run = followed(store)
    with run.recorded(job.description):
        run.id()
        for number in SIGNALS:
            os.kill(run._process.pid, number)
    assert [shown.info.status for shown in runs(store)] == ["FINISHED"]


def test_not_even_signals_at_its_very_start(followed, job, store):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    run = followed(store)
    for number in SIGNALS:
        os.kill(run._process.pid, number)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    with run.recorded(job.description):
        assert run.id() is not None


def test_it_ends_although_another_process_holds_its_requests_open(followed, job, store):
    run = followed(store)
    holder = subprocess.Popen(["sleep", "60"], pass_fds=[run._process.stdin.fileno()])
    process = run._process
    try:
        with run.recorded(job.description):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert process.returncode in (0, -signal.SIGKILL) and [shown.info.status for shown in runs(store)] == ["FINISHED"]


def test_a_run_that_another_process_is_mirroring_waits_for_it(followed, job, store):
    job.note()
    with lock_of(job.state):
        run = followed(store, patience_s=4.0, answer_s=3.0)
        with pytest.raises(ZeroDivisionError), run.recorded(job.description):
            assert run.id() is None and runs(store) == []
            raise ZeroDivisionError
    assert job.bring(store).left == []


def test_what_is_closed_leaves_a_database_that_is_whole_without_its_log(followed, job, store):
    file = Path(store.removeprefix("sqlite:///"))
    log = file.with_name(f"{file.name}-wal")
    with followed(store).recorded(job.description):
        finished(job)
    assert not log.exists() or log.stat().st_size == 0


_FOLLOW = """
import sys, time
from pathlib import Path
from recu.tracking import run as run_module
from recu.tracking.run import FollowedRun
from tests.unit.tracking.conftest import Job, row
from recu.tracking.description import RunDescription

description = RunDescription(experiment="demo", stage="train", experiment_id="a", spec_hash="b", run_name="n")
run_module._PATIENCE_S = run_module._ANSWER_S = 100.0
job = Job(Path(sys.argv[2]), description)
run = FollowedRun(sys.argv[1], job.state, job.results)
"""


def test_nothing_heavy_is_imported_here_and_no_address_is_shown(tmp_path):
    code = """
process = Path(f"/proc/{run._process.pid}")
shown = (process / "cmdline").read_text() + (process / "environ").read_text()
run.close()
print("mlflow" in sys.modules, "torch" in sys.modules, "pa55word" in shown)
"""
    imports = _FOLLOW.replace("from tests.unit.tracking.conftest import Job, row\n", "").partition("job = ")[0]
    code = f"{imports}run = FollowedRun('http://alice:pa55word@127.0.0.1:9', Path('a'), Path('a'))\n{code}"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False False False"


def test_a_job_that_is_killed_takes_it_along_and_leaves_a_killed_run(store, tmp_path):
    code = f"""{_FOLLOW}
with run.recorded(description):
    job.history(row(0))
    print(run._process.pid, run.id(), flush=True)
    time.sleep(60)
"""
    job = subprocess.Popen([sys.executable, "-c", code, store, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    pid, run_id = job.stdout.readline().split()
    job.kill()
    job.wait()
    assert until(lambda: ended(pid))
    assert connect(store).get_run(run_id).info.status == "KILLED" and steps(store, run_id) == [0]


def test_no_address_means_no_process_and_the_run_is_noted_all_the_same(followed, job, store):
    run = followed(None)
    with run.recorded(job.description):
        assert run._process is None and run.id() is None
        finished(job)
    assert job.bring(store).left == []


def test_secrets_are_not_in_what_is_noted(followed, job, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-t0ken")
    leaky = replace(job.description, params={"address": "https://alice:pa55word@host"}, tags={"a": "t0ken-t0ken"})
    with followed(None).recorded(leaky):
        pass
    text = (job.state / "run.json").read_text()
    assert "alice" not in text and "pa55word" not in text and "t0ken" not in text


def test_the_environment_wins(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_tracking_uri("sqlite:///a.db") == "sqlite:///a.db"
    assert resolve_tracking_uri("") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    assert resolve_tracking_uri("sqlite:///a.db") == "http://host"


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


_KILLED = f"""{_FOLLOW}
import os, signal
with run.recorded(description):
    for epoch in range(20):
        job.history(*map(row, range(epoch + 1)))
        time.sleep(0.2)
    os.killpg(os.getpgid(run._process.pid), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_job_killed_while_it_is_mirrored_loses_and_doubles_nothing(store, tmp_path):
    command = [sys.executable, "-c", _KILLED, store, str(tmp_path)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    code = f"{_FOLLOW}\nwith run.recorded(description): job.history(*map(row, range(21)))"
    subprocess.run([sys.executable, "-c", code, store, str(tmp_path)], check=True, timeout=120)
    (shown,) = runs(store)
    assert steps(store, shown.info.run_id) == list(range(21)) and shown.info.status == "FINISHED"


@pytest.mark.slow
def test_four_jobs_are_mirrored_at_once_without_error(store, tmp_path):
    code = _FOLLOW.replace('experiment_id="a"', "experiment_id=sys.argv[3]")
    code += "\nwith run.recorded(description):\n    job.history(*map(row, range(30)))\n    assert run.id()"
    jobs = [subprocess.Popen([sys.executable, "-c", code, store, str(tmp_path), f"e{each}"]) for each in range(4)]
    assert [job.wait(180) for job in jobs] == [0] * 4
    shown = runs(store)
    assert len(shown) == 4 and {run.info.status for run in shown} == {"FINISHED"}
    assert all(steps(store, run.info.run_id) == list(range(30)) for run in shown)


def test_a_new_store_is_made_before_any_answer_is_waited_for(tmp_path):
    """So that results name their run even where making the tables takes longer than an answer may."""
    store = tmp_path / "new.db"
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "recu.tracking.follower"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        process.stdin.write(json.dumps([f"sqlite:///{store}", str(tmp_path), str(tmp_path)]) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {}
        with closing(sqlite3.connect(store)) as database:
            assert database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
        process.stdin.write("end\n")
    assert process.returncode == 0


FORKED = """
import json, os, sys
from pathlib import Path
from recu.base.preloaded import ADDRESS
from recu.tracking import run
from recu.tracking.client import import_mlflow
from recu.tracking.description import RunDescription

address, state, results, described = sys.argv[1:]
import_mlflow(address)
os.environ[ADDRESS] = "of the process that forked this one"
run._new_process = None
run._PATIENCE_S, run._ANSWER_S = 100.0, 90.0
followed = run.FollowedRun(address, Path(state), Path(results))
with followed.recorded(RunDescription(**json.loads(described))):
    print(followed.id(), flush=True)
"""


def test_a_job_that_is_a_fork_is_followed_by_a_fork(job, store):
    job.note().history(row(0))
    described = json.dumps(asdict(job.description))
    command = [sys.executable, "-c", FORKED, store, str(job.state), str(job.results), described]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (shown,) = runs(store)
    assert (shown.info.run_id, shown.info.status) == (done.stdout.strip(), "FINISHED")
    assert steps(store, shown.info.run_id) == [0]
