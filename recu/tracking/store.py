"""Makes the MLflow store before anything logs to it, and looks at one that is there before MLflow does.

Several processes that create a SQLite store at once destroy it (MLflow's migrations are not guarded), MLflow fixes an
experiment's artifact folder for ever, from the working directory of whoever creates it, and it changes the tables of a
database that it finds older than itself, or another program's. Hence one guarded place for all of it.
"""

from __future__ import annotations

import logging
import os
import shlex
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from recu.base.addresses import DATABASE, SERVER, SQLITE, USABLE, is_usable, sqlite_file
from recu.base.errors import ConfigError, OutputError
from recu.base.files import check_ordinary
from recu.base.redaction import redact
from recu.tracking.client import connect, import_mlflow
from recu.tracking.place import ARTIFACTS, record_place, settle
from recu.tracking.view import describe_experiment

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient

_log = logging.getLogger(__name__)

_LOCK_TIMEOUT_S = 120
_BUSY_WAIT_S = 1.0
_WRITE_WAIT_S = 10.0
_COUNTED_ROWS = 1000
"""Of each index: an estimate is enough, and takes a moment however large the store is."""


class _Unfit(Exception):
    """Why MLflow must not open a database; the text ends with what to do."""


def prepare_store(
    tracking_uri: str,
    experiments: Iterable[str],
    artifact_root: Path | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Create what is missing of the store and of the experiments; safe to call again, and by several
    processes at once. A SQLite store that was moved or copied gets its artifact locations set right.

    Args:
        tracking_uri: `sqlite:///FILE`, another database's address, or a server's.
        experiments: names of the MLflow experiments (suites).
        artifact_root: folder below which each experiment keeps its artifacts; by default `mlartifacts` beside the
            SQLite file, or in the working directory. A server decides for itself.
        notes: descriptions of experiments, in Markdown.

    Raises:
        ConfigError: the address is of no kind that can be used.
        OutputError: the store cannot be created, reached, written or understood.
    """
    names = list(dict.fromkeys(experiments))
    for name in names:
        if not names_a_folder(name):
            raise ConfigError(f"{name!r} cannot be the name of an MLflow experiment: it is no plain name of a folder")
    file = sqlite_file(tracking_uri)
    if file is not None:
        _prepare_sqlite(tracking_uri, file, names, artifact_root or file.parent / ARTIFACTS, notes or {})
        return
    if not is_usable(tracking_uri):
        raise ConfigError(
            f"tracking address {redact(tracking_uri)!r} is not usable: expected {USABLE} (MLflow no longer supports"
            " plain folders)"
        )
    try:
        if tracking_uri.startswith(DATABASE):
            _check_schema(tracking_uri)
        root = None if tracking_uri.startswith(SERVER) else artifact_root or Path(ARTIFACTS)
        _create_experiments(connect(tracking_uri), names, root, notes or {})
    except Exception as error:
        raise _unusable(tracking_uri, error) from error


def names_a_folder(experiment: str) -> bool:
    """Whether an experiment's artifacts can lie in a folder of its name, and not anywhere else."""
    return Path(experiment).name == experiment and "\0" not in experiment


def empty_log(file: Path) -> None:
    """Bring what a SQLite store has only logged into its file; a store that others use just now is left to them.

    Closing the last connection would do it, but MLflow's stays open until the process ends. Whoever copies or removes
    the file may not think of the log beside it.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(file, timeout=_BUSY_WAIT_S)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def note_sizes(file: Path) -> None:
    """Let SQLite count what a store holds, so that it reads many runs in a good order; one in use is left as it is.

    Without that, sorting ten thousand runs by a metric takes twenty times as long.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(file, timeout=_BUSY_WAIT_S)) as connection:
        connection.execute(f"PRAGMA analysis_limit={_COUNTED_ROWS}")
        connection.execute("ANALYZE")


def _prepare_sqlite(
    tracking_uri: str, file: Path, names: list[str], artifact_root: Path, notes: Mapping[str, str]
) -> None:
    from filelock import FileLock, Timeout

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if _is_absent(file):
            with FileLock(file.with_name(f".{file.name}.lock"), timeout=_LOCK_TIMEOUT_S):
                if _is_absent(file):
                    _create_sqlite(file, artifact_root)
        _check_opens(file)
        _check_schema(tracking_uri)
        settle(file)
        _create_experiments(connect(tracking_uri), names, artifact_root, notes)
    except Timeout as error:
        raise OutputError(
            f"cannot create the MLflow store {file}: another process has been at it for {_LOCK_TIMEOUT_S} s"
        ) from error
    except Exception as error:
        raise _unusable(tracking_uri, error) from error


def _is_absent(file: Path) -> bool:
    """An empty file is no database yet, and MLflow would fill it without a lock."""
    return not file.exists() or (file.is_file() and file.stat().st_size == 0)


def _create_sqlite(file: Path, artifact_root: Path) -> None:
    """Build the database under a temporary name, so that a store that exists is a whole one."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    # Relative, since the address of a file below a folder with "?" in its name cannot be written.
    address = f"{SQLITE}{os.path.relpath(temporary)}"
    import_mlflow(address)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    try:
        store = SqlAlchemyStore(address, artifact_root.resolve().as_uri())
        store.engine.dispose()
        with closing(sqlite3.connect(temporary)) as connection:
            # Write-ahead logging stays switched on in the file; it lets readers and one writer work side
            # by side.
            connection.execute("PRAGMA journal_mode=wal")
            record_place(connection, file.parent)
        # A log of an earlier database of this name, left by a process that was killed, would be played into this one.
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        temporary.replace(file)
    finally:
        for leftover in file.parent.glob(f"{temporary.name}*"):
            leftover.unlink()


def _check_opens(file: Path) -> None:
    """Raise OSError or sqlite3.Error at once where the file cannot be written: MLflow tries for minutes."""
    check_ordinary(file)
    with closing(sqlite3.connect(file, timeout=_WRITE_WAIT_S, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def _check_schema(tracking_uri: str) -> None:
    """Refuse a database with other tables than those of the MLflow that is installed here; it would change them.

    Raises:
        _Unfit: says what is there and what to do.
    """
    import_mlflow(tracking_uri)
    import sqlalchemy
    from mlflow.store.db.utils import _get_latest_schema_revision, _get_schema_version, create_sqlalchemy_engine
    from mlflow.version import VERSION

    engine = create_sqlalchemy_engine(tracking_uri)
    try:
        if not sqlalchemy.inspect(engine).get_table_names():
            return
        found = _get_schema_version(engine)
    finally:
        engine.dispose()
    if found == _get_latest_schema_revision():
        return
    if found is None:
        raise _Unfit("it is the database of another program; name another file or database")
    if not _is_known(found):
        raise _Unfit(
            f"it was made by a newer MLflow than {VERSION}, which is installed here (its schema {found} is not known);"
            " install that version, or name another store"
        )
    command = f"{shlex.quote(sys.executable)} -m mlflow db upgrade {shlex.quote(redact(tracking_uri))}"
    raise _Unfit(
        f"its tables are those of an older MLflow than {VERSION} (schema {found}); keep a copy of it and run: {command}"
    )


def _is_known(revision: str) -> bool:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db.utils import _get_alembic_config

    try:
        return ScriptDirectory.from_config(_get_alembic_config("")).get_revision(revision) is not None
    except CommandError:
        return False


def _create_experiments(
    client: MlflowClient, names: Iterable[str], artifact_root: Path | None, notes: Mapping[str, str]
) -> None:
    for name in names:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            _create_experiment(client, name, artifact_root)
            experiment = client.get_experiment_by_name(name)
        elif experiment.lifecycle_stage == "deleted":
            # Its name is taken for ever in MLflow, and nothing could be logged.
            client.restore_experiment(experiment.experiment_id)
        if experiment is not None:
            _describe(client, experiment, notes.get(name))


def _describe(client: MlflowClient, experiment: Experiment, note: str | None) -> None:
    """A store that takes runs and does not let its experiments be described is a store that works."""
    from mlflow.exceptions import MlflowException

    try:
        describe_experiment(client, experiment, note)
    except MlflowException as error:
        _log.debug("experiment %s is not described: %s", experiment.name, redact(str(error)))


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
    where = f"cannot use the MLflow store {redact(tracking_uri)}"
    if isinstance(error, _Unfit):
        return OutputError(f"{where}: {error}")
    reason = " ".join(redact(str(error)).split())[:300]
    advice = "check that it runs, and its address" if sqlite_file(tracking_uri) is None else _SQLITE_ADVICE
    return OutputError(f"{where}: {reason}; {advice}")


_SQLITE_ADVICE = "check the address and the permissions, or move a damaged file away"
