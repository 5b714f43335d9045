"""The comparison with others: a worker's turns, what is skipped and why, the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import peers
from recu.base.errors import ConfigError, RecuError


def test_ways_take_turns_and_one_that_is_not_installed_is_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(peers, "_NETWORKS", (("cifar", "resnet20_1w1a", 32),))
    monkeypatch.setattr(peers, "_BATCHES", (2,))
    monkeypatch.setattr(peers, "_THREADS", (1,))
    monkeypatch.setattr(peers, "_WAYS", ("packed", "openvino"))
    result = peers.bench_peers(peers.PeerSettings(openvino=tmp_path / "none", repeats=1, seconds=0.01))
    (case,) = result["cases"]
    assert case["batch"] == 2 and case["bytes"] > 40_000
    assert case["ways"]["packed"]["rate"] == pytest.approx(2000 / case["ways"]["packed"]["ms"])
    assert case["ways"]["packed"]["memory"] > 20 << 20
    assert "make openvino" in case["skipped"]["openvino"]
    table = peers.render(result)
    assert "cifar.resnet20_1w1a, 32x32 pixels, batches of 2, 1 thread" in table and "packed is faster by" in table


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"repeats": 0}, {"seconds": 0.0}):
        with pytest.raises(ConfigError, match="expected 1 or more"):
            peers.bench_peers(peers.PeerSettings(openvino=Path("none"), **wrong))


def test_a_worker_that_ends_is_an_error() -> None:
    with peers._worker("/bin/true", {"threads": 1}) as worker, pytest.raises(RecuError, match="ended before its turn"):
        peers._answer(worker, "packed")
