"""Memory that is freed stays with the process."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from recu.base.allocator import keep_freed_memory

PROGRAM = """
import resource, sys
import numpy as np
from recu.base.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
size = 24 << 20
[np.ones(size, np.uint8) for _ in range(4)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
[np.ones(size, np.uint8) for _ in range(4)]
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / size)
"""


def faults(word: str) -> float:
    """Page faults of four arrays, smaller than any glibc's largest block, in the size of one."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, word],
        capture_output=True,
        text=True,
        check=True,
        # Large pages would hide what is counted.
        env={"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0", "NUMPY_MADVISE_HUGEPAGE": "0"},
    )
    return float(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_the_next_array_needs_no_page_faults() -> None:
    assert faults("keep") < 0.5 < 3 < faults("leave")


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1 << 30, [(-3, 1 << 30), (-1, (1 << 31) - 1)]),
        (1 << 25, [(-3, 1 << 30), (-3, 1 << 25), (-1, (1 << 31) - 1)]),
        (0, [(-3, 1 << 30), (-3, 1 << 25)]),
    ],
)
def test_a_block_that_is_refused_is_not_half_set(monkeypatch, most, expected) -> None:
    calls = []

    def mallopt(setting: int, value: int) -> int:
        calls.append((setting, value))
        return int(setting != -3 or value <= most)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    assert calls == expected
