"""`recu evaluate -e FILE`."""

import json

import pytest
import torch

from recu.models import build_model
from recu.params import load_datasets
from recu.released import Released, file_state


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = build_model("resnet20_1w1a", family="cifar", num_classes=6)
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, tmp_path / "file.pth.tar")
    return tmp_path / "file.pth.tar"


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
    assert set(recu.json("out.json")) == {"top1", "top5", "loss", "n"}


def test_batch_size_changes_nothing(recu, checkpoint):
    for size in (1, 7, 100):
        assert recu("evaluate", "-e", checkpoint, "-bt", size, "--output", f"{size}.json", *recu.tiny) == 0
    first, second, third = (recu.json(f"{size}.json") for size in (1, 7, 100))
    assert first["n"] == second["n"] == third["n"] == 18
    assert first == pytest.approx(second, rel=1e-5) and second == pytest.approx(third, rel=1e-5)


def test_another_architecture_is_one_line(recu, checkpoint):
    words = [word if word != "resnet20_1w1a" else "resnet18_1w1a" for word in recu.tiny]
    assert recu("evaluate", "-e", checkpoint, *words) == 2
    assert "does not fit the network" in recu.error() and "check model, family" in recu.error()


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
    words = ["--released", text, "--tracking_uri", "", *recu.places, "--output", "released.json"]
    assert recu("evaluate", *words) == 0, recu.err
    released = recu.json("released.json")
    assert {name: released[name] for name in found} == found and released["variant"] is None
    assert released["load"]["taken"] == released["load"]["expected"] == 157


def released_json(recu, checkpoint, **changes) -> str:
    values = {
        "suite": "files",
        "name": "one",
        "path": str(checkpoint),
        "file_state": file_state(checkpoint),
        "obtain": None,
        "model": "resnet20_1w1a",
        "family": "cifar",
        "stage": 2,
        "dataset": "tiny",
        "data": load_datasets(recu.project / "params")["tiny"].identity(),
        "method": "vanilla",
        "claimed_top1": 20.0,
        "claimed_on": None,
        "batch_size_test": 128,
        "loader": "auto",
        "recipe_version": 1,
    }
    return Released(**(values | changes)).canonical


def test_a_released_file_of_the_workflow(recu, checkpoint):
    words = ["evaluate", "--tracking_uri", "", *recu.places, "--released"]
    assert recu("evaluate", "-e", checkpoint, "--output", "file.json", *recu.tiny) == 0, recu.err
    assert recu(*words, released_json(recu, checkpoint), "--output", "out.json") == 0, recu.err
    assert "claimed 20.00 %: top-1" in recu.err
    found, same = recu.json("out.json"), recu.json("file.json")
    assert {name: found[name] for name in same} == same and found["claimed_top1"] == 20
    assert recu(*words, released_json(recu, checkpoint), "--output", "out.json") == 2
    assert "out.json exists" in recu.error()


def test_what_a_released_file_needs_and_fixes_is_said(recu, checkpoint):
    assert recu("prepare", "tiny", "--source", recu.project / "images", "--params_dir", recu.project / "params") == 0
    words = ["evaluate", "--tracking_uri", "", *recu.places]
    text = released_json(recu, checkpoint)
    for more, message in (
        (["--released", text], "--released needs --output"),
        (
            ["--released", text, "--model", "x", "--output", "o.json"],
            "--released fixes every parameter: leave out --model",
        ),
        (["--released", text, "-e", "x"], "--evaluate and --released both name what to evaluate"),
        (["--released", "{", "--output", "o.json"], "--released: "),
        (
            ["--released", released_json(recu, checkpoint, data={"kind": "digits"}), "--output", "o.json"],
            "dataset tiny has other settings in params/datasets.yaml",
        ),
        (
            ["--released", released_json(recu, "gone.pth.tar", obtain="ask"), "--output", "o.json"],
            "released file gone.pth.tar is not here: ask; put it there",
        ),
    ):
        assert recu(*words, *more) == 2
        assert message in recu.error()
    assert not (recu.folder / "o.json").exists()
