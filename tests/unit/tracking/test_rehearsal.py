"""The rehearsal leaves nothing behind but what it loaded."""

import tempfile
from pathlib import Path

import mlflow

from recu.tracking.rehearsal import rehearse

_OPEN = Path("/proc/self/fd")


def test_nothing_is_left_behind(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    rehearse()
    assert list(tmp_path.iterdir()) == []
    assert mlflow.get_tracking_uri() == before and mlflow.active_run() is None
    if _OPEN.is_dir():
        assert not [file for file in _OPEN.iterdir() if "recu-rehearsal" in str(file.resolve())]
