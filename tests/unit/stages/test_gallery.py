"""Figures and models in MLflow, for those who ask: each once, and models as MLflow loads them."""

import json
import os
import subprocess
import sys

import pytest
import torch

import recu
from recu.experiment import paths
from recu.stages.gallery import FIGURES_TAG, Gallery
from recu.tracking.client import connect
from recu.tracking.mirror import bring
from recu.tracking.store import prepare_store
from recu.tracking.sync import find_runs
from tests.unit.stages.conftest import Project

NAME = "tests-tiny-cifar.resnet20_1w1a-vanilla"
LOAD = """
import json, sys
import mlflow, torch
from mlflow.models import get_model_info
network = mlflow.pytorch.load_model(sys.argv[1])
torch.manual_seed(0)
with torch.inference_mode():
    logits = network(torch.randn(2, 3, int(sys.argv[2]), int(sys.argv[2])))
signature = get_model_info(sys.argv[1]).signature.to_dict()
print(json.dumps({"logits": logits.tolist(), "signature": signature, "training": network.training}))
"""


@pytest.fixture(scope="module")
def made(tiny_project, prepared, tmp_path_factory) -> Project:
    """One training, evaluated, with what was measured of its layers."""
    project = Project(tmp_path_factory.mktemp("gallery"), tiny_project / "params", prepared)
    experiment = project.experiment(epochs=1)
    project.train(experiment)
    project.evaluate(experiment)
    return project


@pytest.fixture
def address(tmp_path):
    address = f"sqlite:///{tmp_path}/mlflow.db"
    prepare_store(address, ["tests"])
    return address


def sync(project: Project, address: str, **wanted) -> tuple[str, int]:
    """The training's run, and how many parts were sent."""
    runs = find_runs(project.runs, [project.results])
    gallery = Gallery(address, runs, **{"figures": False, "models": False} | wanted)
    done = [bring(folders, address) for folders in runs]
    for folders, each in zip(runs, done, strict=True):
        gallery.add(folders, each)
    return done[0].run_id, sum(each.sent for each in done)


def artifacts(address, run_id, folder):
    return {found.path for found in connect(address).list_artifacts(run_id, folder)}


def test_figures_are_artifacts_once(made, address):
    run_id, _ = sync(made, address)
    assert not artifacts(address, run_id, "figures"), "only where they are asked for"
    sync(made, address, figures=True)
    names = ("classes", "curves", "histograms", "weights")
    assert artifacts(address, run_id, "figures") == {f"figures/{name}.png" for name in names}
    assert sync(made, address, figures=True) == (run_id, 0)


def test_a_model_is_loaded_by_mlflow_alone_with_signature_and_the_evaluations_metrics(made, address, tmp_path):
    run_id, _ = sync(made, address, models=True)
    assert sync(made, address, models=True) == (run_id, 0), "once"
    client = connect(address)
    (version,) = client.search_model_versions(f"name = '{NAME}'")
    assert version.run_id == run_id and version.tags["seed"] == "1"
    evaluation = json.loads(next(made.results.glob("evaluate/**/metrics.json")).read_text())
    assert version.tags["checkpoint_sha256"] == evaluation["checkpoint_sha256"]
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert {each.key: each.value for each in model.metrics} == {
        "evaluation/top1": evaluation["top1"],
        "evaluation/top5": evaluation["top5"],
        "evaluation/loss": evaluation["loss"],
        "evaluation/images": evaluation["n"],
    }
    ours = recu.load(next(made.results.glob("train/**/metrics.json")).parent, params_dir=made.params)
    size = ours.dataset.image_size
    environment = os.environ | {"MLFLOW_TRACKING_URI": address, "PYTHONPATH": str(paths.PROJECT_DIR)}
    words = [sys.executable, "-c", LOAD, f"models:/{NAME}/1", str(size)]
    said = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert said.returncode == 0, said.stderr
    loaded = json.loads(said.stdout.splitlines()[-1])
    torch.manual_seed(0)
    with torch.inference_mode():
        expected = ours.network(torch.randn(2, 3, size, size))
    assert torch.equal(torch.tensor(loaded["logits"]), expected) and not loaded["training"]
    shapes = [json.loads(loaded["signature"][side])[0]["tensor-spec"]["shape"] for side in ("inputs", "outputs")]
    assert shapes == [[-1, 3, size, size], [-1, ours.dataset.num_classes]]


def test_a_model_that_fails_half_way_is_made_by_the_next_call(made, address, monkeypatch):
    from mlflow.tracking import MlflowClient

    def fail(*_, **__):
        raise OSError("full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(MlflowClient, "create_model_version", fail)
        sync(made, address, models=True)
    sync(made, address, models=True)
    client = connect(address)
    experiment = client.get_experiment_by_name("tests")
    models = client.search_logged_models([experiment.experiment_id])
    assert sorted(str(each.status) for each in models) == ["FAILED", "READY"]
    (version,) = client.search_model_versions(f"name = '{NAME}'")
    (ready,) = (each.model_id for each in models if str(each.status) == "READY")
    assert version.source == f"models:/{ready}"


def test_a_training_without_evaluation_is_passed_over(made, address):
    runs = [each for each in find_runs(made.runs, [made.results]) if each.state.name != "evaluate"]
    gallery = Gallery(address, runs, figures=True, models=True)
    for folders in runs:
        gallery.add(folders, done := bring(folders, address))
        assert FIGURES_TAG not in connect(address).get_run(done.run_id).data.tags
    assert gallery.not_evaluated == 1
