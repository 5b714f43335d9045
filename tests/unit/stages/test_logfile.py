"""The append-only log of a training."""

import logging

import pytest

from recu.base.errors import OutputError
from recu.stages.logfile import log_to

_log = logging.getLogger("recu.test")


def test_messages_are_appended_with_the_reason_of_an_early_end(tmp_path):
    for number in range(2):
        with pytest.raises(ValueError), log_to(tmp_path / "train.log"):
            _log.info("session %d", number)
            raise ValueError("why")
    text = (tmp_path / "train.log").read_text()
    assert text.count("ended early: ValueError: why") == 2 and "session 0" in text and "session 1" in text


def test_a_log_that_cannot_be_opened_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*train\.log"), log_to(tmp_path / "file" / "train.log"):
        pass


def test_a_full_disk_costs_the_log_and_nothing_else(tmp_path, capsys):
    # This device takes nothing, as a full disk does.
    (tmp_path / "train.log").symlink_to("/dev/full")
    with log_to(tmp_path / "train.log"):
        _log.info("first")
        _log.info("second")
    shown = capsys.readouterr().err
    assert shown.count("warning: cannot write the log") == 1 and "No space left" in shown
    assert "Traceback" not in shown
