"""What tells runs apart in the tracking store, and that no credential is in a description."""

from types import SimpleNamespace

import pytest

from recu.experiment.params import load_config
from recu.experiment.paths import PARAMS_DIR
from recu.experiment.plan import load_plan
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
    assert run.run_name == "resnet20 m1 00 | cifar.resnet20_1w1a m seed1"
    assert set(run.params) == set(CONTENT) - {"variant"}, "which has no value"
    note = "Training: cifar.resnet20_1w1a, method m, seed 1, on digits.\n\nExperiment `demo/x` (`0000000000000000`)."
    assert run.tags == {
        "mlflow.source.git.commit": "c", "mlflow.note.content": note,
        "model": "resnet20_1w1a", "dataset": "digits", "method": "m", "seed": "1", "network": "cifar.resnet20_1w1a",
        "stage": "train", "git_commit": "c", "git_dirty": "False", "device": "cpu", "version.torch": "2",
    }  # fmt: skip


SUITES = [file.stem for file in sorted((PARAMS_DIR / "suites").glob("*.yaml")) if file.stem != "released"]


@pytest.mark.parametrize("suite", SUITES)
def test_fifteen_characters_tell_the_runs_of_a_suite_apart(suite):
    planned = load_plan(PARAMS_DIR, load_config(PARAMS_DIR), (suite,)).experiments.values()
    runs = [
        describe_run(each, stage, manifest(), PROVENANCE, parent_checkpoint="p" * 64)
        for each in planned
        for stage in ("train", "evaluate")
        if each.suite == suite
    ]
    names = [run.run_name[:15] for run in runs]
    assert len(names) == len(set(names)) > 0


def test_a_runs_name(experiment):
    experiment.model_dump = lambda mode: CONTENT | {"family": "birealnet", "model": "birealnet18", "method": "step2"}
    run = describe_run(experiment, "evaluate", manifest(), PROVENANCE, parent_checkpoint="p" * 64)
    assert run.run_name == "bireal18 s21e00 | birealnet.birealnet18 step2 seed1 evaluate"


def test_hyper_parameters_have_their_own_names(experiment):
    recipe = {"hyperparameters": {"lr": 0.1, "teacher": "torchvision:resnet18", "augmentation": None, "seed": 3}}
    experiment.model_dump = lambda mode: CONTENT | recipe | {"teacher": {"id": "x"}}
    params = describe_run(experiment, "train", manifest(), PROVENANCE).params
    assert (params["lr"], params["teacher"], params["teacher.id"]) == ("0.1", "torchvision:resnet18", "x")
    assert (params["seed"], params["hyperparameters.seed"]) == ("1", "3"), "a name that is taken stays whole"
    assert "augmentation" not in params


def test_a_row_with_a_name_is_told_apart():
    content = CONTENT | {"row": "tau-0.90"}
    named = SimpleNamespace(id="demo/x", spec_hash="0" * 16, model_dump=lambda mode: content)
    run = describe_run(named, "train", manifest(), PROVENANCE)
    assert run.run_name == "tau090 m1 00 | cifar.resnet20_1w1a+tau-0.90 m seed1" and run.tags["row"] == "tau-0.90"


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
    assert run.tags[name] == f"epochs 1 to 4: spec_hash {'f' * 16}"


def test_no_credential_in_any_free_text(monkeypatch, experiment):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter22")
    experiment.model_dump = lambda mode: CONTENT | {"method": "run hunter22", "uri": "https://a:b@c"}
    leaky = PROVENANCE.model_copy(update={"device": "hunter22"})
    run = repr(describe_run(experiment, "train", manifest(source="https://x:hunter22@data"), leaky))
    assert "hunter22" not in run and "a:b" not in run
