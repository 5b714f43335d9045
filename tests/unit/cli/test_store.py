"""A store that does not work stops nothing; a misspelt address does."""

import time

import pytest

from recu.base.errors import ConfigError
from recu.experiment.params import parse_workflow_config

FOREIGN = ["http://127.0.0.1:9", "./mlruns", "file:///somewhere/mlruns", "databricks", "ftp://alice:pa55word@host"]


def store(recu, address="sqlite:///mlflow.db"):
    return recu("store", "--tracking_uri", address, "--suites", "demo")


@pytest.mark.parametrize("address", FOREIGN)
def test_a_store_of_the_environment_that_does_not_work(recu, monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert store(recu) == 0
    (line,) = recu.out.splitlines()
    assert line.startswith("tracking: nothing is recorded in MLflow for now: ") and "recu sync" in line
    assert "pa55word" not in recu.out + recu.err and list(recu.folder.iterdir()) == []


def test_a_store_that_never_answers(recu, monkeypatch):
    monkeypatch.setattr("recu.cli.store._LONGEST_ANSWER_S", 0.2)
    monkeypatch.setattr("recu.tracking.store.prepare_store", lambda *_: time.sleep(20))
    assert store(recu, "http://host") == 0
    assert "has not answered" in recu.out


def test_a_misspelt_address_is_one_line(recu):
    assert store(recu, "sqlit:///mlflow.db") == 2
    assert "did you mean 'sqlite'" in recu.error()


def test_a_misspelt_address_in_the_configuration_is_refused_at_planning():
    places = {f"{name}_dir": name for name in ("data", "results", "runs", "reports")}
    with pytest.raises(ConfigError, match=r"tracking_uri: .*did you mean 'sqlite'"):
        parse_workflow_config({"suites": "demo", "tracking_uri": "sqlit:///mlflow.db"} | places)
