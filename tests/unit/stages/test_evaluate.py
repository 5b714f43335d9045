"""The evaluate stage on published trainings. (Checkpoint files: tests/unit/cli/test_evaluate.py.)"""

import json

import pytest
import torch

from recu.base.errors import Interrupted, ResultError
from recu.base.files import hash_file
from recu.experiment import paths
from recu.results.seal import write_sealed_json
from tests.unit.training.ours import our_checkpoint


@pytest.mark.parametrize("augmentation", [None, "resized_crop_lighting", "rotate_flip"])
def test_it_measures_what_training_measured(project, augmentation):
    experiment = project.experiment(augmentation=augmentation)
    trained = project.train(experiment)
    project.evaluate(experiment)
    file = paths.evaluate_folder(project.results, experiment.id) / paths.METRICS
    found = json.loads(file.read_text())
    assert set(found) == {
        "binariser",
        "experiment_id", "spec_hash", "top1", "top5", "loss", "n", "checkpoint_sha256", "data_fingerprint",
        "provenance", "mlflow_run_id", "content_sha256", "checkpoint", "weights_key", "model", "family", "variant",
        "stage", "dataset", "data", "test_content", "settings", "confusion", "classes",
    }  # fmt: skip
    assert len(found["confusion"]) == len(found["classes"]) and sum(map(sum, found["confusion"])) == 18
    assert found["experiment_id"] == experiment.id and found["n"] == 18
    assert {name: found[name] for name in ("top1", "top5")} == {
        name: trained["best"][name] for name in ("top1", "top5")
    }
    assert found["loss"] == pytest.approx(trained["best"]["loss"], rel=1e-6)
    for name in ("spec_hash", "checkpoint_sha256", "data_fingerprint"):
        assert found[name] == trained[name]


def test_an_evaluation_stops_before_its_time_is_over_and_says_that_it_begins_anew(project):
    experiment = project.experiment(epochs=1)
    project.train(experiment)
    project.end_time = 1.0
    with pytest.raises(Interrupted, match=r"stopped by the time limit: run the same command again with more of it"):
        project.evaluate(experiment)
    assert not (paths.evaluate_folder(project.results, experiment.id) / paths.METRICS).exists()


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "says that it is of another training .*vanilla, seed 2"),
        ({"lr": 0.05}, "says that it is of another training"),
        ({"data_fingerprint": "0" * 64}, "was trained on other data"),
    ],
)
def test_a_checkpoint_of_another_training_in_its_place_is_refused(project, change, message):
    """Its hash is the one that metrics.json names, as after somebody else's state was published."""
    experiment = project.experiment()
    project.train(experiment)
    folder = paths.train_folder(project.results, experiment.id)
    own = {"data_fingerprint": project.trained(experiment)["data_fingerprint"]}
    other = experiment.model_copy(
        update={
            "seed": change.get("seed", 1),
            "hyperparameters": experiment.hyperparameters.model_copy(
                update={"lr": change.get("lr", experiment.hyperparameters.lr)}
            ),
        }
    )
    fingerprint = own | {key: value for key, value in change.items() if key in own}
    torch.save(our_checkpoint(other, **fingerprint), folder / paths.BEST_CHECKPOINT)
    metrics = project.trained(experiment) | {"checkpoint_sha256": hash_file(folder / paths.BEST_CHECKPOINT)}
    write_sealed_json(folder / paths.METRICS, metrics)
    with pytest.raises(ResultError, match=message) as raised:
        project.evaluate(experiment)
    assert str(raised.value).endswith(f"train {experiment.id} again")
