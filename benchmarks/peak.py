"""The most memory that this process has held."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def resident_peak() -> int:
    """Bytes, Python and libraries included."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage, whose maximum a process takes over from the one that started it.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
