"""No credential survives in a text."""

import logging
import sys

import pytest

from recu.base.redaction import RedactingFormatter, redact


@pytest.mark.parametrize(
    "text, expected",
    [
        ("https://alice:pa55@host/x", "https://***@host/x"),
        ("https://alice:p@ss@host:5000", "https://***@host:5000"),
        ("postgresql://u:p@db/mlflow failed", "postgresql://***@db/mlflow failed"),
        ("http://host/api?token=abc&x=1", "http://host/api?token=***&x=1"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("http://[::1]:5000/a@b", "http://[::1]:5000/a@b"),
        ("http://u:p/w@host/x", "http://***@host/x"),
        ("http://u:p'w@host/x", "http://***@host/x"),
        ("https://h/x?X-Amz-Signature=abc&x=1", "https://h/x?X-Amz-Signature=***&x=1"),
        ("https://h/x?se=3&sig=abc", "https://h/x?se=3&sig=***"),
        ("https://h/x?access_token=abc", "https://h/x?access_token=***"),
        ("https://h/x?download=1&author=me", "https://h/x?download=1&author=me"),
        ("mysql://h/db?ssl_key=/x.pem", "mysql://h/db?ssl_key=/x.pem"),
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


def test_user_and_password_as_http_sends_them(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pa55word")
    assert redact("got 'Basic YWxpY2U6cGE1NXdvcmQ=' and 401") == "got 'Basic ***' and 401"


def test_log_lines_and_the_exceptions_in_them():
    formatter = RedactingFormatter("%(message)s")
    try:
        raise ConnectionError("no answer of http://alice:pa55word@host")
    except ConnectionError:
        record = logging.LogRecord("recu", logging.ERROR, "", 1, "at %s", ("http://a:b@c",), sys.exc_info())
    text = formatter.format(record)
    assert "at http://***@c" in text and "http://***@host" in text and "pa55word" not in text
