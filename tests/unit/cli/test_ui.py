"""`recu ui` listens on this machine only."""

import os
import socket
import subprocess
import sys

import pytest

from recu.cli import ui
from recu.cli.main import main
from recu.experiment.paths import PARAMS_DIR
from recu.tracking.client import connect
from recu.tracking.store import prepare_store


@pytest.fixture
def started(monkeypatch):
    calls = []
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(os, "execve", lambda program, command, environment: calls.append((command, environment)))
    return calls


def test_it_binds_to_loopback_and_reports_to_nobody(started):
    assert main(["ui", "--params_dir", str(PARAMS_DIR), "--port", "0"]) == 0
    ((command, environment),) = started
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert command[command.index("--workers") + 1] == "1"


def test_it_opens_where_the_suites_trainings_are(started, monkeypatch, capsys, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    prepare_store(uri, ["other", "demo"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    number = connect(uri).get_experiment_by_name("demo").experiment_id
    page = f"http://127.0.0.1:0/#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey=recu"
    assert main(["ui", "demo", "--params_dir", str(PARAMS_DIR), "--port", "0"]) == 0
    assert capsys.readouterr().out.endswith(f": {page}\n")
    assert main(["ui", "--params_dir", str(PARAMS_DIR), "--port", "0"]) == 0, "the suite of params/config.yaml"
    assert capsys.readouterr().out.endswith(f": {page}\n")
    assert main(["ui", "cifar10", "--params_dir", str(PARAMS_DIR), "--port", "0"]) == 2
    assert "unknown MLflow experiment" in (said := capsys.readouterr().err) and "'cifar10'" in said and "demo" in said
    assert len(started) == 2


def test_a_suite_that_was_not_run_yet_is_said(started, monkeypatch, capsys, tmp_path):
    prepare_store(f"sqlite:///{tmp_path}/mlflow.db", ["other"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert main(["ui", "--params_dir", str(PARAMS_DIR), "--port", "0"]) == 0
    assert "note: suite demo was not run yet; `recu ui SUITE` opens another: other" in capsys.readouterr().out


def test_the_browser_opens_once_the_server_answers(monkeypatch, tmp_path):
    opened = tmp_path / "opened"
    (tmp_path / "webbrowser.py").write_text(
        f"def open(page): __import__('pathlib').Path({str(opened)!r}).write_text(page)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", ui._OPENER, "http://page", "127.0.0.1", str(server.getsockname()[1])]
        subprocess.run(command, check=True, timeout=60)
    assert opened.read_text() == "http://page"


def test_a_databases_password_is_on_no_command_line_and_not_printed(started, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://alice:pa55word@host/db")
    monkeypatch.setattr(ui, "_experiments", lambda uri: {})
    assert main(["ui", "--params_dir", str(PARAMS_DIR), "--port", "0"]) == 0
    ((command, environment),) = started
    assert "pa55word" not in " ".join(command)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == "postgresql://alice:pa55word@host/db"
    assert "pa55word" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("place", [["--port", "99999"], ["--port", "-1"], ["--host", "no such host"]])
def test_a_place_where_nothing_can_listen_is_one_line(started, capsys, place):
    assert main(["ui", "--params_dir", str(PARAMS_DIR), *place]) == 2
    assert started == [] and "error: cannot listen on " in capsys.readouterr().err


def test_a_port_in_use_is_one_line(started, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["ui", "--params_dir", str(PARAMS_DIR), "--port", str(port)]) == 2
    assert "Address already in use" in capsys.readouterr().err


def test_a_server_elsewhere_is_not_shown_and_its_password_not_printed(started, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://alice:pa55word@host")
    assert main(["ui", "--params_dir", str(PARAMS_DIR)]) == 2
    assert started == [] and "pa55word" not in capsys.readouterr().err
