"""A SQLite store made once (MLflow's migrations take seconds) and copied for each test; folders as jobs leave them."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from recu.base.files import hash_file
from recu.results.seal import write_sealed_json
from recu.tracking.description import RunDescription
from recu.tracking.mirror import bring
from recu.tracking.wanted import Folders


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    from recu.tracking.store import prepare_store

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    prepare_store(f"sqlite:///{file}", [])
    return file


@pytest.fixture
def store(empty_store, tmp_path):
    """Address of a fresh store."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"


@pytest.fixture
def description():
    return RunDescription(
        experiment="demo",
        stage="train",
        experiment_id="demo/digits/cifar.resnet20_1w1a/vanilla/seed1",
        spec_hash="0123456789abcdef",
        run_name="resnet20_1w1a vanilla seed 1",
        params={"model": "resnet20_1w1a", "lr": "0.1"},
        tags={"model": "resnet20_1w1a", "git_dirty": "false"},
        dataset="digits",
        data_fingerprint="ab" * 32,
        data_source="scikit-learn",
    )


def row(epoch, **changes):
    return {"epoch": epoch, "time": 1_700_000_000_000 + 1000 * epoch, "test_top1": 50.0 + epoch, "lr": 0.1} | changes


def weights(epoch, layers=2, **changes):
    """A line of diagnostics: layers of 10 and 30 weights, and more of 30."""
    columns = ("threshold", "tail_share", "quantisation_error", "entropy", "scale_min", "scale_mean", "scale_max")
    return {
        "epoch": epoch,
        "layers": [f"layer{number}.conv1" for number in range(layers)],
        "weights": [10] + [30] * (layers - 1),
        **{name: [0.5] * layers for name in columns},
        "dead_share": [0.0] + [0.4] * (layers - 1),
        "flipped_share": [None] * layers,
    } | changes


@dataclass
class Job:
    """The folders of one run, below a project's."""

    folder: Path
    description: RunDescription
    name: str = ""

    @property
    def state(self) -> Path:
        place = self.folder / "runs" / self.description.experiment_id / (self.name or self.description.spec_hash)
        return place if self.description.stage == "train" else place / "evaluate"

    @property
    def results(self) -> Path:
        return self.folder / "results" / self.description.stage / self.description.experiment_id

    @property
    def folders(self) -> Folders:
        return Folders(self.state, self.results)

    def note(self, status="RUNNING", started_ns=1) -> "Job":
        noted = {"description": asdict(self.description), "started_ns": started_ns, "status": status}
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "run.json").write_text(json.dumps(noted))
        return self

    def history(self, *rows) -> "Job":
        lines = (line if isinstance(line, str) else json.dumps(line) for line in rows)
        (self.state / "history.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return self

    def diagnostics(self, *found) -> "Job":
        lines = (line if isinstance(line, str) else json.dumps(line) for line in found)
        (self.state / "diagnostics.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return self

    def publish(self, *rows, weights=b"weights", diagnostics=()) -> "Job":
        self.results.mkdir(parents=True, exist_ok=True)
        of = {"spec_hash": self.description.spec_hash, "data_fingerprint": self.description.data_fingerprint}
        if self.description.stage == "evaluate":
            numbers = {"loss": 1.0, "top1": 60.0, "top5": 90.0, "n": 7}
            write_sealed_json(
                self.results / "metrics.json",
                of | numbers | {"checkpoint_sha256": self.description.checkpoint_sha256},
            )
            return self
        (self.state / "train.log").write_text("log")
        (self.state / "experiment.json").write_text("{}")
        checkpoint = self.results / "model_best.pth.tar"
        checkpoint.write_bytes(weights)
        summary = {"epoch": 1, "top1": 51.0, "top5": 90.0, "loss": 0.5}
        content = {"best": summary, "last": summary, "train_seconds": 9.0, "history": list(rows)}
        content |= {"diagnostics": list(diagnostics)} if diagnostics else {}
        write_sealed_json(self.results / "metrics.json", of | content | {"checkpoint_sha256": hash_file(checkpoint)})
        return self

    def bring(self, store, **how):
        return bring(self.folders, store, **how)


@pytest.fixture
def job(tmp_path, description):
    return Job(tmp_path, description)


def finished(job: Job, epochs=2) -> Job:
    """A training that is over."""
    rows = [row(epoch) for epoch in range(epochs)]
    return job.note("FINISHED").history(*rows).publish(*rows)
