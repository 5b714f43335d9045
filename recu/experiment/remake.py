"""The commands that make published files again; every message that advises one takes it from here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

_PLACES = {"data_dir": "data", "results_dir": "results", "runs_dir": "runs", "reports_dir": "reports"}
"""As params/config.yaml has them unless somebody changed it."""


def remake(targets: Iterable[str | Path], *, suites: Iterable[str], **places: Path) -> str:
    """A command that makes files of the workflow again, and whatever rests on them.

    `--forcerun`, because Snakemake compares times and parameters and no content: it would find nothing to do where a
    file was edited, or removed while what was made from it is still there. Trainings that are finished are published
    again from their state and train nothing.

    Args:
        targets: the files, or names of rules.
        suites: the suites they belong to, which params/config.yaml need not choose.
        places: `results_dir` and the like where they may be others than usual.
    """
    chosen = tuple(dict.fromkeys(suites))
    config = [f"suites={chosen[0] if len(chosen) == 1 else '[' + ','.join(chosen) + ']'}"]
    config += [f"{name}={place}" for name, place in places.items() if str(place) != _PLACES[name]]
    words = ["snakemake", "--cores", "all", "--config", *config, "--forcerun", *(str(each) for each in targets)]
    return f"`{shlex.join(words)}`"


def afresh(states: Iterable[Path], targets: Iterable[str | Path], *, suites: Iterable[str], **places: Path) -> str:
    """A command that trains from the beginning: the states are moved aside, not removed, and then as `remake`.

    Args:
        states: folders below runs/.
        targets: as for `remake`.
        suites: likewise.
        places: likewise.
    """
    moves = [shlex.join(["mv", str(state), f"{state}.old"]) for state in states]
    return f"`{' && '.join([*moves, remake(targets, suites=suites, **places).strip('`')])}`"


def suite_of(identifier: str) -> str:
    """The suite of an experiment or a released file, from its id."""
    return identifier.partition("/")[0]
