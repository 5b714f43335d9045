"""One at a time."""

import logging
import os
import threading

from recu.stages.lock import LOCK, only_one


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
