"""Errors a user can act on: one readable line each, mapped to stable exit codes by the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RecuError(Exception):
    """A problem the user can mend; its text says what is wrong, where, what was expected and what to do."""

    exit_code = 2


class ConfigError(RecuError):
    """A file under params/ or a command-line option has a wrong key, type or value."""


class DataError(RecuError):
    """A dataset is missing, truncated, altered or not of the expected form."""


class StalledError(DataError):
    """Images stopped coming, e.g. from a disk that does not answer; what was reached before is kept."""

    exit_code = 75  # as Interrupted


class AlteredData(DataError):
    """Prepared data is no longer what was prepared: nothing that is read of it may count, nor be left out."""


class CheckpointError(RecuError):
    """A checkpoint cannot be read or does not fit the network."""


class OutputError(RecuError):
    """A result cannot be written, or would overwrite one that must be kept."""


class BusyError(OutputError):
    """Another process is at the same work; the same command does it when that one has ended."""

    exit_code = 75  # as Interrupted


class ResultError(RecuError):
    """A result file is missing, or belongs to other parameters than those asked for."""


class DivergenceError(RecuError):
    """Training produced a loss that is not finite."""

    exit_code = 3


class VerificationError(RecuError):
    """`recu verify` found results that are stale, altered or incomplete."""

    exit_code = 4


class Interrupted(RecuError):
    """A signal asked the program to stop; state was saved and the same command continues."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: "run me again"


class LostProcess(RecuError):
    """One of several processes that work together has ended or does not answer; what was saved before is kept."""

    exit_code = 75  # as Interrupted


_MOST_NAMES = 30
"""That an error lists."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> ConfigError:
    """The error for a name that is not in a table; it proposes the nearest right one and lists all, if they are few.

    Args:
        kind: what the name stands for, e.g. "model".
        name: what the user wrote.
        valid: the names that would have been right.
    """
    names = sorted(valid)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    listed = f"known: {', '.join(names)}" if len(names) <= _MOST_NAMES else f"{len(names)} are known"
    return ConfigError(f"unknown {kind} {name!r}{hint} ({listed})")
