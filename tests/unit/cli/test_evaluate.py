"""`recu evaluate -e FILE`."""

import json
import re
import shutil
from pathlib import Path

import numpy
import pytest
import torch

from recu.base.files import hash_file
from recu.experiment.params import load_datasets
from recu.experiment.released import Released
from recu.models import build_model
from tests.unit.training.ours import experiment, our_checkpoint


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = build_model("resnet20_1w1a", family="cifar", num_classes=6)
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, tmp_path / "file.pth.tar")
    return tmp_path / "file.pth.tar"


def test_a_foreign_file_may_name_its_network(recu, checkpoint):
    torch.save(torch.load(checkpoint) | {"model": "resnet20_1w1a"}, "named.pth.tar")
    assert recu("evaluate", "-e", "named.pth.tar", *recu.tiny[2:]) == 0, recu.err
    assert "cifar.resnet20_1w1a of stage 2 as it says itself" in recu.out
    text = (
        "trained: mean (0.5, 0.5, 0.5), std (0.25, 0.25, 0.25) and the order of classes are those of dataset tiny here"
    )
    assert text in recu.err, "what its number depends on and the file does not say"


def test_the_earlier_form_is_recognised_from_its_keys(recu):
    model = build_model("resnet20_1w1a", family="cifar", num_classes=6, variant="2021-03")
    torch.save({"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}}, "early.pth.tar")
    assert recu("evaluate", "-e", "early.pth.tar", *recu.tiny) == 0, recu.err
    expected = len(model.state_dict())
    assert f"{expected} of {expected} tensors taken" in recu.out


def test_output_is_not_overwritten_unless_told(recu, checkpoint):
    (recu.folder / "out.json").write_text("precious")
    assert recu("evaluate", "-e", checkpoint, "--output", "out.json", *recu.tiny) == 2
    assert "out.json exists" in recu.error()
    assert (recu.folder / "out.json").read_text() == "precious"
    assert recu("evaluate", "-e", checkpoint, "--output", "out.json", "--overwrite", *recu.tiny) == 0
    assert recu.json("out.json")["n"] == 18


def other_images(recu):
    """The same images under the next class's name each."""
    other = recu.folder / "other"
    for split in ("train", "test"):
        for label in range(6):
            shutil.copytree(
                recu.project / "images" / split / f"class{label}", other / split / f"class{(label + 1) % 6}"
            )
    return other


def measured(recu) -> dict:
    return {name: value for name, value in recu.json("out.json").items() if name != "provenance"}


def test_each_source_is_measured_as_it_is_and_none_replaces_the_other(recu, checkpoint):
    words = ["evaluate", "-e", checkpoint, "--model", "resnet20_1w1a", "--dataset", "tiny", *recu.places, "--overwrite"]
    other, found = other_images(recu), []
    for source in (recu.project / "images", other, recu.project / "images"):
        assert recu(*words, "--data_path", source, "--output", "out.json") == 0, recu.err
        found.append(measured(recu))
        assert f"(data {found[-1]['data_fingerprint'][:12]})" in recu.out
    assert found[0] == found[2] and found[0]["data_fingerprint"] != found[1]["data_fingerprint"]
    assert found[0]["loss"] != pytest.approx(found[1]["loss"], rel=1e-6)
    assert recu(*words, "--output", "out.json") == 0
    assert measured(recu) == found[0], "without a path: what is prepared in data/tiny"


@pytest.mark.parametrize("storage", ["arrays", "files"])
def test_altered_data_is_refused_and_the_advice_mends_it(recu, checkpoint, storage: str):
    params = shutil.copytree(recu.project / "params", recu.folder / "params")
    source = shutil.copytree(recu.project / "images", recu.folder / "images")
    if storage == "files":
        text = (params / "datasets.yaml").read_text()
        (params / "datasets.yaml").write_text(re.sub(r"augmentation: \w+", "augmentation: resized_crop_lighting", text))
    places = ["--params_dir", params, "--gpus", "cpu", "--workers", 0]
    words = ["evaluate", "-e", checkpoint, "--model", "resnet20_1w1a", "--dataset", "tiny", *places, "--overwrite"]
    assert recu("prepare", "tiny", "--source", source, "--params_dir", params) == 0
    assert recu(*words, "--output", "before.json") == 0, recu.err
    file = recu.folder / "data/tiny/test_labels.npy"
    if storage == "files":
        image = source / "test/class0/0.png"
        image.write_bytes((source / "test/class1/0.png").read_bytes())
    else:
        numpy.save(file, numpy.load(file)[::-1].copy())
    assert recu(*words) == 2
    advice = re.search(r"run `recu (prepare tiny)`", recu.error())
    assert recu(*advice[1].split(), "--params_dir", params) == 0, recu.err
    assert recu(*words, "--output", "after.json") == 0, recu.err
    same = recu.json("before.json")["data_fingerprint"] == recu.json("after.json")["data_fingerprint"]
    assert same == (storage == "arrays"), "the source of the arrays was whole, the image is another now"


def test_test_images_are_enough_to_evaluate_but_not_to_train(recu, checkpoint):
    only = recu.folder / "only"
    shutil.copytree(recu.project / "images/test", only / "val")
    words = ["--model", "resnet20_1w1a", "--dataset", "tiny", *recu.places]
    assert recu("evaluate", "-e", checkpoint, *words, "--data_path", only, "--output", "only.json") == 0, recu.err
    assert recu("evaluate", "-e", checkpoint, *recu.tiny, "--output", "whole.json") == 0, recu.err
    named = ("top1", "loss", "n", "test_content")
    assert [recu.json("only.json")[name] for name in named] == [recu.json("whole.json")[name] for name in named]
    for more in ([], ["--data_path", only]):
        assert recu("train", *words, *more, "--epochs", 1, "--tracking_uri", "", "--save", "x") == 2
        assert "train images" in recu.error() and not (recu.folder / "results/x").exists()


def test_batch_size_changes_nothing(recu, checkpoint):
    """Of one image, of a divisor, of one that leaves a single image over, and of more than there are."""
    found = []
    for size in (1, 6, 17, 100):
        assert recu("evaluate", "-e", checkpoint, "-bt", size, "--output", f"{size}.json", *recu.tiny) == 0
        found.append(recu.json(f"{size}.json"))
        assert found[-1]["n"] == 18 and found[-1]["settings"]["batch_size_test"] == size
    measured = [{name: each[name] for name in ("top1", "top5", "loss")} for each in found]
    assert all(each == pytest.approx(measured[0], rel=1e-5) for each in measured)


def test_the_measurement_says_what_it_rests_on(recu, checkpoint):
    assert recu("evaluate", "-e", checkpoint, "--output", "out.json", *recu.tiny) == 0
    found = recu.json("out.json")
    digest, data = hash_file(checkpoint), load_datasets(recu.project / "params")["tiny"].identity()
    named = {"checkpoint": "file.pth.tar", "checkpoint_sha256": digest, "weights_key": "state_dict", "stage": 2}
    named |= {"model": "resnet20_1w1a", "family": "cifar", "variant": None, "dataset": "tiny", "data": data}
    named |= {"settings": {"batch_size_test": 128, "loader": "memory", "precision": "fp32", "kernels": "auto"}}
    assert {name: found[name] for name in named} == named
    manifest = recu.json("data/tiny/manifest.json")
    assert (found["data_fingerprint"], found["test_content"]) == (manifest["fingerprint"], manifest["content"]["test"])
    assert {"code_hash", "device", "environment_hash"} <= set(found["provenance"])
    assert f"(SHA-256 {digest[:12]}), cifar.resnet20_1w1a of stage 2 as the options say: 157 of 157" in recu.out
    assert f"Tiny (data {manifest['fingerprint'][:12]}): top-1 " in recu.out


@pytest.fixture
def ours(recu):
    """A file of this program, of stage 1, which has the tensors of stage 0 too."""
    of = experiment(load_datasets(recu.project / "params")["tiny"], name="tiny", stage=1)
    torch.manual_seed(0)
    torch.save(our_checkpoint(of), "ours.pth.tar")
    return "ours.pth.tar"


def test_a_file_of_ours_is_measured_as_what_it_says(recu, ours):
    images = ["--data_path", recu.project / "images", *recu.places]
    assert recu("evaluate", "-e", ours, "--output", "out.json", *images) == 0, recu.err
    found = recu.json("out.json")
    assert (found["model"], found["stage"], found["dataset"]) == ("resnet20_1w1a", 1, "tiny")
    assert "of stage 1 as it says itself" in recu.out and "does not say" not in recu.err
    assert recu("evaluate", "-e", ours, "--stage", 1, "--output", "told.json", *recu.tiny) == 0, recu.err
    assert recu.json("told.json")["loss"] == found["loss"]
    for words, message in (
        (["--stage", 2], "it has stage 1, but the options would have stage 2"),
        (["--stage", 0], "it has stage 1, but the options would have stage 0"),
        (["--model", "resnet18_1w1a"], "model resnet20_1w1a, but the options would have model resnet18_1w1a"),
        (["--family", "imagenet"], "family cifar, but the options would have family imagenet"),
        (["--variant", "2021-03"], "variant none, but the options would have variant 2021-03"),
        (["--dataset", "cifar10"], "with num_classes 6, mean (0.5, 0.5, 0.5), std (0.25, 0.25, 0.25), but dataset"),
    ):
        assert recu("evaluate", "-e", ours, *words, *images) == 2
        assert message in recu.error()


def test_a_number_that_the_training_did_not_measure_is_refused(recu):
    assert recu.train("--save", "one") == 0, recu.err
    file = recu.folder / "results/one/model_best.pth.tar"
    assert recu("evaluate", "-e", file, *recu.tiny) == 0, recu.err
    content = torch.load(file)
    content["state_dict"]["linear.bias"] += torch.arange(6.0)
    torch.save(content, "altered.pth.tar")
    assert recu("evaluate", "-e", "altered.pth.tar", "--output", "out.json", *recu.tiny) == 2
    assert "its training saw" in recu.error() and "more than rounding" in recu.error()
    assert not (recu.folder / "out.json").exists()


def test_images_whose_labels_stand_for_other_classes_are_refused(recu):
    """A capital letter moves a class before all others, and every label with it."""
    assert recu.train("--save", "one") == 0, recu.err
    file = recu.folder / "results/one/model_best.pth.tar"
    shutil.copytree(recu.project / "images", "renamed")
    for split in ("train", "test"):
        last = max((recu.folder / "renamed" / split).iterdir())
        last.rename(last.with_name(last.name.upper()))
    renamed = ["--data_path", "renamed", *recu.places]
    assert recu("evaluate", "-e", file, "--output", "out.json", *renamed) == 2
    assert "as label 0, which is 'CLASS5' in the data: take data whose classes have the same names" in recu.error()
    assert not (recu.folder / "out.json").exists()


def test_a_file_of_a_dataset_that_is_not_here_asks_for_another(recu):
    of = experiment(load_datasets(recu.project / "params")["tiny"], name="elsewhere")
    torch.save(our_checkpoint(of), "ours.pth.tar")
    assert recu("evaluate", "-e", "ours.pth.tar", *recu.places) == 2
    assert "was trained on elsewhere, which is no dataset in params/datasets.yaml" in recu.error()
    assert recu("evaluate", "-e", "ours.pth.tar", *recu.tiny) == 0, recu.err


def test_what_a_foreign_file_does_not_say_is_asked_for(recu, checkpoint):
    assert recu("evaluate", "-e", checkpoint, "--model", "resnet20_1w1a", *recu.places) == 2
    assert "--dataset is missing: " in recu.error() and "does not say what it was trained on" in recu.error()
    words = ["--dataset", "tiny", "--data_path", recu.project / "images", *recu.places]
    assert recu("evaluate", "-e", checkpoint, *words) == 2
    assert "--model is missing: " in recu.error() and "does not say which network it holds" in recu.error()
    torch.save(torch.load(checkpoint) | {"model": "resnet20_1w1a"}, "named.pth.tar")
    assert recu("evaluate", "-e", "named.pth.tar", *words) == 0, recu.err


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(recu, checkpoint, value):
    content = torch.load(checkpoint)
    content["state_dict"]["layer1.1.conv1.weight"][0, 0, 0, 0] = value
    torch.save(content, checkpoint)
    assert recu("evaluate", "-e", checkpoint, "--output", "out.json", *recu.tiny) == 2
    assert "layer1.1.conv1.weight is not finite" in recu.error() and not (recu.folder / "out.json").exists()


def test_another_architecture_is_one_line(recu, checkpoint):
    words = [word if word != "resnet20_1w1a" else "resnet18_1w1a" for word in recu.tiny]
    assert recu("evaluate", "-e", checkpoint, *words) == 2
    assert "does not fit the network" in recu.error() and "check model, family" in recu.error()


@pytest.mark.parametrize("option", ["--manifest", "--runs_dir", "--tracking_uri"])
def test_an_option_of_experiments_is_refused_for_a_file(recu, option):
    assert recu("evaluate", "-e", "x", option, "y", *recu.places) == 2
    assert f"{option} has no effect with --evaluate FILE; leave it out" in recu.error()


def test_a_corrupt_checkpoint_is_one_line(recu, checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    assert recu("evaluate", "-e", checkpoint, *recu.tiny) == 2
    assert "file.pth.tar is damaged" in recu.error()


@pytest.mark.slow
def test_the_authors_checkpoint_gives_the_authors_numbers(recu, shared_data):
    """About a minute, most of it for decoding 60,000 JPEGs."""
    file = shared_data / "authors-format-resnet20-10ep.pth.tar"
    words = [
        "--model",
        "resnet20_1w1a",
        "--dataset",
        "cifar10-jpeg",
        "--data_path",
        shared_data / "cifar10-jpeg.tar.gz",
    ]
    assert recu("evaluate", "-e", file, *words, *recu.places, "--output", "out.json") == 0, recu.err
    found = json.loads((recu.folder / "out.json").read_text())
    assert (found["n"], round(found["top1"], 2), round(found["top5"], 2)) == (10000, 61.69, 96.44)
    assert found["loss"] == pytest.approx(1.0707, abs=1e-4)
    # The same file as a row of a suite of released files, on what was just prepared.
    data = load_datasets(recu.project / "params")["cifar10-jpeg"].identity()
    text = released_json(recu, file, dataset="cifar10-jpeg", data=data, claimed_top1=61.69, claimed_on="cifar10-jpeg")
    assert publish(recu, text) == 0, recu.err
    assert recu("evaluate", "--experiment", text, "--tracking_uri", "", *recu.places) == 0, recu.err
    evaluated, published = (recu.json(f"results/{stage}/files/one/metrics.json") for stage in ("evaluate", "train"))
    other = ("provenance", "load", "checkpoint")
    assert {name: value for name, value in found.items() if name not in other}.items() <= evaluated.items()
    assert published["load"] == found["load"] and found["load"]["taken"] == found["load"]["expected"] == 157


def publish(recu, text: str) -> int:
    return recu("publish", "--params_dir", recu.project / "params", "--released", text)


def released_json(recu, checkpoint, **changes) -> str:
    values = {
        "suite": "files",
        "name": "one",
        "path": str(checkpoint),
        "sha256": hash_file(checkpoint) if Path(checkpoint).exists() else None,
        "obtain": None,
        "model": "resnet20_1w1a",
        "family": "cifar",
        "stage": 2,
        "dataset": "tiny",
        "data": load_datasets(recu.project / "params")["tiny"].identity(),
        "method": "vanilla",
        "claimed_top1": 20.0,
        "claimed_on": None,
        "loader": "auto",
        "recipe_version": 1,
    }
    return Released(**(values | changes)).canonical


def test_a_released_file_of_the_workflow(recu, checkpoint):
    text = released_json(recu, checkpoint)
    words = ["evaluate", "--tracking_uri", "", *recu.places, "--experiment", text]
    assert recu("evaluate", "-e", checkpoint, "--output", "file.json", *recu.tiny) == 0, recu.err
    assert recu(*words) == 2 and "results/train/files/one/metrics.json: make it again" in recu.error().replace(
        "cannot read results/train/files/one/metrics.json: No such file or directory",
        "results/train/files/one/metrics.json",
    )
    assert publish(recu, text) == 0, recu.err
    assert recu(*words, "--batch_size_test", 7) == 0, recu.err
    assert "claimed 20.00 %: top-1" in recu.err
    found, same = recu.json("results/evaluate/files/one/metrics.json"), recu.json("file.json")
    published = recu.json("results/train/files/one/metrics.json")
    assert published["load"] == same.pop("load") and published["released"]["claimed_top1"] == 20
    assert found["settings"]["batch_size_test"] == 7
    for name in ("provenance", "checkpoint", "settings"):  # when, of which name, and how
        del same[name]
    assert found["loss"] == pytest.approx(same.pop("loss"), rel=1e-5)
    assert {name: found[name] for name in same} == same


def test_what_a_released_file_needs_and_fixes_is_said(recu, checkpoint):
    assert recu("prepare", "tiny", "--source", recu.project / "images", "--params_dir", recu.project / "params") == 0
    words = ["evaluate", "--tracking_uri", "", *recu.places, "--experiment"]
    text = released_json(recu, checkpoint)
    for more, message in (
        ([text, "--output", "o.json"], "--output goes with --evaluate FILE"),
        ([text, "--model", "x"], "--experiment fixes every parameter: leave out --model"),
        ([text, "--data_path", "x"], "--experiment fixes every parameter: leave out --data_path"),
        ([text, "--overwrite"], "--output goes with --evaluate FILE"),
        ([text, "--batch_size_test", "0"], "batch_size_test"),
        ([text, "-e", "x"], "--evaluate and --experiment both name what to evaluate"),
        (["{"], "--experiment: "),
    ):
        assert recu(*words, *more) == 2
        assert message in recu.error()
    for wrong, message in (
        ("{", "--released: "),
        (released_json(recu, checkpoint, data={"kind": "digits"}), "dataset tiny has other settings in params/"),
        (
            released_json(recu, "gone.pth.tar", obtain="ask"),
            "released file gone.pth.tar is not here: ask; put it there",
        ),
        (released_json(recu, checkpoint, sha256="0" * 64), "is not the one that was planned (SHA-256 "),
    ):
        assert publish(recu, wrong) == 2
        assert message in recu.error()
    assert not (recu.folder / "o.json").exists() and not (recu.folder / "results/train").exists()
