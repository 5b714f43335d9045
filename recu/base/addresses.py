"""What the address of an MLflow store says, read without MLflow."""

from __future__ import annotations

import os
import re
from pathlib import Path

from recu.base.errors import unknown_name

SERVER = ("http://", "https://")
"""How the address of a server begins."""
SQLITE = "sqlite:///"
"""How the address of a SQLite store begins; the file follows."""
DATABASE = ("postgresql", "mysql", "mssql")
"""How the address of another database begins; a driver may follow after "+"."""
USABLE = "sqlite:///FILE, http(s)://SERVER or a database address"

# What people have in MLFLOW_TRACKING_URI for other programs: nothing can be kept there, and nothing is misspelt.
_OF_OTHER_PROGRAMS = ("file", "databricks", "databricks-uc", "uc", "s3", "gs", "dbfs", "hdfs")
_BEGINNINGS = {"sqlite": (SQLITE,), "http": SERVER, "https": SERVER}


def is_usable(address: str) -> bool:
    """Whether it is of a kind that runs can be kept in; whether it works is another question."""
    return address.startswith((SQLITE, *SERVER)) or _scheme(address).split("+")[0] in DATABASE


def check_store_address(address: str) -> str:
    """`address`, unless it is misspelt: a kind that nothing knows, or without the slashes that its kind needs.

    Raises:
        ValueError: says what was expected; nothing of the address but its kind is repeated.
    """
    scheme = _scheme(address)
    if scheme and scheme.split("+")[0] not in (*DATABASE, *_OF_OTHER_PROGRAMS, *_BEGINNINGS):
        known = (*_BEGINNINGS, *DATABASE)
        raise ValueError(f"{unknown_name('kind of MLflow address', scheme, known)}; expected {USABLE}")
    if scheme in _BEGINNINGS and not address.startswith(_BEGINNINGS[scheme]):
        raise ValueError(f"the MLflow address begins with {scheme!r} and then lacks slashes: expected {USABLE}")
    return address


def sqlite_file(address: str) -> Path | None:
    """The absolute path of a SQLite store's file, links followed; None for any other kind of store."""
    if not address.startswith(SQLITE):
        return None
    return Path(os.path.realpath(address.removeprefix(SQLITE).split("?", 1)[0]))


def _scheme(address: str) -> str:
    """What stands before the first ":"; "" for a plain path."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", address)
    return found[1] if found else ""
