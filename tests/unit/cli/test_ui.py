"""`recu ui` listens on this machine only."""

import os

import pytest

from recu.cli.main import main
from recu.paths import PARAMS_DIR


@pytest.fixture
def started(monkeypatch):
    calls = []
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(os, "execve", lambda program, command, environment: calls.append((command, environment)))
    return calls


def test_it_binds_to_loopback_and_reports_to_nobody(started):
    assert main(["ui", "--params_dir", str(PARAMS_DIR)]) == 0
    ((command, environment),) = started
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_server_elsewhere_is_not_shown_and_its_password_not_printed(started, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://alice:pa55word@host")
    assert main(["ui", "--params_dir", str(PARAMS_DIR)]) == 2
    assert started == [] and "pa55word" not in capsys.readouterr().err
