"""The MLflow store is made once, whole, and in the right place."""

import multiprocessing
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from recu.errors import ConfigError, OutputError
from recu.tracking.client import connect
from recu.tracking.store import prepare_store, sqlite_file


def test_experiments_with_explicit_artifact_folders(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare_store(store, ["demo", "cifar10"], tmp_path / "artifacts")
    prepare_store(store, ["demo"], tmp_path / "elsewhere")
    experiments = {experiment.name: experiment for experiment in connect(store).search_experiments()}
    assert experiments["demo"].artifact_location == (tmp_path / "artifacts" / "demo").as_uri()
    assert "cifar10" in experiments
    assert not (tmp_path / "mlruns").exists()


def test_write_ahead_log_is_on(empty_store):
    with closing(sqlite3.connect(empty_store)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert not list(empty_store.parent.glob(".*.part*"))


def test_a_deleted_experiment_is_restored(store):
    prepare_store(store, ["demo"])
    client = connect(store)
    client.delete_experiment(client.get_experiment_by_name("demo").experiment_id)
    prepare_store(store, ["demo"])
    assert client.get_experiment_by_name("demo").lifecycle_stage == "active"


def test_a_damaged_database_is_one_readable_error_and_stays(tmp_path):
    file = tmp_path / "mlflow.db"
    file.write_text("this is no database, and long enough to be read as one" * 20)
    before = file.read_bytes()
    with pytest.raises(OutputError, match=r"cannot use the MLflow store .*not a database"):
        prepare_store(f"sqlite:///{file}", ["demo"])
    assert file.read_bytes() == before


def test_a_folder_in_place_of_a_database_is_refused_at_once(tmp_path):
    begin = time.monotonic()
    with pytest.raises(OutputError, match="it is a folder"):
        prepare_store(f"sqlite:///{tmp_path}", ["demo"])
    assert time.monotonic() - begin < 10, "MLflow itself tries for minutes"


@pytest.mark.parametrize("address", ["mlruns", "file:///somewhere", "ftp://u:secret@host"])
def test_addresses_that_cannot_work(address):
    with pytest.raises(ConfigError) as caught:
        prepare_store(address, ["demo"])
    assert "secret" not in str(caught.value) and "sqlite:///FILE" in str(caught.value)


def test_a_server_that_refuses_is_one_readable_error_without_credentials():
    with pytest.raises(OutputError) as caught:
        prepare_store("http://alice:pa55word@127.0.0.1:9", ["demo"])
    assert "pa55word" not in str(caught.value) and "***@127.0.0.1:9" in str(caught.value)


def test_a_new_store_takes_nothing_from_the_log_of_one_that_was_removed(tmp_path):
    file = tmp_path / "mlflow.db"
    code = f"""
import os, signal
from recu.tracking.client import connect
from recu.tracking.store import prepare_store
prepare_store("sqlite:///{file}", ["first"])
connect("sqlite:///{file}").create_experiment("second")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert file.with_name("mlflow.db-wal").stat().st_size > 0
    file.unlink()
    prepare_store(f"sqlite:///{file}", ["third"])
    names = {found.name for found in connect(f"sqlite:///{file}").search_experiments()}
    assert names == {"Default", "third"}
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_sqlite_file():
    assert sqlite_file("sqlite:////a/b.db").as_posix() == "/a/b.db"
    assert sqlite_file("sqlite:///b.db").is_absolute()
    assert sqlite_file("http://host") is None


@pytest.mark.slow
def test_several_processes_create_the_same_store_at_once(tmp_path):
    address = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=prepare_store, args=(address, ["demo", "cifar10"])) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    assert {"demo", "cifar10"} <= {experiment.name for experiment in connect(address).search_experiments()}
