"""Files as the authors' program saves them, published and measured as suite `released` does."""

import json
from pathlib import Path

import pytest
import torch

from recu.base.errors import CheckpointError, ConfigError, OutputError, ResultError
from recu.base.files import hash_file
from recu.data import Prepared, build_loaders
from recu.experiment.paths import BEST_CHECKPOINT, evaluate_folder, train_folder
from recu.experiment.released import Released, file_state
from recu.experiment.running import Running
from recu.experiment.schema import Published
from recu.experiment.suite_facts import DatasetFacts, SuiteFacts
from recu.models import build_model
from recu.stages.evaluate import evaluate
from recu.stages.prepare import prepare
from recu.stages.publish import publish_released
from recu.stages.report import collect, render
from recu.training.evaluation import evaluate as evaluate_network
from tests.unit.training.ours import experiment, our_checkpoint

NETWORKS = [
    ("cifar", "resnet20_1w1a", None, 2),
    ("cifar", "resnet20_1w1a", "2021-03", 2),
    ("cifar", "resnet18_1w1a", None, 2),
    ("cifar", "resnet18_1w1a", "2021-03", 2),
    ("cifar", "vgg_small_1w1a", None, 2),
    ("imagenet", "resnet18_1w1a", None, 2),
    ("reactnet", "resnet18_1w1a", None, 1),
    ("reactnet", "resnet18_1w1a", None, 2),
    ("birealnet", "birealnet18", None, 2),
    ("torchvision", "resnet18", None, 0),
]


@pytest.fixture(scope="module")
def dataset(tiny_project):
    from recu.experiment.params import load_datasets

    return load_datasets(tiny_project / "params")["tiny"].model_copy(update={"image_size": 32})


@pytest.fixture(scope="module")
def prepared_data(dataset, tiny_project, tmp_path_factory) -> Prepared:
    data_dir = tmp_path_factory.mktemp("data")
    return prepare("tiny32", dataset, data_dir=data_dir, source=tiny_project / "images", workers=0)


@pytest.fixture
def measured(tmp_path, dataset, prepared_data, monkeypatch):
    """A function that publishes and measures a file, and returns what both metrics.json say."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def measure(file: Path, tracking_uri: str = "", **changes) -> dict:
        released = make_released(file, dataset, **changes)
        results = tmp_path / "results"
        publish_released(released, dataset=dataset, results_dir=results)
        evaluate(
            released,
            dataset=dataset,
            prepared=prepared_data,
            results_dir=results,
            runs_dir=tmp_path / "runs",
            running=Running(gpus="cpu", workers=0, tracking_uri=tracking_uri),
        )
        folders = (train_folder(results, released.id), evaluate_folder(results, released.id))
        published, found = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
        return published | found

    return measure


def make_released(file, dataset, **changes) -> Released:
    values = {
        "suite": "files",
        "name": "one",
        "path": str(file),
        "sha256": hash_file(file) if file.exists() else None,
        "obtain": None if file.exists() else "ask the authors",
        "model": "resnet20_1w1a",
        "family": "cifar",
        "stage": 2,
        "dataset": "tiny32",
        "data": dataset.identity(),
        "method": "vanilla",
        "claimed_top1": 50.0,
        "claimed_on": "tiny32",
        "batch_size_test": 7,
        "loader": "auto",
        "recipe_version": 1,
    }
    return Released(**(values | changes))


def make_network(family="cifar", model="resnet20_1w1a", variant=None, stage=2):
    """With batch statistics of its own, so that a tensor that is not taken shows in the loss."""
    torch.manual_seed(0)
    network = build_model(model, family=family, num_classes=6, variant=variant, stage=stage)
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "running_var", "alpha")):
            value.copy_(torch.rand_like(value) + 0.5)
    return network


def authors_form(network, prefix="module.") -> dict:
    """A checkpoint as the authors' program writes it after training on several GPUs."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = {
        f"{prefix}{name}": value.reshape(1) if name.endswith("tau") else value
        for name, value in network.state_dict().items()
    }
    return {
        "epoch": 600,
        "model": "resnet20_1w1a",
        "state_dict": state,
        "best_prec1": torch.tensor(87.5),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"last_epoch": 595, "_last_lr": [0.0]},
    }


@pytest.mark.parametrize(("family", "model", "variant", "stage"), NETWORKS)
def test_files_of_every_family_and_form_are_measured_as_they_are(
    measured, tmp_path, dataset, prepared_data, family, model, variant, stage
):
    network = make_network(family, model, variant, stage)
    file = tmp_path / "file.pth.tar"
    torch.save(authors_form(network), file, _use_new_zipfile_serialization=False)
    found = measured(file, family=family, model=model, stage=stage)
    loaders = build_loaders(
        prepared_data,
        dataset,
        batch_size=8,
        batch_size_test=18,
        loader="auto",
        seed=0,
        device=torch.device("cpu"),
        workers=0,
    )
    expected = evaluate_network(network, loaders.test)
    assert found["loss"] == pytest.approx(expected.loss, rel=1e-4) and found["top1"] == pytest.approx(expected.top1)
    assert found["variant"] == variant and found["n"] == 18
    tensors = len(network.state_dict())
    load = {"expected": tensors, "taken": tensors, "missing": [], "unexpected": [], "converted": []}
    assert found["load"] == load | {"prefixes": ["module."]}
    assert found["cost"]["parameters"] == sum(parameter.numel() for parameter in network.parameters())


def test_a_stage_that_neither_the_entry_nor_the_file_says_is_asked_for(measured, tmp_path):
    """Measured as another stage than its own, a network gives another number."""
    file = tmp_path / "file.pth.tar"
    torch.save(authors_form(make_network(stage=2)), file)
    assert measured(file, stage=None)["stage"] == 2  # its tensors say it
    torch.save(authors_form(make_network(stage=1)), file)
    asked = "those of stages 0 and 1: give `stage` in the entry one in params/suites/files.yaml"
    with pytest.raises(ConfigError, match=asked):
        measured(file, stage=None)
    assert measured(file, stage=1)["stage"] == 1


def test_the_result_says_everything_a_table_needs(measured, tmp_path):
    file = tmp_path / "file.pth.tar"
    torch.save(authors_form(make_network(), prefix=""), file)
    found = measured(file)
    assert found["checkpoint_sha256"] == hash_file(file)
    assert found["released"]["name"] == "one" and found["released"]["claimed_top1"] == 50
    assert {
        "top1",
        "top5",
        "loss",
        "n",
        "load",
        "variant",
        "model",
        "family",
        "dataset",
        "data_fingerprint",
    } <= set(found)
    assert {"provenance", "cost", "shortcut", "mlflow_run_id", "content_sha256"} <= set(found)
    assert found["shortcut"] == "two per block"


def test_zip_and_legacy_files_with_and_without_prefix_give_the_same(measured, tmp_path):
    network = make_network()
    losses = []
    for number, (prefix, zipped) in enumerate([("", True), ("module.", True), ("", False), ("module.", False)]):
        file = tmp_path / f"{number}.pth.tar"
        torch.save(authors_form(network, prefix), file, _use_new_zipfile_serialization=zipped)
        losses.append(measured(file, name=str(number))["loss"])
    assert len(set(losses)) == 1


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_one_line_and_leaves_no_result(measured, tmp_path, zipped):
    file = tmp_path / "file.pth.tar"
    torch.save(authors_form(make_network()), file, _use_new_zipfile_serialization=zipped)
    file.write_bytes(file.read_bytes()[:20000])
    with pytest.raises(CheckpointError, match=r"file.pth.tar is damaged") as caught:
        measured(file)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_a_missing_file_says_where_to_get_it(measured, tmp_path):
    with pytest.raises(CheckpointError, match=r"one.pth.tar is not here: ask the authors; put it there, or change"):
        measured(tmp_path / "one.pth.tar")
    with pytest.raises(CheckpointError, match="is not here any more"):
        measured(tmp_path / "one.pth.tar", sha256="5" * 64, obtain=None)
    assert not (tmp_path / "results").exists()


def test_a_file_of_another_architecture_is_refused(measured, tmp_path):
    file = tmp_path / "file.pth.tar"
    torch.save(authors_form(make_network()), file)
    with pytest.raises(CheckpointError, match=r"as cifar.resnet18_1w1a: the checkpoint does not fit the network"):
        measured(file, model="resnet18_1w1a")
    content = authors_form(make_network())
    content["state_dict"].popitem()
    torch.save(content, file)
    with pytest.raises(CheckpointError, match=r"1 missing"):
        measured(file)
    assert not (tmp_path / "results").exists()


def test_a_place_that_cannot_hold_the_result_is_named_before_any_work(measured, tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(OutputError, match="is not a folder"):
        measured(tmp_path / "missing.pth.tar")


def test_each_measurement_is_a_run_of_the_suites_experiment(measured, tmp_path):
    import mlflow

    from recu.tracking.mirror import bring
    from recu.tracking.store import prepare_store
    from recu.tracking.sync import find_runs

    file = tmp_path / "file.pth.tar"
    torch.save(authors_form(make_network()), file)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    prepare_store(uri, ["files"], tmp_path / "artifacts")
    found = measured(file, tracking_uri=uri)
    # A measurement this short may end before a busy machine's store has answered.
    for folders in find_runs(tmp_path / "runs", [tmp_path / "results"]):
        assert bring(folders, uri).left == []
    client = mlflow.MlflowClient(tracking_uri=uri)
    [run] = client.search_runs([client.get_experiment_by_name("files").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/top1"] == pytest.approx(found["top1"])
    assert run.data.tags["stage"] == "evaluate" and run.data.tags["network"] == "cifar.resnet20_1w1a"
    assert run.data.params["claimed_top1"] == "50.0"


def test_a_table_rests_on_this_measurement_only(measured, tmp_path, dataset):
    file = tmp_path / "file.pth.tar"
    torch.save(authors_form(make_network()), file)
    found = measured(file)
    facts = SuiteFacts(
        name="files",
        title="T",
        description="D",
        experiments=(make_released(file, dataset).origin,),
        datasets={"tiny32": DatasetFacts(title="Tiny", published_as=None)},
        methods={},
    )
    places = (tmp_path / "results", tmp_path / "runs", tmp_path / "rows.json")
    collect(facts.experiments, *places)
    files = render(tmp_path / "rows.json", facts, Published(results=()), tmp_path / "reports")
    assert sorted(file.name for file in files) == ["files.csv", "files.html", "files.json", "files.md", "files.tex"]
    assert f"{found['top1']:.2f}" in (tmp_path / "reports/files.md").read_text()
    with pytest.raises(ResultError, match="belongs to another file or other parameters"):
        collect([make_released(file, dataset, claimed_top1=60.0).origin], *places)
    metrics = evaluate_folder(tmp_path / "results", "files/one") / "metrics.json"
    metrics.write_text(metrics.read_text().replace(f'"n": {found["n"]}', '"n": 10000'))
    with pytest.raises(ResultError, match="altered"):
        collect(facts.experiments, *places)


def test_a_file_of_ours_must_be_what_its_entry_says(measured, tmp_path, dataset, prepared_data):
    file = tmp_path / "file.pth.tar"
    torch.save(our_checkpoint(experiment(dataset, name="tiny32", stage=1)), file)
    with pytest.raises(
        CheckpointError, match=r"stage 1, but the entry one in params/suites/files.yaml would have stage 2"
    ):
        measured(file)
    assert not (tmp_path / "results").exists()
    found = measured(file, stage=1)
    assert (found["stage"], found["test_content"]) == (1, prepared_data.manifest.content["test"])
    assert found["settings"]["loader"] == "memory"


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_not_measured(measured, tmp_path, value):
    content = authors_form(make_network())
    content["state_dict"]["module.linear.bias"][0] = value
    torch.save(content, tmp_path / "file.pth.tar")
    with pytest.raises(CheckpointError, match=r"linear\.bias is not finite"):
        measured(tmp_path / "file.pth.tar")
    assert not (tmp_path / "results").exists()


def test_the_file_lies_on_disk_once_and_its_content_outlives_its_name(measured, tmp_path, dataset):
    file, link = tmp_path / "file.pth.tar", tmp_path / "link.pth.tar"
    torch.save(authors_form(make_network()), file)
    link.symlink_to(file)
    found = measured(link)
    checkpoint = train_folder(tmp_path / "results", "files/one") / BEST_CHECKPOINT
    assert checkpoint.samefile(file) and not checkpoint.is_symlink()
    assert found["file_state"] == file_state(file)
    digest = hash_file(file)
    file.unlink()
    assert hash_file(checkpoint) == digest


def test_a_file_that_changed_since_it_was_planned_is_not_published(measured, tmp_path, monkeypatch):
    file = tmp_path / "file.pth.tar"
    torch.save(authors_form(make_network()), file)
    with pytest.raises(CheckpointError, match=r"not the one that was planned \(SHA-256 .*run the same command again"):
        measured(file, sha256="0" * 64)
    # Another file takes its place while it is published.
    monkeypatch.setattr("recu.stages.publish.hash_file", lambda _: "1" * 64)
    with pytest.raises(CheckpointError, match=r"is not the one that was planned \(SHA-256 111111111111"):
        measured(file)
    assert not list((tmp_path / "results").rglob("metrics.json"))


def test_what_was_published_is_measured_only_as_it_was_published(measured, tmp_path, dataset, prepared_data):
    file = tmp_path / "file.pth.tar"
    torch.save(authors_form(make_network()), file)
    released = make_released(file, dataset)
    measured(file)
    with file.open("r+b") as stream:  # the very file that was published
        stream.write(b"x")
    places = {"results_dir": tmp_path / "results", "runs_dir": tmp_path / "runs"}
    with pytest.raises(ResultError, match=r"is not the checkpoint that metrics\.json beside it names"):
        evaluate(released, dataset=dataset, prepared=prepared_data, **places)
