"""`recu bench --peers`: this package beside other ways to compute a binary network on a CPU, in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from recu.base.errors import ConfigError, RecuError
from recu.experiment.paths import PROJECT_DIR

_NETWORKS = (("cifar", "resnet20_1w1a", 32), ("cifar", "resnet18_1w1a", 32), ("imagenet", "resnet18_1w1a", 224))
_BATCHES, _THREADS = (1, 128), (1, 2)
_WAYS = ("packed", "evaluation", "openvino", "onnxruntime", "plain, channels_last", "plain")
_TOO_SLOW = {("imagenet", 128): ("plain",)}
"""What would take minutes a turn."""
_MIB = 1 << 20


@dataclass(frozen=True)
class PeerSettings:
    """What `recu bench --peers` measures."""

    openvino: Path
    """The Python of an environment with OpenVINO (`make openvino`)."""
    repeats: int = 3
    """Turns of each way."""
    seconds: float = 1.0
    """Of a turn, about."""
    small: bool = False
    """CIFAR's networks only."""


def bench_peers(settings: PeerSettings) -> dict[str, Any]:
    """Rates and milliseconds of every way, network, batch and number of threads; JSON-compatible.

    Raises:
        ConfigError: a setting is out of range.
        RecuError: a process ended before its turn.
    """
    if settings.repeats < 1 or not 0 < settings.seconds < 3600:
        raise ConfigError(f"{settings.repeats} turns of {settings.seconds} s: expected 1 or more, of 0 to 3600 s")
    found = []
    with tempfile.TemporaryDirectory(prefix="recu-peers-") as folder:
        for family, network, size in _NETWORKS[: 2 if settings.small else None]:
            file = Path(folder) / f"{family}.{network}.recu"
            file.write_bytes(_packed_file(family, network, size))
            for batch in _BATCHES:
                for threads in _THREADS:
                    case = {"family": family, "network": network, "size": size, "batch": batch, "threads": threads}
                    found.append(case | _measured(case | {"file": str(file), "classes": 10}, settings))
    return {"machine": _machine(), "settings": asdict(settings) | {"openvino": str(settings.openvino)}, "cases": found}


def render(result: dict[str, Any]) -> str:
    """The numbers as a table for people: images/s, milliseconds a batch, and both as a part of this package's."""
    lines = []
    for case in result["cases"]:
        own = case["ways"].get("packed", {}).get("rate")
        rows = [
            (
                way,
                f"{each['rate']:,.0f}",
                f"{each['ms']:.2f}",
                f"{own / each['rate']:.2f}",
                f"{each['memory'] / _MIB:,.0f}",
            )
            for way, each in case["ways"].items()
        ]
        threads = "1 thread" if case["threads"] == 1 else f"{case['threads']} threads"
        lines.append(
            f"{case['family']}.{case['network']}, {case['size']}x{case['size']} pixels, batches of {case['batch']},"
            f" {threads}; packed file: {case['bytes']:,} bytes"
        )
        headers = ("", "images/s", "ms a batch", "packed is faster by", "peak MiB")
        lines.append(
            tabulate(rows, headers=headers, floatfmt="", disable_numparse=True, colalign=("left", *["right"] * 4))
        )
        lines += [f"{way}: {reason}" for way, reason in case["skipped"].items()] + [""]
    machine, settings = result["machine"], result["settings"]
    return "\n".join(lines) + f"machine: {machine}; medians of {settings['repeats']} turns of {settings['seconds']:g} s"


def _packed_file(family: str, network: str, size: int) -> bytes:
    """A network with random weights, on which no speed depends, and statistics of its norms that are not all alike."""
    import torch
    from torch import nn

    from recu.export.graph import operations_of
    from recu.models.build import build_model
    from recu.runtime.writer import packed_bytes

    torch.manual_seed(0)
    model = build_model(network, family=family, num_classes=10)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
            layer.weight.data.uniform_(0.5, 1.5)
    return packed_bytes({"image": {"size": size}}, operations_of(model.eval()))


def _measured(case: dict[str, Any], settings: PeerSettings) -> dict[str, Any]:
    turns: dict[str, list[dict[str, float]]] = {}
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        workers = {}
        for way in _WAYS:
            if way in _TOO_SLOW.get((case["family"], case["batch"]), ()):
                skipped[way] = "not measured at this size: minutes a turn"
                continue
            if way == "openvino" and not settings.openvino.is_file():
                skipped[way] = f"no {settings.openvino}: `make openvino` makes that environment"
                continue
            python = str(settings.openvino) if way == "openvino" else sys.executable
            worker = stack.enter_context(_worker(python, case | {"way": way}))
            said = _answer(worker, way)
            if "missing" in said:
                skipped[way] = said["missing"]
            else:
                workers[way] = worker
        for _ in range(settings.repeats):
            for way, worker in workers.items():
                assert worker.stdin is not None
                worker.stdin.write(f"{settings.seconds}\n")
                worker.stdin.flush()
                turns.setdefault(way, []).append(_answer(worker, way))
    ways = {
        way: {name: statistics.median(turn[name] for turn in each) for name in each[0]} for way, each in turns.items()
    }
    return {"bytes": Path(case["file"]).stat().st_size, "ways": ways, "skipped": skipped}


@contextmanager
def _worker(python: str, settings: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    threads = str(settings["threads"])
    environment = os.environ | {"PYTHONPATH": str(PROJECT_DIR), "OMP_NUM_THREADS": threads}
    command = [python, "-m", "benchmarks.peer_worker", json.dumps(settings)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    worker = subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload]
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()


def _answer(worker: subprocess.Popen[str], way: str) -> dict[str, Any]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise RecuError(f"the process of {way!r} ended before its turn: see its message above")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _machine() -> str:
    from recu.training.device import choose_device, describe

    return describe(choose_device("cpu"))
