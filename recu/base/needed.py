"""Packages of an extra of pyproject.toml, which not every installation has."""

from __future__ import annotations

from importlib.util import find_spec

from recu.base.errors import ConfigError


def require(extra: str, *packages: str) -> None:
    """Raise ConfigError where a package of the extra is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} cannot be imported: install the extra `{extra}`, in a checkout by"
            f" .venv/bin/python -m pip install --constraint constraints.txt --editable '.[{extra}]'"
        )
