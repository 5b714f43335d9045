"""A SQLite store made once (MLflow's migrations take seconds) and copied for each test."""

import shutil

import pytest

from recu.tracking import DatasetDescription, RunDescription


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
        params={"model": "resnet20_1w1a", "hyperparameters.lr": "0.1"},
        tags={"model": "resnet20_1w1a", "git_dirty": "false"},
        dataset=DatasetDescription(name="digits", digest="ab" * 32, source="scikit-learn"),
    )
