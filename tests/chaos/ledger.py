"""What was tried and what became of it."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

from tabulate import tabulate


@dataclass
class Line:
    """One fault of the table."""

    tried: int = 0
    recovered: int = 0
    seconds: float = 0.0


@dataclass
class Ledger:
    """Counts every try once: recovered, or lost for a reason."""

    lines: dict[str, Line] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    _at: float = field(default_factory=time.monotonic)

    def add(self, fault: str, problem: str | None, times: int = 1) -> None:
        """Note `times` tries of a fault that ended with `problem`; None: everything came back as it should be."""
        line = self.lines.setdefault(fault, Line())
        line.tried += times
        line.recovered += times if problem is None else 0
        now = time.monotonic()
        line.seconds += now - self._at
        self._at = now
        if problem is not None:
            self.losses.append(f"{fault}: {problem}")
            print(f"LOST: {fault}: {problem}", file=sys.stderr, flush=True)

    @property
    def tried(self) -> int:
        """Of all faults."""
        return sum(line.tried for line in self.lines.values())

    @property
    def recovered(self) -> int:
        """Of all faults."""
        return sum(line.recovered for line in self.lines.values())

    @property
    def lost(self) -> int:
        """Of all faults."""
        return self.tried - self.recovered

    def table(self) -> str:
        """One line a fault, then the sum."""
        rows = [
            (name, line.tried, line.recovered, line.tried - line.recovered, f"{line.seconds:.0f}")
            for name, line in self.lines.items()
        ]
        table = tabulate(rows, headers=("fault", "tried", "recovered", "lost", "s"))
        return f"{table}\nchaos: {self.tried} tried, {self.recovered} recovered, {self.lost} lost"
