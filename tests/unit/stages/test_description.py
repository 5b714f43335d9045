"""What tells runs apart in the tracking store."""

from types import SimpleNamespace

import pytest

from recu.stages.description import describe_released_run, describe_run
from tests.unit.training.tiny import tiny_provenance

PROVENANCE = tiny_provenance()
HISTORY = [{"epoch": 0, "time": 5, "test_top1": 1.0, "lr": 0.1}]


@pytest.fixture
def experiment():
    return SimpleNamespace(
        suite="demo",
        id="demo/x",
        spec_hash="0" * 16,
        network="n",
        method="m",
        seed=1,
        model="resnet20_1w1a",
        dataset="digits",
        model_dump=lambda mode: {"seed": 1},
    )


def manifest(fingerprint):
    return SimpleNamespace(fingerprint=fingerprint, source=SimpleNamespace(name="local"))


def test_a_training_tells_its_data_and_its_epochs(experiment):
    run = describe_run(
        experiment, "train", manifest("d" * 64), PROVENANCE, parent_checkpoint="p" * 64, run_id="r", history=HISTORY
    )
    assert run.identity["data_fingerprint"] == "d" * 64 and "checkpoint_sha256" not in run.identity
    assert [tuple(row) for row in run.rows] == [(0, 5, "lr")]
    assert (run.parent_checkpoint, run.run_id) == ("p" * 64, "r")


def test_an_evaluation_is_of_one_checkpoint_on_one_dataset(experiment):
    runs = [
        describe_run(experiment, "evaluate", manifest(data), PROVENANCE, parent_checkpoint=checkpoint)
        for data in ("d" * 64, "e" * 64)
        for checkpoint in ("p" * 64, "q" * 64)
    ]
    assert len({tuple(run.identity.values()) for run in runs}) == 4
    assert all(run.rows is None and run.parent_checkpoint == run.checkpoint_sha256 for run in runs)


def test_a_released_file_is_known_by_its_content(experiment):
    experiment.name = "file"
    run = describe_released_run(experiment, "n", manifest("d" * 64), PROVENANCE, checkpoint="p" * 64)
    assert run.identity["checkpoint_sha256"] == "p" * 64 and run.identity["data_fingerprint"] == "d" * 64
