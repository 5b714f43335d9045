"""What our files say of themselves."""

import json

import pytest
import torch

from recu.base.errors import CheckpointError
from recu.base.files import hash_text
from recu.training.checkpoint_identity import check_agrees, check_classes, check_data, describe_checkpoint, identity_of
from tests.unit.training.ours import DATASET, experiment, our_checkpoint


@pytest.fixture(scope="module")
def checkpoint():
    return our_checkpoint(experiment(variant="2021-03", stage=1, seed=7))


def identity(checkpoint):
    return identity_of(checkpoint, "file.pth.tar")


def test_a_file_of_ours_says_what_it_is(checkpoint, tmp_path):
    torch.save(checkpoint, tmp_path / "file.pth.tar")
    found = describe_checkpoint(tmp_path / "file.pth.tar")
    assert (found.model, found.family, found.variant, found.stage) == ("resnet20_1w1a", "cifar", "2021-03", 1)
    assert (found.dataset, found.num_classes, found.image_size, found.seed) == ("six", 6, 8, 7)
    assert (found.mean, found.std) == (DATASET.mean, DATASET.std)
    assert found.network == "cifar-2021-03.resnet20_1w1a"


def test_a_foreign_file_says_nothing(tmp_path):
    torch.save({"state_dict": {"weight": torch.ones(1)}}, tmp_path / "file.pth.tar")
    assert describe_checkpoint(tmp_path / "file.pth.tar") is None


def test_files_of_other_versions_say_it_too(checkpoint):
    text = json.loads(checkpoint["recu"]["experiment"])
    text["new"] = text["hyperparameters"]["new"] = text["data"]["new"] = 1
    del text["recipe_version"], text["hyperparameters"]["compile"]
    other = {"experiment": json.dumps(text), "spec_hash": hash_text(json.dumps(text))}
    assert identity(checkpoint | {"recu": checkpoint["recu"] | other}).stage == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experiment": None}, "experiment of its part 'recu'"),
        ({"experiment": "{"}, "experiment of its part 'recu'"),
        ({"experiment": "{}"}, "model of its part 'recu'"),
        ({"seed": "one"}, "seed of its part 'recu'"),
        ({"seed": 8}, "contradicts itself"),
        ({"spec_hash": "0" * 16}, "contradicts itself"),
        ({"data_fingerprint": 3}, "data_fingerprint of its part 'recu'"),
    ],
)
def test_what_says_something_else_is_refused(checkpoint, change, message):
    with pytest.raises(CheckpointError, match=message) as raised:
        identity(checkpoint | {"recu": checkpoint["recu"] | change})
    assert str(raised.value).startswith("file.pth.tar") and "\n" not in str(raised.value)


def test_another_model_than_that_of_its_experiment(checkpoint):
    with pytest.raises(CheckpointError, match="contradicts itself"):
        identity(checkpoint | {"model": "resnet18_1w1a"})


def test_what_is_asked_for_must_agree_and_both_values_are_named(checkpoint):
    found = identity(checkpoint)
    check_agrees(found, "f", {"stage": 1, "variant": "2021-03"}, by="the options")
    message = "f says that it has stage 1, variant 2021-03, but the options would have stage 2, variant none"
    with pytest.raises(CheckpointError, match=message):
        check_agrees(found, "f", {"model": "resnet20_1w1a", "stage": 2, "variant": None}, by="the options")


def test_another_dataset_must_have_the_classes_and_the_normalisation(checkpoint):
    found = identity(checkpoint)
    check_data(found, "f", "six", DATASET)
    check_data(found, "f", "other", DATASET.model_copy(update={"image_size": 16, "augmentation": "none"}))
    with pytest.raises(CheckpointError, match=r"with num_classes 6, but dataset other .* has num_classes 10"):
        check_data(found, "f", "other", DATASET.model_copy(update={"num_classes": 10}))
    with pytest.raises(CheckpointError, match=r"mean \(0.5, 0.5, 0.5\), but .* mean \(0.4, 0.5, 0.5\)"):
        check_data(found, "f", "other", DATASET.model_copy(update={"mean": (0.4, 0.5, 0.5)}))


def test_its_own_dataset_must_be_as_it_was(checkpoint):
    with pytest.raises(CheckpointError, match=r"image_size 8, but dataset six .* has image_size 16"):
        check_data(identity(checkpoint), "f", "six", DATASET.model_copy(update={"image_size": 16}))


def test_labels_that_stand_for_other_classes_are_refused(checkpoint):
    """Label order follows the folders' names, so another spelling of one class moves every label."""
    names = ["b", "c", "d", "e", "f", "g"]
    ours = identity(checkpoint | {"recu": checkpoint["recu"] | {"classes": names}})
    check_classes(ours, "file.pth.tar", tuple(names))
    message = "file.pth.tar was trained with class 'b' as label 0, which is 'G' in the data: take data whose classes"
    with pytest.raises(CheckpointError, match=message):
        check_classes(ours, "file.pth.tar", ("G", *names[:-1]))
    with pytest.raises(CheckpointError, match="classes are not those of the experiment"):
        identity(checkpoint | {"recu": checkpoint["recu"] | {"classes": names[1:]}})


def test_older_files_that_do_not_name_their_classes_are_measured(checkpoint):
    check_classes(identity(checkpoint), "file.pth.tar", ("one", "two", "three", "four", "five", "six"))
