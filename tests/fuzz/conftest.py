"""Derandomised examples, and a witness for code that runs where only data should be read."""

import sys

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "fuzz",
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("fuzz")

_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "os.fork",
    "ctypes.dlopen",
)


class Witness:
    """Notes what reading data must never do."""

    def __init__(self) -> None:
        self.watching = False
        self.seen: list[str] = []
        # An audit hook stays for the life of the process, so it is made to sleep outside the tests.
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple) -> None:
        if self.watching and event in _FORBIDDEN:
            self.seen.append(f"{event}{arguments}")


_witness = Witness()


@pytest.fixture
def no_code_runs():
    """Fails the test if anything was executed or contacted while it ran."""
    _witness.seen.clear()
    _witness.watching = True
    yield
    _witness.watching = False
    assert _witness.seen == []
