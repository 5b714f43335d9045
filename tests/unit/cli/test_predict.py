"""`recu predict FILE IMAGE...`."""

import shutil

import pytest
import torch

from recu.models import build_model
from tests.unit.training.ours import experiment, our_checkpoint

NAMES = [f"class{number}" for number in range(5)] + ["a\x1b[2J"]


@pytest.fixture
def file(recu):
    torch.manual_seed(0)
    torch.save(our_checkpoint(experiment(), classes=NAMES), "ours.pth.tar")
    for number in range(40):
        shutil.copy(recu.project / "images/test/class1/0.png", f"{number}.png")
    return "ours.pth.tar"


def test_a_line_an_image_with_its_likeliest_classes(recu, file):
    assert recu("predict", file, "0.png", "1.png", "--output", "out.json") == 0, recu.err
    first, second = recu.out.splitlines()
    assert first.startswith("0.png: ") and first.count(" %") == 5 and second == first.replace("0.png", "1.png", 1)
    assert "images/s" not in recu.err, "no bar where nobody watches"
    found = recu.json("out.json")
    assert [each["image"] for each in found["images"]] == ["0.png", "1.png"]
    top = found["images"][0]["top"]
    assert first == f"0.png: {', '.join(line(each) for each in top)}"
    assert found["network"] == "cifar.resnet20_1w1a" and len(found["checkpoint_sha256"]) == 64


def line(guess: dict) -> str:
    return f"{guess['name']} {100 * guess['probability']:.2f} %".replace("\x1b", "\\x1b")


def test_any_number_of_images_and_of_classes(recu, file):
    images = [f"{number}.png" for number in range(40)]
    assert recu("predict", file, *images, "--top", 1) == 0, recu.err
    assert [each.partition(":")[0] for each in recu.out.splitlines()] == images and recu.out.count(" %") == 40


def test_a_foreign_file_says_that_classes_are_numbers(recu, file):
    weights = build_model("resnet20_1w1a", family="cifar", num_classes=6).state_dict()
    torch.save({"state_dict": weights}, "theirs.pth")
    assert recu("predict", "theirs.pth", "0.png") == 2
    assert "--dataset is missing: theirs.pth does not say how its training saw images" in recu.error()
    words = ["--dataset", "tiny", "--model", "resnet20_1w1a", "--params_dir", recu.project / "params"]
    assert recu("predict", "theirs.pth", "0.png", *words) == 0, recu.err
    assert "theirs.pth does not name its classes" in recu.err
    assert all(each.split()[0].isdigit() for each in recu.out.partition(": ")[2].split(", "))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ours.pth.tar"], "the following arguments are required: IMAGE"),
        (["ours.pth.tar", "0.png", "--top", "0"], "--top is 0, expected 1 to"),
        (["ours.pth.tar", "gone.png"], "cannot read gone.png: No such file"),
        (["ours.pth.tar", "."], "cannot read .: it is a folder"),
        (["ours.pth.tar", "0.png", "--gpus", "x"], "neither 'cpu' nor a device number"),
        (["gone.pth.tar", "0.png"], "gone.pth.tar is no file, no folder and no experiment with a result"),
        (["demo/digits/n/vanila/seed1", "0.png"], "a result; did you mean demo/digits/n/vanilla/seed1?"),
        ([".", "0.png"], "holds no model_best.pth.tar"),
        (["ours.pth.tar", "0.png", "--output", "0.png"], "0.png exists"),
    ],
)
def test_mistakes(recu, file, words, message):
    known = recu.folder / "results/train/demo/digits/n/vanilla/seed1"
    known.mkdir(parents=True)
    (known / "metrics.json").write_text("{}")
    assert recu("predict", *words) == 2
    assert message in recu.error()
