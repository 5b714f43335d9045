"""Memory that is freed stays with the process."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from recu.base.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
size = 64 << 20
np.ones(size, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(size, np.uint8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / size)
"""


def faults(word: str) -> float:
    """Page faults of four arrays, in the size of one."""
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
