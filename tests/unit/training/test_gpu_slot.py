import errno
import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from recu.training.gpu_slot import take_slots, visible_gpus


def test_names_come_from_the_environment_where_it_sets_them():
    assert visible_gpus(2, None) == ("0", "1")
    assert visible_gpus(2, "3,5") == ("3", "5")
    assert visible_gpus(1, "GPU-a,GPU-b") == ("GPU-a",)


@contextmanager
def holding(gpus, count, tmp_path):
    """What two processes hold that want `count` GPUs each at once."""
    code = f"""
from pathlib import Path
from recu.training.gpu_slot import take_slots
print(*take_slots({gpus!r}, {count}, Path({str(tmp_path)!r})), flush=True)
input()
"""
    holders = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        yield sorted([int(number) for number in holder.stdout.readline().split()] for holder in holders)
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def test_each_process_gets_its_own_and_gives_it_back_when_it_is_killed(tmp_path):
    with holding(("0", "1"), 1, tmp_path) as held:
        assert held == [[0], [1]]
        assert take_slots(("0", "1"), 1, tmp_path) == [0], "all are held: shared"
    assert take_slots(("0", "1"), 1, tmp_path) == [0]
    assert take_slots(("0", "1"), 1, tmp_path) == [1]


def test_two_jobs_of_two_gpus_take_distinct_pairs(tmp_path):
    gpus = ("0", "1", "2", "3")
    with holding(gpus, 2, tmp_path) as held:
        assert held == [[0, 1], [2, 3]]
        assert take_slots(gpus, 3, tmp_path) == [0, 1, 2], "all are held: shared"


def test_where_too_few_are_free_those_come_first(tmp_path):
    gpus = ("0", "1", "2")
    with holding(gpus, 1, tmp_path) as held:
        assert held == [[0], [1]]
        assert take_slots(gpus, 2, tmp_path) == [0, 2], "two devices, one of them shared"


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path, caplog):
    elsewhere = tmp_path / "elsewhere"
    slots = tmp_path / "slots"
    slots.mkdir(mode=0o700)
    (slots / "0.lock").symlink_to(elsewhere)
    assert take_slots(("0", "1"), 1, slots) == [0]
    assert not elsewhere.exists()
    assert "which GPUs are taken cannot be known" in caplog.text


@pytest.mark.parametrize("kind", ["a link", "a file", "open to others", "somebody else's", "below a file"])
def test_a_folder_that_is_not_this_users_own_is_left_alone(tmp_path, caplog, monkeypatch, kind):
    slots, own = tmp_path / "slots", tmp_path / "own"
    own.mkdir(mode=0o700)
    if kind == "a link":
        slots.symlink_to(own)
    elif kind in ("a file", "below a file"):
        slots.touch()
        slots = slots / "deeper" if kind == "below a file" else slots
    elif kind == "open to others":
        slots.mkdir()
        slots.chmod(0o777)
    else:
        slots.mkdir(mode=0o700)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert take_slots(("0", "1"), 1, slots) == [0]
    assert not list(own.iterdir()) and not (slots.is_dir() and list(slots.iterdir()))
    assert f"{slots}: " in caplog.text and "name another with --gpus" in caplog.text


def test_a_file_system_without_locks_has_no_slots(tmp_path, caplog, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert take_slots(("0", "1"), 1, tmp_path / "slots") == [0]
    assert "No locks available" in caplog.text
