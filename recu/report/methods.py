"""Methods side by side: one line a network, one column a method, for suites that compare binarisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recu.base.text import counted
from recu.experiment.binarisers import title_of
from recu.report.summary import TableRow, compared_binarisers

RULE = (
    "Methods: top-1 (%) of the best epoch, mean over the seeds with its 95 % interval by Student's t, then the "
    "published number and the verdict of the suite's table; a number in brackets is another source's. The "
    "highest mean of a line is bold where its interval lies above those of all others; intervals that meet, single "
    "runs, and equal accuracies in every seed (± 0.00), which do not show that others would be equal, decide nothing."
)


@dataclass(frozen=True)
class Cell:
    """One method on one network."""

    measured: str
    rest: str
    best: bool

    @property
    def plain(self) -> str:
        """Without emphasis."""
        return f"{self.measured} {self.rest}"


@dataclass(frozen=True)
class Grid:
    """The table of methods."""

    header: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    """By network, one cell a method; None where it was not run."""
    notes: tuple[str, ...]


def side_by_side(table: Sequence[TableRow]) -> Grid | None:
    """The lines of a suite's table as a grid; None where they are all of one binariser."""
    binary = compared_binarisers(table)
    if not binary:
        return None
    methods = list(dict.fromkeys((line.result.binariser, line.result.method) for line in binary))
    # By the dataset's name: two may have one title.
    networks = {(line.result.dataset, line.result.network): line.dataset_title for line in binary}
    cells = {
        (line.result.dataset, line.result.network, line.result.binariser, line.result.method): line for line in binary
    }
    rows = []
    for network, dataset_title in networks.items():
        found = [cells.get((*network, *method)) for method in methods]
        title = f"{network[1]} on {dataset_title}"
        rows.append((title, tuple(None if line is None else _cell(line) for line in found)))
    return Grid(
        header=("network", *(f"{title_of(binariser)} ({method})" for binariser, method in methods)),
        lines=tuple(rows),
        notes=(RULE, *_elsewhere(binary)),
    )


def markdown_grid(grid: Grid, escape: Callable[[str], str]) -> str:
    """The grid and its notes in Markdown.

    Args:
        grid: of `side_by_side`.
        escape: shows a text as text.
    """
    from tabulate import tabulate

    def shown(cell: Cell | None) -> str:
        if cell is None:
            return "-"
        measured = escape(cell.measured)
        return f"{f'**{measured}**' if cell.best else measured} {escape(cell.rest)}"

    lines = [[escape(title), *map(shown, cells)] for title, cells in grid.lines]
    table = tabulate(lines, headers=[escape(name) for name in grid.header], tablefmt="pipe", disable_numparse=True)
    return "\n".join((table, "", *(f"- {escape(note)}" for note in grid.notes)))


def _cell(line: TableRow) -> Cell:
    published = "nothing published"
    if line.published is not None and line.published.top1 is not None:
        others = ", ".join(f"{other.top1:.2f}" for other in line.published.elsewhere)
        published = f"published {line.published.top1:.2f}" + (f" [{others}]" if others else "")
    measured = line.top1_best.with_interval(len(line.seeds))
    return Cell(measured, f"({counted(len(line.seeds), 'seed')}); {published}; {line.verdict}", bool(line.leads))


def _elsewhere(lines: Sequence[TableRow]) -> list[str]:
    return [
        f"Other numbers: {line.result.network}, {line.result.method}: published {line.published.top1:.2f}"
        f" ({line.published.source}); {other.top1:.2f} ({other.source})."
        for line in lines
        if line.published is not None and line.published.top1 is not None
        for other in line.published.elsewhere
    ]
