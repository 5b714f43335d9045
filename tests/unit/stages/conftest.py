"""A project with prepared data and experiments that take a second each."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from recu.data import open_prepared
from recu.experiment import paths
from recu.experiment.params import load_datasets, load_defaults
from recu.experiment.resolving import Experiment, Origin
from recu.experiment.running import Running
from recu.experiment.schema import Dataset
from recu.stages.evaluate import evaluate
from recu.stages.prepare import prepare
from recu.stages.train import train


@dataclass
class Project:
    """The workflow's folders below `folder`, and the data prepared once for all tests."""

    folder: Path
    params: Path
    data_dir: Path
    tracking_uri: str = ""
    keep_resumable: bool = False
    end_time: float = 0.0

    @property
    def dataset(self) -> Dataset:
        return load_datasets(self.params)["tiny"]

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def experiment(self, method: str = "vanilla", parent: Experiment | None = None, **recipe) -> Experiment:
        values = load_defaults(self.params).hyperparameters.model_copy(
            update={"epochs": 2, "batch_size": 16, "init_from": parent and parent.method} | recipe
        )
        return Experiment(
            suite="tests",
            dataset="tiny",
            family="cifar",
            variant=None,
            model="resnet20_1w1a",
            method=method,
            seed=1,
            hyperparameters=values,
            data=self.dataset.identity(),
            init_from=parent and Origin(id=parent.id, spec_hash=parent.spec_hash),
            teacher=None,
            recipe_version=1,
        )

    def places(self, **more) -> dict:
        running = Running(
            gpus="cpu",
            workers=0,
            tracking_uri=self.tracking_uri,
            keep_resumable=self.keep_resumable,
            end_time=self.end_time,
        )
        common = {
            "dataset": self.dataset,
            "prepared": open_prepared(self.data_dir / "tiny", self.dataset),
            "running": running,
        }
        return common | {"results_dir": self.results, "runs_dir": self.runs} | more

    def train(self, experiment: Experiment, **more) -> dict:
        train(experiment, **self.places(**more))
        return self.trained(experiment)

    def evaluate(self, experiment: Experiment, **more) -> None:
        evaluate(experiment, **self.places(**more))

    def trained(self, experiment: Experiment) -> dict:
        from recu.base.files import read_json

        return read_json(paths.train_folder(self.results, experiment.id) / paths.METRICS)

    def state(self, experiment: Experiment) -> Path:
        return paths.state_folder(self.runs, experiment.id, experiment.spec_hash)


@pytest.fixture(scope="session")
def prepared(tiny_project, tmp_path_factory) -> Path:
    data_dir = tmp_path_factory.mktemp("prepared")
    dataset = load_datasets(tiny_project / "params")["tiny"]
    prepare("tiny", dataset, data_dir=data_dir, source=tiny_project / "images", workers=0)
    return data_dir


@pytest.fixture
def nothing_is_drawn(monkeypatch) -> None:
    """Figures take seconds; what they show, tests of the report say."""
    monkeypatch.setattr("recu.report.figures._saved", lambda _draw, form, *_, **__: f"<svg>{form}</svg>".encode())
    monkeypatch.setattr("recu.stages.pages._MOST_WITH_FIGURES", 0)


@pytest.fixture
def project(tmp_path, tiny_project, prepared, monkeypatch) -> Project:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Project(tmp_path, tiny_project / "params", prepared)
