"""One at a time."""

import errno
import logging
import os
import threading

import pytest

from recu.base.errors import OutputError
from recu.base.lock import LOCK, only_one


def test_a_second_one_names_the_holder_and_waits(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="recu")
    order = []
    entered = threading.Event()

    def second():
        entered.set()
        with only_one(tmp_path, "experiment x"):
            order.append("second")

    with only_one(tmp_path, "experiment x"):
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait()
        thread.join(timeout=1.0)
        assert thread.is_alive()
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
    assert f"experiment x is in use by process {os.getpid()} on" in caplog.text
    assert "is free now" in caplog.text


def test_a_stale_holder_does_not_matter(tmp_path):
    (tmp_path / LOCK).touch()
    (tmp_path / ".lock-holder.json").write_text("{")
    with only_one(tmp_path, "x"):
        pass
    assert not (tmp_path / ".lock-holder.json").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_named_and_nothing_is_left_there(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with (
        pytest.raises(OutputError, match=r"new: file locks are not supported there .* a local disk .* local_lock"),
        only_one(tmp_path / "new", "x"),
    ):
        pytest.fail("it ran without a lock")
    assert not list(tmp_path.iterdir())


def test_a_lock_that_is_refused_for_another_reason_speaks_of_permissions(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OutputError, match="Operation not permitted; check permissions"), only_one(tmp_path, "x"):
        pytest.fail("it ran without a lock")


def test_who_does_not_wait_is_told_who_has_it(tmp_path):
    refused = pytest.raises(OutputError, match=rf"x is in use by process {os.getpid()} on")
    with only_one(tmp_path, "x"), refused, only_one(tmp_path, "x", wait=False):
        pytest.fail("both hold it")
