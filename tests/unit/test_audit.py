"""The dependency audit of CI: what is vulnerable fails, what was not looked up is never called clean."""

import importlib.util
import sys

import pytest

from recu.experiment.paths import PROJECT_DIR

FLAW = {"id": "PYSEC-1", "fix_versions": ["2.0"]}


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("audit", PROJECT_DIR / ".ci/audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def clean(name="good"):
    return {"name": name, "version": "1.0", "vulns": []}


def skipped(name="absent"):
    return {"name": name, "skip_reason": "Dependency not found on PyPI and could not be audited"}


@pytest.mark.parametrize(
    ("dependencies", "code", "text"),
    [
        ([clean(), clean("b")], 0, "no known vulnerability in 2 dependencies"),
        ([clean(), skipped()], 0, "no known vulnerability in 1 dependencies, 1 not audited (absent)"),
        ([skipped(), skipped("b")], 0, "skipped, nothing was audited"),
        ([], 0, "skipped, nothing was audited"),
        ([clean(), clean("bad") | {"vulns": [FLAW]}], 1, "bad 1.0: PYSEC-1, fixed in 2.0"),
    ],
)
def test_verdict(audit, dependencies, code, text):
    said, found = audit.judge({"dependencies": dependencies})
    assert found == code and text in said


def test_a_database_that_does_not_answer_is_said_and_does_not_fail(audit, tmp_path, monkeypatch, capsys):
    answerless = tmp_path / "python"
    answerless.write_text("#!/bin/sh\necho 'ConnectionError: no route' >&2\nexit 1\n")
    answerless.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(answerless))
    assert audit.main([]) == 0
    assert capsys.readouterr().out == "audit: skipped, nothing was audited: ConnectionError: no route\n"
