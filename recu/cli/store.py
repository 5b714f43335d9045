"""`recu store`: create the MLflow store and its experiments once, before jobs log to it."""

from __future__ import annotations

import argparse
import threading
from contextlib import suppress

from recu.base.errors import ConfigError, RecuError
from recu.cli import options
from recu.experiment.params import load_suite
from recu.experiment.paths import user_path

_LONGEST_ANSWER_S = 90.0
"""How long a store in another program may take; a SQLite store has its own limits."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "--tracking_uri", required=True, help="MLflow store; MLFLOW_TRACKING_URI in the environment wins"
    )
    parser.add_argument("--suites", nargs="+", required=True, help="one MLflow experiment is created for each")
    options.add_params_option(parser)
    parser.add_argument(
        "--artifacts",
        type=user_path,
        help="folder of a local store's artifacts (default: mlartifacts beside a SQLite store, else here)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Create what is missing, and let MLflow describe the suites as params/ does; runs stay as they are.

    A store that does not work is no error, since everything else works without: it is said, and what jobs would have
    shown stands in their files for `recu sync`.

    Raises:
        ConfigError: the address given is misspelt.
    """
    from recu.base.addresses import sqlite_file
    from recu.base.redaction import redact
    from recu.tracking import resolve_tracking_uri

    address = resolve_tracking_uri(arguments.tracking_uri)
    if address is None:
        return
    problems: list[str] = []
    # A daemon: a database that never answers must not hold the end of this program up.
    maker = threading.Thread(target=_prepare, args=(address, arguments, problems), daemon=True)
    maker.start()
    maker.join(None if sqlite_file(address) else _LONGEST_ANSWER_S)
    if maker.is_alive():
        problems.append(f"{redact(address)} has not answered within {_LONGEST_ANSWER_S:.0f} s")
    for problem in problems:
        print(
            f"tracking: nothing is recorded in MLflow for now: {problem}. Everything else runs, and what MLflow"
            " should show stands in the runs' files: `recu sync` sends it once the store works",
            flush=True,
        )


def _prepare(address: str, arguments: argparse.Namespace, problems: list[str]) -> None:
    from recu.tracking.store import prepare_store

    try:
        prepare_store(address, arguments.suites, arguments.artifacts, _notes(arguments))
    except RecuError as error:
        problems.append(str(error))


def _notes(arguments: argparse.Namespace) -> dict[str, str]:
    """What each suite is, in Markdown; nothing of one that params/ does not have."""
    notes = {}
    for name in arguments.suites:
        with suppress(ConfigError):
            suite = load_suite(arguments.params_dir, name)
            notes[name] = f"**{suite.title}**\n\n{suite.description}"
    return notes
