"""One at a time."""

import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from recu.base.errors import BusyError, OutputError
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
    (tmp_path / ".lock-holder").write_text("{")
    with only_one(tmp_path, "x"):
        pass
    assert not (tmp_path / ".lock-holder").exists()


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
    refused = pytest.raises(BusyError, match=rf"x is in use by process {os.getpid()} on")
    with only_one(tmp_path, "x"), refused, only_one(tmp_path, "x", wait_s=0):
        pytest.fail("both hold it")


HOLD = """
import fcntl, socket, sys, time
fcntl.flock = lambda *_: None
socket.gethostname = lambda: sys.argv[2]
from pathlib import Path
from recu.base import lock
lock._LEASE_S = 1.0
with lock.only_one(Path(sys.argv[1]), "x"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path, monkeypatch):
    """A function that has a process of some host hold the folder, where locks are granted and exclude nobody."""
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    monkeypatch.setattr("recu.base.lock._LEASE_S", 1.0)
    started = []

    def start(host):
        command = [sys.executable, "-c", HOLD, str(tmp_path), host]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("host", [socket.gethostname(), "another-node"])
def test_a_lock_that_excludes_nobody_is_not_relied_on(tmp_path, hold, host):
    holder = hold(host)
    refused = pytest.raises(BusyError, match=f"x is in use by process {holder.pid} on {host}")
    with refused, only_one(tmp_path, "x", wait_s=3):
        pytest.fail("both hold it")
    holder.kill()
    holder.wait()
    # A process of this host is seen to be gone; one of another has not touched its file for a while.
    with only_one(tmp_path, "x", wait_s=0.1 if host == socket.gethostname() else 10):
        pass


def test_who_stood_still_and_lost_its_place_is_told_to_end(tmp_path, hold):
    holder = hold("another-node")
    holder.send_signal(signal.SIGSTOP)
    with only_one(tmp_path, "x", wait_s=10):
        holder.send_signal(signal.SIGCONT)
        assert holder.wait(timeout=10) == -signal.SIGTERM
