"""The MLflow store is made once, whole, and in the right place."""

import json
import multiprocessing
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from mlflow.exceptions import MlflowException

from recu.base.errors import ConfigError, OutputError
from recu.tracking.client import connect
from recu.tracking.store import note_sizes, prepare_store


def test_experiments_with_explicit_artifact_folders(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare_store(store, ["demo", "cifar10"], tmp_path / "artifacts")
    prepare_store(store, ["demo"], tmp_path / "elsewhere")
    experiments = {experiment.name: experiment for experiment in connect(store).search_experiments()}
    assert experiments["demo"].artifact_location == (tmp_path / "artifacts" / "demo").as_uri()
    assert "cifar10" in experiments
    assert not (tmp_path / "mlruns").exists()


def test_experiments_are_described_and_keep_what_a_person_wrote(store):
    prepare_store(store, ["demo"], notes={"demo": "**Demo**"})
    client = connect(store)
    tags = client.get_experiment_by_name("demo").tags
    view = json.loads(tags["mlflow.sharedViewState.recu"])
    assert "metrics.`best/top1`" in view["selectedColumns"] and tags["mlflow.note.content"] == "**Demo**"
    client.set_experiment_tag(client.get_experiment_by_name("demo").experiment_id, "own", "x")
    prepare_store(store, ["demo"])
    assert client.get_experiment_by_name("demo").tags.items() >= (tags | {"own": "x"}).items()


def test_a_store_that_lets_nobody_describe_its_experiments_works(store, monkeypatch):
    def refuse(*_: object) -> None:
        raise MlflowException("permission denied")

    monkeypatch.setattr("mlflow.tracking.MlflowClient.set_experiment_tag", refuse)
    prepare_store(store, ["demo"], notes={"demo": "x"})
    assert connect(store).get_experiment_by_name("demo") is not None


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


@pytest.fixture(scope="module")
def older_store(tmp_path_factory):
    """A store as an earlier MLflow made it, a few migrations behind."""
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision, create_sqlalchemy_engine
    from mlflow.store.tracking.dbmodels.initial_models import Base

    file = tmp_path_factory.mktemp("older") / "mlflow.db"
    engine = create_sqlalchemy_engine(f"sqlite:///{file}")
    Base.metadata.create_all(engine)
    config = _get_alembic_config(f"sqlite:///{file}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, f"{_get_latest_schema_revision()}-4")
    engine.dispose()
    return file


def test_an_outdated_store_stays_as_it_is_and_the_advice_upgrades_it(older_store):
    from mlflow.cli import cli

    address = f"sqlite:///{older_store}"
    before = older_store.read_bytes()
    with pytest.raises(OutputError, match="older MLflow") as raised:
        prepare_store(address, ["demo"])
    assert older_store.read_bytes() == before, "MLflow would have changed it"
    python, _, module, *words = shlex.split(str(raised.value).rpartition("run: ")[2])
    assert (python, module) == (sys.executable, "mlflow")
    cli.main(words, standalone_mode=False)
    prepare_store(address, ["demo"])
    assert connect(address).get_experiment_by_name("demo") is not None


def test_a_store_of_a_newer_mlflow_is_told_from_an_outdated_one(store):
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'feedfeedfeed'")
        connection.commit()
    with pytest.raises(OutputError, match=r"newer MLflow than \d.*feedfeedfeed.*install that version"):
        prepare_store(store, ["demo"])


def test_another_programs_database_gets_no_tables_of_mlflow(tmp_path):
    file = tmp_path / "mail.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE mails (subject TEXT)")
    before = file.read_bytes()
    with pytest.raises(OutputError, match="database of another program"):
        prepare_store(f"sqlite:///{file}", ["demo"])
    assert file.read_bytes() == before


def test_an_empty_file_becomes_a_store(tmp_path, empty_store, monkeypatch):
    made = []
    monkeypatch.setattr(
        "recu.tracking.store._create_sqlite", lambda file, root: made.append(shutil.copy(empty_store, file))
    )
    (tmp_path / "mlflow.db").touch()
    prepare_store(f"sqlite:///{tmp_path}/mlflow.db", ["demo"])
    assert made


def test_a_store_that_another_program_holds_is_one_readable_error(store, monkeypatch):
    monkeypatch.setattr("recu.tracking.store._WRITE_WAIT_S", 0.1)
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutputError, match="database is locked"):
            prepare_store(store, ["demo"])
    prepare_store(store, ["demo"])


def test_a_database_without_its_driver_is_one_readable_error_at_once():
    begin = time.monotonic()
    with pytest.raises(OutputError, match="check that it runs"):
        prepare_store("mssql://alice:pa55word@127.0.0.1:9/db", ["demo"])
    assert time.monotonic() - begin < 10


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


def test_the_sizes_of_tables_are_noted_unless_the_store_is_in_use(tmp_path):
    file = tmp_path / "mlflow.db"
    prepare_store(f"sqlite:///{file}", ["demo"])
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        note_sizes(file)
        connection.rollback()
        tables = "SELECT name FROM sqlite_master WHERE name = 'sqlite_stat1'"
        assert connection.execute(tables).fetchone() is None
        note_sizes(file)
        assert connection.execute("SELECT stat FROM sqlite_stat1 WHERE tbl = 'experiments'").fetchone() is not None
