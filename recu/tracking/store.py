"""Makes the MLflow store before anything logs to it.

Several processes that create a SQLite store at once destroy it (MLflow's migrations are not guarded), and
MLflow fixes an experiment's artifact folder for ever, from the working directory of whoever creates it.
Hence one guarded place for both.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from recu.errors import ConfigError, OutputError
from recu.files import check_ordinary
from recu.redaction import redact
from recu.tracking.client import SERVER, connect, import_mlflow

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_SQLITE = "sqlite:///"
_DATABASE = ("postgresql", "mysql", "mssql")
_LOCK_TIMEOUT_S = 120
_BUSY_WAIT_S = 1.0


def prepare_store(tracking_uri: str, experiments: Iterable[str], artifact_root: Path | None = None) -> None:
    """Create what is missing of the store and of the experiments; safe to call again, and by several
    processes at once.

    Args:
        tracking_uri: `sqlite:///FILE`, another database's address, or a server's.
        experiments: names of the MLflow experiments (suites).
        artifact_root: folder below which each experiment keeps its artifacts; by default `artifacts`
            beside the SQLite file. A server decides for itself.

    Raises:
        ConfigError: the address is of no kind that can be used, or needs `artifact_root`.
        OutputError: the store cannot be created or reached.
    """
    names = list(dict.fromkeys(experiments))
    file = sqlite_file(tracking_uri)
    if file is not None:
        _prepare_sqlite(tracking_uri, file, names, artifact_root or file.parent / "mlartifacts")
        return
    if not tracking_uri.startswith((*SERVER, *_DATABASE)):
        raise ConfigError(
            f"tracking address {redact(tracking_uri)!r} is not usable: expected sqlite:///FILE, http(s)://SERVER or a "
            "database address (MLflow no longer supports plain folders)"
        )
    if tracking_uri.startswith(_DATABASE) and artifact_root is None:
        raise ConfigError(f"tracking address {redact(tracking_uri)!r} needs an artifact folder")
    try:
        _create_experiments(connect(tracking_uri), names, None if _is_server(tracking_uri) else artifact_root)
    except Exception as error:
        raise _unusable(tracking_uri, error) from error


def sqlite_file(tracking_uri: str) -> Path | None:
    """The absolute path of a SQLite store's file; None for any other kind of store."""
    if not tracking_uri.startswith(_SQLITE):
        return None
    return Path(tracking_uri.removeprefix(_SQLITE).split("?", 1)[0]).absolute()


def empty_log(file: Path) -> None:
    """Bring what a SQLite store has only logged into its file; a store that others use just now is left to them.

    Closing the last connection would do it, but MLflow's stays open until the process ends. Whoever copies or removes
    the file may not think of the log beside it.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(file, timeout=_BUSY_WAIT_S)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _is_server(tracking_uri: str) -> bool:
    return tracking_uri.startswith(SERVER)


def _prepare_sqlite(tracking_uri: str, file: Path, names: list[str], artifact_root: Path) -> None:
    from filelock import FileLock, Timeout

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with FileLock(file.with_name(f".{file.name}.lock"), timeout=_LOCK_TIMEOUT_S):
                if not file.exists():
                    _create_sqlite(file, artifact_root)
        _check_opens(file)
        _create_experiments(connect(tracking_uri), names, artifact_root)
    except Timeout as error:
        raise OutputError(
            f"cannot create the MLflow store {file}: another process has been at it for {_LOCK_TIMEOUT_S} s"
        ) from error
    except Exception as error:
        raise _unusable(tracking_uri, error) from error


def _create_sqlite(file: Path, artifact_root: Path) -> None:
    """Build the database under a temporary name, so that a store that exists is a whole one."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    address = f"{_SQLITE}{temporary}"
    import_mlflow(address)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    try:
        store = SqlAlchemyStore(address, artifact_root.resolve().as_uri())
        store.engine.dispose()
        with closing(sqlite3.connect(temporary)) as connection:
            # Write-ahead logging stays switched on in the file; it lets readers and one writer work side
            # by side.
            connection.execute("PRAGMA journal_mode=wal")
        # A log of an earlier database of this name, left by a process that was killed, would be played into this one.
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        temporary.replace(file)
    finally:
        for leftover in file.parent.glob(f"{temporary.name}*"):
            leftover.unlink()


def _check_opens(file: Path) -> None:
    """MLflow tries a file that cannot be opened for minutes; this raises OSError or sqlite3.Error at once."""
    check_ordinary(file)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA schema_version")


def _create_experiments(client: MlflowClient, names: Iterable[str], artifact_root: Path | None) -> None:
    for name in names:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            _create_experiment(client, name, artifact_root)
        elif experiment.lifecycle_stage == "deleted":
            # Its name is taken for ever in MLflow, and nothing could be logged.
            client.restore_experiment(experiment.experiment_id)


def _create_experiment(client: MlflowClient, name: str, artifact_root: Path | None) -> None:
    from mlflow.exceptions import MlflowException

    location = None if artifact_root is None else (artifact_root / name).resolve().as_uri()
    try:
        client.create_experiment(name, artifact_location=location)
    except MlflowException as error:
        # Another process may have been faster.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _unusable(tracking_uri: str, error: Exception) -> OutputError:
    reason = " ".join(redact(str(error)).split())[:300]
    return OutputError(
        f"cannot use the MLflow store {redact(tracking_uri)}: {reason}; check the address, or move a damaged file away"
    )
