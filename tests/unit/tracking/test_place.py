"""Artifacts stay with their store when its folder is moved, renamed or copied."""

import itertools
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service import utils

from recu.tracking.client import connect
from recu.tracking.place import record_place, settle
from recu.tracking.store import empty_log, prepare_store
from tests.unit.tracking.conftest import Job, row

_SECONDS = itertools.count(20)


@pytest.fixture
def project(empty_store, tmp_path, description):
    """A project's folder with a store, a run and an artifact in it."""
    folder = tmp_path / "a b#c%20d?e=f&g'h \u00fc"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        _lay(connection, empty_store.parent, folder)
    log_from(folder, description, "one")
    return folder


def _lay(connection, before, folder):
    """As if the empty store had been made in `folder`."""
    old, new = ((each / "mlartifacts").as_uri() for each in (before, folder))
    connection.execute("UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)", (old, new))
    record_place(connection, folder)


def relative_address():
    """An address as in another process: in one, MLflow keeps what an address and a run have led to."""
    utils._artifact_repos_cache.clear()
    return f"sqlite:///mlflow.db?timeout={next(_SECONDS)}"


def log_from(folder, description, name):
    """What a job in `folder` does: mirror into the store by its relative address."""
    job = Job(folder / "job", description).note().history(row(0))
    (job.state / "train.log").write_text("log")
    (job.state / "train.log").rename(job.state / name)
    before = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("recu.experiment.paths.LOG", name)
            assert job.bring(relative_address()).left == []
        empty_log(folder / "mlflow.db")
    finally:
        os.chdir(before)


def _log_a_model(connection, project):
    columns = [row[1:4] for row in connection.execute("PRAGMA table_info(logged_models)")]
    values = {name: 0 if kind.startswith(("INT", "BIG")) else "x" for name, kind, needed in columns if needed}
    values["artifact_location"] = (project / "mlartifacts" / "demo" / "models" / "m-1").as_uri()
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO logged_models ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))
    connection.commit()


def shown(folder, monkeypatch):
    """Names of the artifacts of the only run, as the store in `folder` finds them."""
    monkeypatch.chdir(folder)
    client = connect(relative_address())
    (run,) = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    return sorted(file.path for file in client.list_artifacts(run.info.run_id))


def files(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_any_character_in_the_path(project, tmp_path, monkeypatch):
    assert len(list(project.rglob("mlartifacts/demo/*/artifacts/one"))) == 1
    assert shown(project, monkeypatch) == ["one"] and list(tmp_path.iterdir()) == [project]


def test_a_moved_project(project, description, tmp_path, monkeypatch):
    moved = project.rename(tmp_path / "moved")
    log_from(moved, description, "two")
    assert shown(moved, monkeypatch) == ["one", "two"] and not project.exists()


def test_a_copied_project_leaves_the_original_alone(project, description, tmp_path, monkeypatch, caplog):
    copy = shutil.copytree(project, tmp_path / "copy")
    before = files(project)
    log_from(copy, description, "two")
    assert files(project) == before and len(list(copy.rglob("mlartifacts/demo/*/artifacts/two"))) == 1
    assert shown(copy, monkeypatch) == ["one", "two"] and shown(project, monkeypatch) == ["one"]
    assert caplog.text.count("came from") == 1


def test_a_store_that_was_made_without_a_note(project, description, tmp_path, monkeypatch):
    with closing(sqlite3.connect(project / "mlflow.db")) as connection:
        connection.execute("DROP TABLE recu_place")
    copy = shutil.copytree(project, tmp_path / "copy")
    log_from(copy, description, "two")
    assert shown(copy, monkeypatch) == ["one", "two"]
    assert shown(project, monkeypatch) == ["one"]


def test_no_location_in_the_store_keeps_the_old_folder(project, tmp_path):
    with closing(sqlite3.connect(project / "mlflow.db")) as connection:
        _log_a_model(connection, project)
    moved = project.rename(tmp_path / "moved")
    settle(moved / "mlflow.db")
    with closing(sqlite3.connect(moved / "mlflow.db")) as connection:
        text = "\n".join(connection.iterdump())
    assert project.as_uri() not in text and moved.as_uri() in text


def test_several_paths_of_one_folder_change_nothing(project, description, tmp_path, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to(project)
    log_from(link, description, "two")
    with closing(sqlite3.connect(project / "mlflow.db")) as connection:
        assert connection.execute("SELECT folder FROM recu_place").fetchall() == [(str(project),)]
    assert shown(project, monkeypatch) == shown(link, monkeypatch) == ["one", "two"]


def test_another_mount_of_the_folder_changes_nothing(project, tmp_path):
    # A second name of the very file stands for a second mount, which a test cannot make.
    other = tmp_path / "mount"
    other.mkdir()
    (other / "mlflow.db").hardlink_to(project / "mlflow.db")
    before = (project / "mlflow.db").read_bytes()
    settle(other / "mlflow.db")
    assert (project / "mlflow.db").read_bytes() == before


def test_artifacts_on_a_disk_of_their_own_stay_there(empty_store, tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    address = f"sqlite:///{folder}/mlflow.db"
    disk = tmp_path / "disk" / "mlartifacts"
    prepare_store(address, ["demo"], disk)
    moved = folder.rename(tmp_path / "moved")
    prepare_store(f"sqlite:///{moved}/mlflow.db", ["demo"])
    experiment = connect(f"sqlite:///{moved}/mlflow.db").get_experiment_by_name("demo")
    assert experiment.artifact_location == (disk / "demo").as_uri()
