"""`recu sync`: what is said, and the exit code."""

import json
import shutil
from pathlib import Path

import pytest

from recu.tracking.client import connect
from recu.tracking.description import RunDescription
from recu.tracking.follower import lock_of
from recu.tracking.store import empty_log, prepare_store
from tests.unit.tracking.conftest import Job, finished


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    prepare_store(f"sqlite:///{file}", ["demo"])
    empty_log(file)
    return file


@pytest.fixture
def job(recu, made):
    shutil.copy(made, "mlflow.db")
    description = RunDescription(
        experiment="demo", stage="train", experiment_id="demo/a", spec_hash="0" * 16, run_name="a"
    )
    return finished(Job(recu.folder, description))


def address():
    """Absolute: within one process MLflow keeps what a relative address has led to."""
    return f"sqlite:///{Path.cwd()}/mlflow.db"


def shown():
    client = connect(address())
    return client.search_runs([client.get_experiment_by_name("demo").experiment_id])


def test_everything_is_sent_once(recu, job):
    assert recu("sync", "--tracking_uri", address()) == 0
    assert "sent" in recu.out and "1 runs, 0 of them up to date before" in recu.out
    assert [run.info.status for run in shown()] == ["FINISHED"]
    assert recu("sync", "--tracking_uri", address()) == 0 and recu.out == "1 runs, 1 of them up to date before\n"
    assert recu("sync", "--tracking_uri", address(), "--runs_dir", "elsewhere", "--results_dir", "elsewhere") == 0
    assert "nothing to send in elsewhere" in recu.out


def test_files_of_others_are_refused_and_the_rest_goes_on(recu, job):
    secret = recu.folder / "secret.txt"
    secret.write_text("secret")
    (job.state / "train.log").unlink()
    (job.state / "train.log").symlink_to(secret)
    damaged = recu.folder / "runs" / "aa"
    damaged.mkdir()
    (damaged / "run.json").write_text("\x1b[2J\n")
    assert recu("sync", "--tracking_uri", address()) == 2
    assert "not sent: not a file of this run: " in recu.out and "run.json is not valid JSON" in recu.out
    assert "\x1b" not in recu.out and "2 parts of runs are not in the store" in recu.error()
    assert not [file for file in recu.folder.rglob("mlartifacts/**/*") if file.is_file() and "log" in file.name]
    assert [run.info.status for run in shown()] == ["FINISHED"]


def test_a_store_that_is_down_is_one_line(recu, job):
    assert recu("sync", "--tracking_uri", "http://127.0.0.1:9") == 2
    assert "cannot use the MLflow store" in recu.error() and recu.out == ""


def test_a_run_that_a_job_mirrors_is_left_to_it(recu, job):
    with lock_of(job.state):
        assert recu("sync", "--tracking_uri", address()) == 0
    assert "busy: a job is at work" in recu.out and shown() == []


def test_the_runs_of_another_folder_with_the_results_beside_them(recu, job, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert recu("sync", "--runs_dir", recu.folder / "runs", "--tracking_uri", f"sqlite:///{recu.folder}/mlflow.db") == 0
    monkeypatch.chdir(recu.folder)
    assert [run.data.metrics["best/top1"] for run in shown()] == [51.0]


def test_outboxes_of_an_earlier_version_are_explained_in_one_line(recu, job):
    outbox = job.state / "tracking-outbox.jsonl"
    outbox.write_text(json.dumps({"event": "start"}))
    assert recu("sync", "--tracking_uri", address()) == 0
    (line,) = [line for line in recu.out.splitlines() if "outbox" in line]
    assert "of an earlier version" in line and "may be removed" in line and outbox.exists()
