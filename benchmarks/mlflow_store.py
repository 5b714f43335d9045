"""MLflow with many runs: makes a store of them and measures what a person and a job wait for. `python -m
benchmarks.mlflow_store`.

One training's files are mirrored as `recu sync` does it. Its rows in the database are then copied in SQL, with ids,
names, seeds and numbers of their own, since mirroring ten thousand folders would take an hour; so each run has the form
that this project writes. What is measured: the UI's requests, to the server that `recu ui` starts, and the mirror with
one more run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recu.base.files import atomic_write_json
from recu.experiment import paths
from recu.tracking.description import RunDescription
from recu.tracking.mirror import bring
from recu.tracking.wanted import Folders, Noted

_PARAMS = 40
_EXPERIMENT = "many"
_PER_RUN = ("runs", "params", "tags", "metrics", "latest_metrics", "inputs")
_START_S = 120


def make_run(folder: Path, store: str, number: int, epochs: int) -> str:
    """Write one training's files, mirror them, and return the run's id."""
    description = RunDescription(
        experiment=_EXPERIMENT,
        stage="train",
        experiment_id=f"{_EXPERIMENT}/digits/cifar.resnet20_1w1a/vanilla/seed{number}",
        spec_hash=f"{number:016x}",
        run_name=f"cifar.resnet20_1w1a vanilla seed{number}",
        params={f"hyperparameters.p{each}": "1" for each in range(_PARAMS)},
        tags={"model": "resnet20_1w1a", "dataset": "digits", "method": "vanilla", "seed": str(number)},
        dataset="digits",
        data_fingerprint="f" * 64,
        data_source="generated",
    )
    state = folder / str(number)
    state.mkdir(parents=True)
    now_ms = time.time_ns() // 1_000_000
    noted = Noted(description=description, started_ns=time.time_ns(), status="FINISHED")
    atomic_write_json(state / paths.RUN, asdict(noted))
    names = ("lr", "tau", "train_loss", "train_top1", "test_loss", "test_top1", "test_top5", "images_per_second")
    rows = ({"epoch": epoch, "time": now_ms + epoch} | dict.fromkeys(names, 50.0 + epoch) for epoch in range(epochs))
    (state / paths.HISTORY).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return bring(Folders(state, state / "results"), store).run_id


def multiply(file: Path, run_id: str, count: int) -> None:
    """Copy the rows of a run until the store holds `count` runs."""
    rng = random.Random(0)
    new = [(f"{rng.getrandbits(128):032x}", number, rng.uniform(0, 1)) for number in range(2, count + 1)]
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TEMP TABLE new (id TEXT, number INTEGER, part REAL)")
        connection.executemany("INSERT INTO new VALUES (?, ?, ?)", new)
        changed = {
            ("runs", "run_uuid"): "new.id",
            ("runs", "name"): "replace(name, 'seed1', 'seed' || new.number)",
            ("runs", "artifact_uri"): f"replace(artifact_uri, '{run_id}', new.id)",
            ("params", "run_uuid"): "new.id",
            ("tags", "run_uuid"): "new.id",
            ("tags", "value"): """CASE key WHEN 'recu.spec_hash' THEN printf('%016x', new.number)
                WHEN 'recu.experiment_id' THEN replace(value, 'seed1', 'seed' || new.number)
                WHEN 'mlflow.runName' THEN replace(value, 'seed1', 'seed' || new.number)
                WHEN 'seed' THEN new.number ELSE value END""",
            ("metrics", "run_uuid"): "new.id",
            ("metrics", "value"): "value * new.part",
            ("latest_metrics", "run_uuid"): "new.id",
            ("latest_metrics", "value"): "value * new.part",
            ("inputs", "input_uuid"): "lower(hex(randomblob(16)))",
            ("inputs", "destination_id"): "new.id",
        }
        for table in _PER_RUN:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            values = [changed.get((table, column), column) for column in columns]
            of_the_run = "destination_id" if table == "inputs" else "run_uuid"
            connection.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {table}, new"
                f" WHERE {of_the_run} = ?",
                (run_id,),
            )


def seconds(work: Callable[[], object], times: int = 5) -> float:
    """The median of some calls."""
    taken = []
    for _ in range(times):
        begin = time.monotonic()
        work()
        taken.append(time.monotonic() - begin)
    return statistics.median(taken)


class Ui:
    """The server of `recu ui`, asked as its page asks it."""

    def __init__(self, folder: Path, store: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        # A group of its own, since the server has worker processes.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "recu", "ui", "--port", str(self._port)],
            cwd=folder,
            env=os.environ | {"MLFLOW_TRACKING_URI": store, "PYTHONPATH": str(paths.PROJECT_DIR)},
            start_new_session=True,
        )

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + _START_S
        while True:
            try:
                self.ask("experiments/search", max_results=10)
                return
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def ask(self, what: str, **content: object) -> Any:
        """The answer to one request."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/ajax-api/2.0/mlflow/{what}",
            json.dumps(content).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)

    def close(self) -> None:
        """End it with its workers."""
        os.killpg(self._process.pid, 15)
        self._process.wait()


def measure(folder: Path, count: int, epochs: int) -> dict[str, float]:
    """Seconds of each thing, by what it is."""
    file = folder / "mlflow.db"
    store = f"sqlite:///{file}"
    first = make_run(folder / "runs", store, 1, epochs)
    found = {
        "one more run into an empty store": seconds(lambda: make_run(folder / "runs", store, next(numbers), epochs))
    }
    multiply(file, first, count)
    found[f"one more run into {count} runs"] = seconds(lambda: make_run(folder / "runs", store, next(numbers), epochs))
    with closing(sqlite3.connect(file)) as connection:
        (identifier,) = connection.execute(
            "SELECT experiment_id FROM experiments WHERE name = ?", (_EXPERIMENT,)
        ).fetchone()
    ui = Ui(folder, store)
    try:
        begin = time.monotonic()
        ui.wait()
        found["UI: until it answers"] = time.monotonic() - begin
        page = {"experiment_ids": [str(identifier)], "max_results": 100, "run_view_type": "ACTIVE_ONLY"}
        asked: dict[str, dict[str, object]] = {
            "newest runs": {"order_by": ["attributes.start_time DESC"]},
            "sorted by a metric": {"order_by": ["metrics.`test_top1` DESC"]},
            "sorted by a parameter": {"order_by": ["params.`hyperparameters.p1` ASC"]},
            "searched by a tag": {"filter": "tags.seed = '77'"},
            "searched by name": {"filter": "attributes.run_name LIKE '%seed99%'"},
            "searched by a metric": {"filter": "metrics.`test_top1` > 40"},
        }
        found["UI: list of experiments"] = seconds(lambda: ui.ask("experiments/search", max_results=25))
        for name, more in asked.items():
            assert ui.ask("runs/search", **page, **more)["runs"], f"{name}: nothing was found"
            found[f"UI: {name}"] = seconds(lambda more=more: ui.ask("runs/search", **page, **more))
    finally:
        ui.close()
    return found


numbers = iter(range(1_000_001, 2_000_000))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlflow-store-") as folder:
        for name, taken in measure(Path(folder), arguments.runs, arguments.epochs).items():
            print(f"| {name} | {taken:.2f} |", flush=True)


if __name__ == "__main__":
    main()
