"""`recu sync`: what is said, and the exit code."""

import json
import os
import shutil

import pytest

from recu.tracking import RunDescription
from recu.tracking.outbox import Outbox
from recu.tracking.store import prepare_store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    prepare_store(f"sqlite:///{file}", ["demo"])
    return file


@pytest.fixture
def outbox(recu, made):
    shutil.copy(made, "mlflow.db")
    box = Outbox(recu.folder / "runs" / "a" / "tracking-outbox.jsonl")
    box.folder.mkdir(parents=True)
    box.rewrite(
        RunDescription(experiment="demo", stage="train", experiment_id="demo/a", spec_hash="0" * 16, run_name="a"),
        [{"event": "metrics", "metrics": {"time": 1, "top1": 1.0}}],
    )
    return box.path


def test_everything_is_sent(recu, outbox):
    assert recu("sync") == 0
    assert "1 sent, 0 refused" in recu.out and not outbox.exists()
    assert recu("sync") == 0 and "nothing to send in runs" in recu.out


def test_files_of_others_are_refused_and_the_rest_goes_on(recu, outbox):
    secret = recu.folder / "secret.txt"
    secret.write_text("secret")
    with outbox.open("a") as stream:
        for path in (str(secret), "../../secret.txt", "../../../../../../etc/passwd"):
            stream.write(json.dumps({"event": "artifact", "path": path, "folder": "../../escaped"}) + "\n")
    another = Outbox(recu.folder / "runs" / "b" / "tracking-outbox.jsonl")
    another.folder.mkdir()
    shutil.copy(outbox, another.path)
    broken = recu.folder / "runs" / "aa" / "tracking-outbox.jsonl"
    broken.parent.mkdir()
    broken.write_text("\x1b[2J\n")
    assert recu("sync") == 2
    assert recu.out.count("1 sent, 3 refused") == 2 and "first line" in recu.out and "\x1b" not in recu.out
    assert "7 records were not sent" in recu.error()
    assert not list(recu.folder.rglob("passwd")) and [secret] == list(recu.folder.rglob("secret.txt"))


def test_a_store_that_is_down_is_one_line(recu, outbox):
    before = outbox.read_bytes()
    assert recu("sync", "--tracking_uri", "http://127.0.0.1:9") == 2
    assert "cannot use the MLflow store" in recu.error() and outbox.read_bytes() == before


def test_the_runs_of_another_folder_with_the_results_beside_them(recu, outbox, tmp_path, monkeypatch):
    published = recu.folder / "results" / "train" / "demo" / "a"
    published.mkdir(parents=True)
    (published / "metrics.json").write_text("{}")
    with outbox.open("a") as stream:
        where = os.path.relpath(published / "metrics.json", outbox.parent)
        stream.write(json.dumps({"event": "artifact", "path": where, "folder": None}) + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert recu("sync", "--runs_dir", recu.folder / "runs", "--tracking_uri", f"sqlite:///{recu.folder}/mlflow.db") == 0
    assert "2 sent, 0 refused" in recu.out
