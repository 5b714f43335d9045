"""`make test-gpu`: what only a GPU can show, with its figures in one table and in results/gpu.json.

RECU_GPU_TESTS_ON=cpu rehearses on the CPU whatever can be.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recu.base.files import atomic_write_json
from recu.training.seeding import make_deterministic

_REPORT = Path("results/gpu.json")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device() -> torch.device:
    if os.environ.get("RECU_GPU_TESTS_ON") == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device that PyTorch can use")
    return torch.device("cuda:0")


@pytest.fixture(autouse=True)
def _arithmetic_of_every_command() -> None:
    make_deterministic()


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    if device.type != "cuda":
        pytest.skip("nothing like it on a CPU")
    return device


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """A function that keeps figures of the present test for the table, whichever process runs it."""
    return lambda **figures: request.node.user_properties.extend(figures.items())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line a check; written to results/gpu.json too, unless it was a rehearsal or all were skipped."""
    reports = [
        (outcome, report)
        for outcome in ("passed", "failed", "skipped")
        for report in terminalreporter.stats.get(outcome, ())
        if "gpu" in report.keywords and (report.when == "call" or outcome == "skipped")
    ]
    if not any(report.user_properties for _, report in reports):
        return
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU (a rehearsal)"
    terminalreporter.section(f"on {name}")
    checks = []
    for outcome, report in reports:
        test = report.nodeid.rpartition("::")[2]
        found = dict(report.user_properties)
        shown = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items()
        )
        terminalreporter.write_line(f"{outcome:8} {test:70} {shown}")
        checks.append({"check": test, "outcome": outcome, "figures": found})
    if torch.cuda.is_available():
        packages = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        atomic_write_json(_REPORT, {"device": name, "versions": packages, "checks": checks})
        terminalreporter.write_line(f"written to {_REPORT}")
