"""MLflow servers that refuse, hang, die and come back, and damaged stores: training goes on, and nothing is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.chaos import forking
from tests.chaos.damage import damage
from tests.chaos.laboratory import Laboratory, Place, commands
from tests.chaos.ledger import Ledger

LONGEST_WAIT_S = 15.0
"""A training's waits for a store that does not answer: 10 s in all, and slack."""

_EPOCHS = [0, 1]
_SHOW = "stored: "


def all_faults(lab: Laboratory, ledger: Ledger, times: int, rng: random.Random) -> None:
    """Every fault of a tracking store, `times` times each."""
    _import_mlflow()
    template = lab.folder / "store" / "mlflow.db"
    template.parent.mkdir()
    where = ["--tracking_uri", _address(template), "--artifacts", str(template.parent / "artifacts")]
    ended = forking.run(commands(["store", *where, "--suites", "chaos"]))
    if ended.code:
        raise RuntimeError(f"no store could be made: {ended.output}")
    for _ in range(times):
        ledger.add("MLflow server refuses", _refused(lab, template))
        ledger.add("MLflow server hangs", _hanging(lab, template))
        ledger.add("MLflow server dies while training", _dying(lab, template, rng))
        ledger.add("damaged SQLite store", _damaged(lab, template, rng))
        ledger.add("SIGKILL while logging", _killed(lab, template, rng))


def _refused(lab: Laboratory, template: Path) -> str | None:
    place, store = _place(lab, template)
    problem = _train(lab, place, f"http://127.0.0.1:{_free_port()}") or _nothing_lost(place, store)
    lab.drop(place)
    return problem


def _hanging(lab: Laboratory, template: Path) -> str | None:
    place, store = _place(lab, template)
    with socket.create_server(("127.0.0.1", 0)) as server:
        problem = _train(lab, place, f"http://127.0.0.1:{server.getsockname()[1]}")
    problem = problem or _nothing_lost(place, store)
    lab.drop(place)
    return problem


def _dying(lab: Laboratory, template: Path, rng: random.Random) -> str | None:
    """The server is killed at a random moment; it comes back while the training goes on, or when it has ended."""
    place, store = _place(lab, template)
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    server = _start_server(store, port)
    training = forking.Child(_train_action(lab, place, address))
    training.ends_within(rng.uniform(0.1, 1.2) * lab.stages["train"].seconds)
    server.kill_session()
    server.wait()
    if rng.random() < 0.5:
        training.ends_within(rng.uniform(0, 1) * lab.stages["train"].seconds)
        server = _start_server(store, port)
        ended = training.wait()
    else:
        ended = training.wait()
        server = _start_server(store, port)
    problem = ended.problem(0) or lab.difference("train", place)
    problem = problem or _nothing_lost(place, store, address)
    server.kill_session()
    server.wait()
    lab.drop(place)
    return problem


def _damaged(lab: Laboratory, template: Path, rng: random.Random) -> str | None:
    place, store = _place(lab, template)
    broken = Path(shutil.copy(store, store.with_name("broken.db")))
    what = damage(broken, rng)
    problem = _train(lab, place, _address(broken))
    problem = problem or _nothing_lost(place, store)
    lab.drop(place)
    return problem and f"{what}: {problem}"


def _killed(lab: Laboratory, template: Path, rng: random.Random) -> str | None:
    place, store = _place(lab, template)
    train = _train_action(lab, place, _address(store))
    forking.run(train, kill_after=rng.uniform(0.1, 1.0) * lab.stages["train"].seconds)
    problem = _train(lab, place, _address(store)) or _nothing_lost(place, store)
    lab.drop(place)
    return problem


def _train(lab: Laboratory, place: Place, address: str) -> str | None:
    """Train with a store that does not work: the result must be the undisturbed one, and the waits short."""
    ended = forking.run(_train_action(lab, place, address))
    problem = ended.problem(0) or lab.difference("train", place)
    waited = ended.seconds - 2 * lab.stages["train"].seconds
    return problem or (f"held up for {waited:.0f} s" if waited > LONGEST_WAIT_S else None)


def _train_action(lab: Laboratory, place: Place, address: str) -> Callable[[], int]:
    return commands(lab.train_command(place, tracking_uri=address))


def _nothing_lost(place: Place, store: Path, address: str | None = None) -> str | None:
    """Send what is left, then look: one finished run with each epoch once."""
    sync = ["sync", "--runs_dir", str(place.runs), "--tracking_uri", address or _address(store)]
    sent = forking.run(commands(sync))
    if sent.code:
        return f"sync failed: {sent.output[-1000:]}"
    seen = forking.run(_show_action(_address(store)))
    if seen.code:
        return f"the store cannot be read: {seen.output[-1000:]}"
    found = json.loads(seen.output.rpartition(_SHOW)[2])
    wanted = [{"status": "FINISHED", "epochs": _EPOCHS}]
    return None if found == wanted else f"the store holds {found}, expected {wanted}"


def _show_action(address: str) -> Callable[[], int]:
    def action() -> int:
        from recu.tracking.client import connect

        client = connect(address)
        runs = client.search_runs([client.get_experiment_by_name("chaos").experiment_id])
        found = [
            {
                "status": run.info.status,
                "epochs": [entry.step for entry in client.get_metric_history(run.info.run_id, "test/top1")],
            }
            for run in runs
        ]
        print(f"{_SHOW}{json.dumps(found)}")
        return 0

    return action


def _start_server(store: Path, port: int) -> forking.Child:
    """MLflow's own server on this store, answering."""

    def action() -> int:
        os.environ["_MLFLOW_SERVER_FILE_STORE"] = _address(store)
        os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = str(store.parent / "artifacts")
        from mlflow.server import app
        from werkzeug.serving import make_server

        make_server("127.0.0.1", port, app, threaded=True).serve_forever()
        return 0

    server = forking.Child(action)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not server.ends_within(0.05):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
    raise RuntimeError(f"the MLflow server did not start: {server.output()}")


def _place(lab: Laboratory, template: Path) -> tuple[Place, Path]:
    place = lab.fresh()
    return place, Path(shutil.copy(template, place.folder / "mlflow.db"))


def _address(file: Path) -> str:
    return f"sqlite:///{file}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _import_mlflow() -> None:
    """Once, here, for the children."""
    from recu.tracking.client import import_mlflow

    import_mlflow("sqlite:///")
    import mlflow.server.handlers
    import mlflow.tracking  # noqa: F401
