"""What tells runs apart in the tracking store, and that no credential is in a description."""

from types import SimpleNamespace

import pytest

from recu.results.records import TrainedPiece
from recu.tracking.description import describe_published, describe_run
from tests.unit.training.tiny import tiny_provenance

CONTENT = {
    "suite": "demo", "dataset": "digits", "family": "cifar", "variant": None, "model": "resnet20_1w1a",
    "method": "m", "seed": 1,
}  # fmt: skip
PROVENANCE = tiny_provenance().model_copy(
    update={"git_commit": "c", "git_dirty": False, "device": "cpu", "packages": {"torch": "2"}}
)


@pytest.fixture
def experiment():
    return SimpleNamespace(id="demo/x", spec_hash="0" * 16, model_dump=lambda mode: dict(CONTENT))


def manifest(fingerprint="d" * 64, source="local"):
    return SimpleNamespace(fingerprint=fingerprint, source=SimpleNamespace(name=source))


def test_a_training_tells_its_data_and_its_parent(experiment):
    run = describe_run(experiment, "train", manifest(), PROVENANCE, parent_checkpoint="p" * 64)
    assert run.identity["data_fingerprint"] == "d" * 64 and "checkpoint_sha256" not in run.identity
    assert (run.parent_checkpoint, run.data_source, run.experiment) == ("p" * 64, "local", "demo")
    assert run.run_name == "cifar.resnet20_1w1a m seed1" and set(run.params) == set(CONTENT)
    assert run.tags == {
        "model": "resnet20_1w1a", "dataset": "digits", "method": "m", "seed": "1", "network": "cifar.resnet20_1w1a",
        "stage": "train", "git_commit": "c", "git_dirty": "False", "device": "cpu", "version.torch": "2",
    }  # fmt: skip


def test_an_evaluation_is_of_one_checkpoint_on_one_dataset(experiment):
    runs = [
        describe_run(experiment, "evaluate", manifest(data), PROVENANCE, parent_checkpoint=checkpoint)
        for data in ("d" * 64, "e" * 64)
        for checkpoint in ("p" * 64, "q" * 64)
    ]
    assert len({tuple(run.identity.values()) for run in runs}) == 4
    assert all(run.parent_checkpoint == run.checkpoint_sha256 for run in runs)


def test_a_released_file_is_known_by_its_content(experiment):
    experiment.model_dump = lambda mode: CONTENT | {"name": "file"}
    run = describe_run(experiment, "evaluate", manifest(), PROVENANCE, parent_checkpoint="p" * 64, network="n")
    assert run.identity["checkpoint_sha256"] == "p" * 64 and run.identity["data_fingerprint"] == "d" * 64
    assert (run.run_name, run.tags["network"]) == ("file evaluate", "n")


def test_a_published_training_says_the_same_as_its_job_did(experiment):
    noted = describe_run(experiment, "train", manifest(source=""), PROVENANCE, parent_checkpoint="p" * 64)
    metrics = {"data_fingerprint": "d" * 64, "provenance": PROVENANCE.as_plain(), "spec_hash": "0" * 16}
    metrics |= {"experiment": {"id": "demo/x"} | CONTENT}
    assert describe_published(metrics | {"parent": {"checkpoint_sha256": "p" * 64}}) == noted
    assert describe_published(metrics | {"parent": None}).identity == noted.identity


def test_a_run_says_which_epochs_of_its_curve_had_other_parameters(experiment):
    other = TrainedPiece.model_construct(from_epoch=0, to_epoch=3, spec_hash="f" * 16)
    own = TrainedPiece.model_construct(from_epoch=3, to_epoch=5, spec_hash="0" * 16)
    name = "trained_with_other_parameters"
    assert name not in describe_run(experiment, "train", manifest(), PROVENANCE, segments=[own]).tags
    run = describe_run(experiment, "train", manifest(), PROVENANCE, segments=[other, own])
    assert run.tags[name] == f"epochs 0 to 3: spec_hash {'f' * 16}"


def test_no_credential_in_any_free_text(monkeypatch, experiment):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter22")
    experiment.model_dump = lambda mode: CONTENT | {"method": "run hunter22", "uri": "https://a:b@c"}
    leaky = PROVENANCE.model_copy(update={"device": "hunter22"})
    run = repr(describe_run(experiment, "train", manifest(source="https://x:hunter22@data"), leaky))
    assert "hunter22" not in run and "a:b" not in run
