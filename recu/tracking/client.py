"""The one place that imports MLflow: quiet, without telemetry, and with short waits."""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING

from recu.base.addresses import SERVER
from recu.base.imports import without_collection

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_ENFORCED = {
    # "DO_NOT_TRACK=1" would not be understood by MLflow, so a user's own value is replaced by one that is.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # MLflow would print the run's address, credentials included.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The jitter draws from Python's global generator, which an exactly resumable training may use.
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}
_DEFAULTS = {
    # With MLflow's own 7 retries and 120 s one call to a dead server takes four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "60",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
_NOISY_LOGGERS = ("alembic", "urllib3.connectionpool", "mlflow.store.db.utils")


def import_mlflow(tracking_uri: str) -> None:
    """Import MLflow with its environment set, and what it opens this store with. Takes one to four seconds the
    first time, and contacts nobody.
    """
    os.environ.update(_ENFORCED)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    with without_collection():
        import mlflow

        if not tracking_uri.startswith(SERVER):
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
            from mlflow.store.db import utils

            # It reads every migration that MLflow has had, and each client asks for it two times.
            if not hasattr(utils._get_latest_schema_revision, "cache_info"):
                utils._get_latest_schema_revision = functools.cache(utils._get_latest_schema_revision)

    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def prepare_for_databases() -> None:
    """Do once what a process does before it first uses a database; its forks then need not."""
    import_mlflow("sqlite:")
    import mlflow.store.tracking.sqlalchemy_workspace_store  # noqa: F401
    from mlflow.store.db.utils import _get_latest_schema_revision
    from sqlalchemy import create_engine
    from sqlalchemy.orm import configure_mappers

    create_engine("sqlite://").dispose()
    configure_mappers()
    _get_latest_schema_revision()


def connect(tracking_uri: str) -> MlflowClient:
    """A client for the store at `tracking_uri`; for a database this already opens it.

    Raises:
        mlflow.exceptions.MlflowException: the address is not understood, or the database cannot be opened.
    """
    import_mlflow(tracking_uri)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri)
