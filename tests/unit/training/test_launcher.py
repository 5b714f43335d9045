"""What the processes of one command are started with."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest
from torch.distributed.launcher.api import LaunchConfig

from recu.base import preloaded
from recu.training import launcher
from recu.training.processes import SAID, STORE


class Launch(NamedTuple):
    config: LaunchConfig
    environment: dict[str, str]
    folder_mode: int


@pytest.fixture
def launched(monkeypatch) -> Launch:
    """What PyTorch's launcher is called with, in the job of a workflow with `preload: true`."""
    found = []

    def elastic_launch(config, _program):
        folder = Path(os.environ[STORE]).parent
        found.append(Launch(config, dict(os.environ), folder.stat().st_mode & 0o777))
        return lambda *_: None

    monkeypatch.setattr(launcher, "elastic_launch", elastic_launch)
    for name in (SAID, STORE, "GLOO_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv(preloaded.ADDRESS, "/somewhere/socket")
    launcher.launch(["train"], gpus="cpu", count=2)
    (launch,) = found
    return launch


def test_they_are_no_forks_of_what_a_workflow_has_preloaded(launched):
    """As such, the one that trains would fork the process that sends to MLflow, with every socket that it has open."""
    assert preloaded.ADDRESS not in launched.environment


def test_nobody_else_can_speak_to_them(launched):
    """PyTorch unpickles what it finds where its launchers meet: a server for that would run anybody's code."""
    assert launched.folder_mode == 0o700 and launched.config.rdzv_endpoint == launched.environment[STORE]
    assert launched.config.rdzv_configs["store_type"] == "file"
