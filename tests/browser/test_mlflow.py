"""The MLflow UI, as `recu ui` opens it. How it looks is MLflow's; what it shows at once is ours."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from tests.browser.visitor import SCREENS, wider_than_the_window
from tests.workflow.conftest import environment

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("finished")]


def _wait_for(port, server):
    until = time.monotonic() + 120
    while time.monotonic() < until and server.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    pytest.fail("the MLflow server does not answer")


@pytest.fixture(scope="module")
def address(finished):
    """Of the suite's trainings, on a server of `recu ui`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "recu", "ui", "--port", str(port), "--no-browser"]
    server = subprocess.Popen(
        command, cwd=finished.folder, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        said = next(line for line in server.stdout if "http://" in line)
        _wait_for(port, server)
        yield re.search(r"http://127\.0\.0\.1:\S+", said)[0]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def test_the_suites_trainings_are_shown_at_once_with_their_accuracy(visitor, address):
    page = visitor.open(address, SCREENS[0])
    for column in ("method", "model", "seed", "best/top1", "last/top1"):
        page.get_by_role("columnheader", name=column, exact=True).first.wait_for(timeout=60_000)
    page.get_by_text("4 matching runs").wait_for()
    for method in ("vanilla", "finetune"):
        assert page.get_by_role("gridcell", name=method, exact=True).count() == 2


@pytest.mark.parametrize("look", SCREENS, ids=lambda look: look.name)
def test_the_page_does_not_scroll_sideways_and_asks_no_other_machine(visitor, address, look):
    page = visitor.open(address, look)
    page.get_by_text("Run Name").first.wait_for(timeout=60_000)
    assert wider_than_the_window(page) == []
    assert visitor.asked_elsewhere == []
