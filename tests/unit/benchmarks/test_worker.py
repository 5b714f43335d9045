"""Processes that are measured in turns: they answer, and one that ends is one line."""

import pytest

from benchmarks.worker import worker
from recu.base.errors import RecuError

SETTINGS = {
    "engine": "shipped",
    "model": "resnet20_1w1a",
    "batch_size": 4,
    "batch_size_test": 4,
    "train": 8,
    "test": 8,
    "threads": 1,
    "gpus": "cpu",
    "clock": "wall",
    "launched": 0.0,
}


def test_an_engine_does_what_it_is_asked_for() -> None:
    with worker("benchmarks.process", SETTINGS, name="resnet20_1w1a") as process:
        assert process.answer()["start_up"] > 0
        for word, images in (("train", 4), ("evaluate", 8), ("wait", 0)):
            answer = process.ask(word)
            assert answer["images"] == images and answer["seconds"] >= 0
        assert 100 << 20 < process.ask("memory")["memory"] < 8 << 30


def test_a_process_that_fails_is_one_line() -> None:
    with (
        worker("benchmarks.process", SETTINGS | {"model": "nothing"}, name="nothing", advice="name another") as process,
        pytest.raises(RecuError, match=r"^the process that measures nothing ended before its turn: name another$"),
    ):
        process.ask("train")
