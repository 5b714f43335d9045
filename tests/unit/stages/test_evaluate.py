"""The evaluate stage on published trainings. (Checkpoint files: tests/unit/cli/test_evaluate.py.)"""

import json

import pytest

from recu import paths
from recu.errors import ResultError


def test_it_measures_what_training_measured(project):
    experiment = project.experiment()
    trained = project.train(experiment)
    project.evaluate(experiment)
    file = paths.evaluate_folder(project.results, experiment.id) / paths.METRICS
    found = json.loads(file.read_text())
    assert set(found) == {
        "experiment_id", "spec_hash", "top1", "top5", "loss", "n", "checkpoint_sha256", "data_fingerprint",
        "provenance", "mlflow_run_id", "content_sha256",
    }  # fmt: skip
    assert found["experiment_id"] == experiment.id and found["n"] == 18
    assert {name: found[name] for name in ("top1", "top5")} == {
        name: trained["best"][name] for name in ("top1", "top5")
    }
    assert found["loss"] == pytest.approx(trained["best"]["loss"], rel=1e-6)
    for name in ("spec_hash", "checkpoint_sha256", "data_fingerprint"):
        assert found[name] == trained[name]


def test_a_training_of_other_parameters_or_altered_is_refused(project):
    experiment = project.experiment()
    project.train(experiment)
    with pytest.raises(ResultError, match="other parameters"):
        project.evaluate(project.experiment(lr=0.05))
    file = paths.train_folder(project.results, experiment.id) / paths.BEST_CHECKPOINT
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ResultError, match="SHA-256 differs"):
        project.evaluate(experiment)
    assert not paths.evaluate_folder(project.results, experiment.id).exists()
