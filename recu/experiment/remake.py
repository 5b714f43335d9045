"""The commands that make published files again; every message that advises one takes it from here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recu.base.files import read_object
from recu.experiment import paths

_PLACES = {"data_dir": "data", "results_dir": "results", "runs_dir": "runs", "reports_dir": "reports"}
"""As params/config.yaml has them unless somebody changed it."""
_COLUMNS = {"packed": ("packed", "packed_bytes"), "benchmark": ("speed", "packed_ms")}
"""By switch of params/config.yaml, what collected rows and the lines of a table name where it was on."""


def remake(
    targets: Iterable[str | Path], *, suites: Iterable[str], columns: Iterable[str] | None = None, **places: Path
) -> str:
    """A command that makes files of the workflow again, and whatever rests on them.

    `--forcerun`, because Snakemake compares times and parameters and no content: it would find nothing to do where a
    file was edited, or removed while what was made from it is still there. Trainings that are finished are published
    again from their state and train nothing.

    Args:
        targets: the files, or names of rules.
        suites: the suites they belong to, which params/config.yaml need not choose.
        columns: switches of params/config.yaml that their tables need; None for those of `switched_on`, without which
            a table would lose columns.
        places: `results_dir` and the like where they may be others than usual.
    """
    chosen = tuple(dict.fromkeys(suites))
    config = [f"suites={chosen[0] if len(chosen) == 1 else '[' + ','.join(chosen) + ']'}"]
    looked = {name: places[name] for name in ("results_dir", "reports_dir") if name in places}
    config += [f"{switch}=true" for switch in (switched_on(chosen, **looked) if columns is None else columns)]
    config += [f"{name}={place}" for name, place in places.items() if str(place) != _PLACES[name]]
    words = ["snakemake", "--cores", "all", "--config", *config, "--forcerun", *(str(each) for each in targets)]
    return f"`{shlex.join(words)}`"


def afresh(
    states: Iterable[Path],
    targets: Iterable[str | Path],
    *,
    suites: Iterable[str],
    columns: Iterable[str] | None = None,
    **places: Path,
) -> str:
    """A command that trains from the beginning: the states are moved aside, not removed, and then as `remake`.

    Args:
        states: folders below runs/.
        targets: as for `remake`.
        suites: likewise.
        columns: likewise.
        places: likewise.
    """
    moves = [shlex.join(["mv", str(state), f"{state}.old"]) for state in states]
    return f"`{' && '.join([*moves, remake(targets, suites=suites, columns=columns, **places).strip('`')])}`"


def switched_on(
    suites: Iterable[str], results_dir: Path = Path("results"), reports_dir: Path = Path("reports")
) -> tuple[str, ...]:
    """Switches of params/config.yaml with which suites were collected, as their rows, or else their tables, show."""
    named: set[str] = set()
    for suite in suites:
        files = (paths.rows_file(results_dir, suite), reports_dir / f"{suite}.json")
        named |= next(filter(None, (_named_in(read_object(file)) for file in files)), set())
    return tuple(switch for switch, names in _COLUMNS.items() if not named.isdisjoint(names))


def _named_in(content: dict[str, Any]) -> set[str]:
    """Keys of its rows, whether somebody edited it or not."""
    rows = content.get("rows")
    return {name for row in rows if isinstance(row, dict) for name in row} if isinstance(rows, list) else set()


def suite_of(identifier: str) -> str:
    """The suite of an experiment or a released file, from its id."""
    return identifier.partition("/")[0]
