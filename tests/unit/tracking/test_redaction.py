"""No credential survives in a text."""

import pytest

from recu.tracking.redaction import redact, redact_description


@pytest.mark.parametrize(
    "text, expected",
    [
        ("https://alice:pa55@host/x", "https://***@host/x"),
        ("https://alice:p@ss@host:5000", "https://***@host:5000"),
        ("postgresql://u:p@db/mlflow failed", "postgresql://***@db/mlflow failed"),
        ("http://host/api?token=abc&x=1", "http://host/api?token=***&x=1"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
    ],
)
def test_addresses(text, expected):
    assert redact(text) == expected


def test_values_of_the_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret/!word")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-en")
    assert redact("password s3cret/!word, quoted s3cret%2F%21word, token tok-en.") == (
        "password ***, quoted ***, token ***."
    )


def test_a_short_password_does_not_garble_ordinary_text(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "1")
    assert redact("lr 1 0.1") == "lr 1 0.1"


def test_every_free_text_of_a_description(monkeypatch, description):
    from dataclasses import asdict, replace

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter22")
    leaky = replace(
        description,
        run_name="run hunter22",
        params={"uri": "https://a:b@c"},
        tags={"note": "hunter22"},
        dataset=replace(description.dataset, source="https://x:hunter22@data"),
    )
    assert "hunter22" not in repr(asdict(redact_description(leaky)))
    assert "a:b" not in repr(asdict(redact_description(leaky)))
