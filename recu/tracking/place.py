"""Where a SQLite store and its artifacts lie: MLflow keeps absolute locations, which a folder that is moved or copied
leaves wrong, so that artifacts would be read from the old place, and written there.

The store therefore remembers its folder, in a table of its own. Wherever it is opened in another one, the locations of
artifacts that lay beside it are set right.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

ARTIFACTS = "mlartifacts"
"""The folder beside the store in which artifacts lie, if no other is given."""

_log = logging.getLogger(__name__)
_WAIT_S = 20.0
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def record_place(connection: sqlite3.Connection, folder: Path) -> None:
    """Note in the store that it lies in `folder`."""
    connection.execute("CREATE TABLE IF NOT EXISTS recu_place (folder TEXT NOT NULL)")
    connection.execute("DELETE FROM recu_place")
    connection.execute("INSERT INTO recu_place VALUES (?)", (str(folder),))
    connection.commit()


def settle(file: Path) -> None:
    """Set the artifact locations of the store `file` right where it lay in another folder before.

    Nothing is written outside `file`, and nothing where the earlier path still leads to this very file: one folder
    may have several paths.

    Raises:
        sqlite3.Error: the store cannot be read or written.
    """
    here = file.parent
    with closing(sqlite3.connect(file, timeout=_WAIT_S, isolation_level=None)) as connection:
        if not _has_moved(connection, file):
            return
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have been faster.
        before = _recorded(connection, file)
        if before is not None and _has_moved(connection, file):
            _replace(connection, before, here)
            _log.warning(
                "tracking: the store %s came from %s: its artifacts are now those in %s", file, before, here / ARTIFACTS
            )
        record_place(connection, here)


def _has_moved(connection: sqlite3.Connection, file: Path) -> bool:
    """Also where it is not known."""
    before = _recorded(connection, file)
    if before == file.parent:
        return False
    return before is None or not _is_same(before / file.name, file)


def _recorded(connection: sqlite3.Connection, file: Path) -> Path | None:
    with suppress(sqlite3.OperationalError):
        row = connection.execute("SELECT folder FROM recu_place").fetchone()
        if row is not None:
            return Path(row[0])
    return _guessed(connection, file)


def _guessed(connection: sqlite3.Connection, file: Path) -> Path | None:
    """Of a store without a note: the folder of MLflow's own first experiment, where the store must have lain there.

    It has if the artifacts there are gone, or belong to another store there; else somebody chose another disk for them.
    """
    row = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
    root = None if row is None or row[0] is None else Path(unquote(urlsplit(row[0]).path)).parent
    if root is None or root.name != ARTIFACTS:
        return None
    return root.parent if not root.exists() or (root.parent / file.name).exists() else None


def _is_same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False


def _replace(connection: sqlite3.Connection, before: Path, here: Path) -> None:
    old, new = (f"{(folder / ARTIFACTS).as_uri()}/" for folder in (before, here))
    for table, column in _LOCATIONS:
        if column in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )
