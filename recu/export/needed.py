"""Packages of the extra `export`, which not every installation has."""

from __future__ import annotations

from importlib.util import find_spec

from recu.base.errors import ConfigError


def require(*packages: str) -> None:
    """Raise ConfigError where one is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} cannot be imported: install the extra `export`, in a checkout by"
            " .venv/bin/python -m pip install --constraint constraints.txt --editable '.[export]'"
        )
