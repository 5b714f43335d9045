"""A run that is mirrored into a store which nobody sees, so that forks of this process find loaded what that takes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from recu.tracking.client import connect, prepare_for_databases
from recu.tracking.description import RunDescription
from recu.tracking.mirror import mirror
from recu.tracking.store import prepare_store
from recu.tracking.wanted import Row, Wanted

_NAME = "rehearsal"


def rehearse() -> None:
    """Mirror an epoch of nothing, into a SQLite store that is removed at once."""
    prepare_for_databases()
    with tempfile.TemporaryDirectory(prefix="recu-rehearsal-") as folder:
        address = f"sqlite:///{Path(folder).resolve() / 'mlflow.db'}"
        prepare_store(address, [_NAME])
        client = connect(address)
        for _ in range(2):  # a run that is not there yet, and one that is
            mirror(_wanted(Path(folder)), client)
        _close(address)


def _wanted(folder: Path) -> Wanted:
    file = folder / "file.txt"
    file.write_text(_NAME)
    return Wanted(
        description=RunDescription(
            experiment=_NAME,
            stage="train",
            experiment_id=_NAME,
            spec_hash=_NAME,
            run_name=_NAME,
            params={"seed": "1"},
            dataset=_NAME,
            data_fingerprint=_NAME,
        ),
        status="FINISHED",
        started_ns=0,
        time=0,
        rows=(Row(0, 0, {"test/top1": 0.0}),),
        numbers={"best/top1": 0.0},
        tags={"mlflow.note.content": _NAME},
        files=(file,),
        checkpoint=None,
        problems=(),
    )


def _close(address: str) -> None:
    """A fork must not share a connection of its parent's."""
    from mlflow.tracking._tracking_service.utils import _get_store

    _get_store(address).engine.dispose()
