"""Shows trainings and evaluations in MLflow: a mirror of their files. Importing this imports no MLflow."""

from __future__ import annotations

import os

from recu.base.addresses import check_store_address
from recu.base.errors import ConfigError


def resolve_tracking_uri(configured: str | None) -> str | None:
    """The store to use: MLFLOW_TRACKING_URI in the environment wins over `configured`; empty means no tracking.

    Raises:
        ConfigError: `configured` is misspelt. What stands in the environment is often meant for other programs, and
            stops nothing.
    """
    try:
        check_store_address(configured or "")
    except ValueError as error:
        raise ConfigError(f"--tracking_uri: {error}") from error
    return os.environ.get("MLFLOW_TRACKING_URI") or configured or None
