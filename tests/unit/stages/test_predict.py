"""A trained network in a person's hands: the right class under its right name, or none."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import recu
from recu.base.errors import CheckpointError, ConfigError, DataError, ResultError
from recu.base.files import canonical_json, hash_text
from recu.experiment import paths
from recu.experiment.own import own_hash
from recu.experiment.params import load_datasets
from recu.experiment.resolving import network_sources
from recu.models import build_model
from recu.stages.publish import publish_released
from tests.unit.stages.test_publish import make_released
from tests.unit.training.ours import DATASET, experiment, our_checkpoint

NAMES = [f"class{number}" for number in range(6)]


@pytest.fixture
def images(tiny_project) -> list[Path]:
    return sorted((tiny_project / "images/test").glob("*/*.png"))


def saved(folder: Path, of=None, network=None, **ours) -> Path:
    torch.manual_seed(0)
    torch.save(our_checkpoint(of or experiment(), network, **ours), folder / "file.pth.tar")
    return folder / "file.pth.tar"


def test_guesses_give_the_accuracy_that_the_training_measured_however_the_run_is_named(project, images):
    trained = project.experiment()
    record = project.train(trained)
    folder, found = paths.train_folder(project.results, trained.id), []
    for source in (trained.id, folder, str(folder / paths.BEST_CHECKPOINT), project.state(trained)):
        classifier = recu.load(source, results_dir=project.results)
        found.append(list(classifier.predict_all(images, 6)))
    assert all(each == found[0] for each in found) and classifier.classes == tuple(NAMES)
    right = sum(top[0].name == image.parent.name for image, top in zip(images, found[0], strict=True))
    assert 100 * right / len(images) == pytest.approx(record["best"]["top1"])
    for top in found[0]:
        assert sorted(guess.name for guess in top) == NAMES and [NAMES[guess.label] for guess in top] == [
            guess.name for guess in top
        ]
        chances = [guess.probability for guess in top]
        assert chances == sorted(chances, reverse=True) and sum(chances) == pytest.approx(1)


def test_one_image_is_a_file_or_what_pillow_opened(tmp_path, images):
    classifier = recu.load(saved(tmp_path, classes=NAMES))
    file, opened = (classifier.predict(each, top=2) for each in (str(images[0]), Image.open(images[0])))
    assert file == opened and len(file) == 2 and str(file[0]) == f"{file[0].name} {100 * file[0].probability:.2f} %"
    assert len(classifier.predict(images[0])) == 5 and len(classifier.predict(images[0], top=100)) == 6
    with pytest.raises(ConfigError, match="top is 0"):
        classifier.predict(images[0], top=0)


def test_a_file_that_names_no_classes_gives_their_numbers_and_says_so(tmp_path, images, caplog):
    named = recu.load(saved(tmp_path, classes=NAMES)).predict(images[0])
    assert not caplog.messages
    numbers = recu.load(saved(tmp_path)).predict(images[0])
    assert "does not name its classes" in caplog.text
    assert [guess.label for guess in numbers] == [guess.label for guess in named]
    assert {guess.name for guess in numbers} == {None} and str(numbers[0]).startswith(f"{numbers[0].label} ")


def test_classes_that_do_not_match_the_head_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"contradicts itself: .* or classes"):
        recu.load(saved(tmp_path, classes=NAMES[:5]))
    five = build_model("resnet20_1w1a", family="cifar", num_classes=5)
    with pytest.raises(CheckpointError, match="has 5 classes, expected 6"):
        recu.load(saved(tmp_path, network=five, classes=NAMES))


def test_a_foreign_file_needs_a_dataset_that_says_how_images_are_seen(tmp_path, tiny_project, images):
    torch.manual_seed(0)
    weights = build_model("resnet20_1w1a", family="cifar", num_classes=6).state_dict()
    torch.save({"state_dict": weights}, tmp_path / "theirs.pth")
    with pytest.raises(ConfigError, match=r"--dataset is missing: .* does not say how its training saw images"):
        recu.load(tmp_path / "theirs.pth", model="resnet20_1w1a")
    places = {"params_dir": tiny_project / "params", "dataset": "tiny"}
    with pytest.raises(ConfigError, match="--model is missing"):
        recu.load(tmp_path / "theirs.pth", **places)
    found = recu.load(tmp_path / "theirs.pth", model="resnet20_1w1a", **places).predict(images[0])
    assert {guess.name for guess in found} == {None}
    with pytest.raises(ConfigError, match="unknown dataset 'tiyn'; did you mean 'tiny'"):
        recu.load(tmp_path / "theirs.pth", **places | {"dataset": "tiyn"})


def test_what_contradicts_a_file_is_refused(tmp_path, tiny_project):
    file, places = saved(tmp_path, classes=NAMES), {"params_dir": tiny_project / "params"}
    assert recu.load(file, dataset="tiny", model="resnet20_1w1a", stage=2, **places).dataset == DATASET.model_copy(
        update={"title": "six", "test_view": "resize"}
    )
    for given in ({"dataset": "cifar10"}, {"model": "resnet18_1w1a"}, {"stage": 1}):
        with pytest.raises(CheckpointError, match=f"{file} .* but "):
            recu.load(file, **given, **places)


def test_an_older_file_that_does_not_say_its_test_view_needs_a_dataset_of_the_same_images(tmp_path, tiny_project):
    planned = json.loads(experiment().canonical)
    del planned["data"]["test_view"]
    text = canonical_json(planned)
    file = saved(tmp_path, experiment=text, spec_hash=hash_text(text), classes=NAMES)
    with pytest.raises(ConfigError, match=r"--dataset is missing: .* test view"):
        recu.load(file)
    params = tmp_path / "params"
    params.mkdir()
    for size in (8, 16):
        text = (tiny_project / "params/datasets.yaml").read_text()
        (params / "datasets.yaml").write_text(text.replace("image_size: 8\n", f"image_size: {size}\n"))
        if size == 8:
            assert recu.load(file, dataset="tiny", params_dir=params).classes == tuple(NAMES)
        else:
            with pytest.raises(CheckpointError, match="image_size 8, but dataset tiny would have image_size 16"):
                recu.load(file, dataset="tiny", params_dir=params)


def test_a_network_of_ones_own_is_not_taken_as_other_code_than_was_trained(tmp_path, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = tmp_path / "own_loaded.py"
    code.write_text("from recu.binarisers.sign import SignConv2d as Own\n")
    trained = experiment(binariser="own_loaded:Own")
    network = build_model("resnet20_1w1a", family="cifar", num_classes=6, binariser="own_loaded:Own")
    now = own_hash(network_sources("resnet20_1w1a", "own_loaded:Own"))
    file = saved(tmp_path, trained, network, classes=NAMES, network_code=now)
    guess = recu.load(file).predict(images[0])
    file = saved(tmp_path, trained, network, classes=NAMES, network_code="0" * 64)
    with pytest.raises(
        CheckpointError, match=r"was trained with other code than own_loaded.py now .* put the code back"
    ):
        recu.load(file)
    assert recu.load(file, changed_code=True).predict(images[0]) == guess
    # A file of an earlier version does not say which code it was.
    assert recu.load(saved(tmp_path, trained, network, classes=NAMES)).predict(images[0]) == guess


def test_a_published_training_whose_checkpoint_is_another_is_refused(project):
    trained = project.experiment()
    project.train(trained)
    folder = paths.train_folder(project.results, trained.id)
    (folder / paths.BEST_CHECKPOINT).unlink()
    saved(folder).rename(folder / paths.BEST_CHECKPOINT)
    with pytest.raises(ResultError, match=r"is not the checkpoint that metrics.json beside it names"):
        recu.load(trained.id, results_dir=project.results)
    (folder / paths.BEST_CHECKPOINT).unlink()
    (folder / paths.METRICS).unlink()
    with pytest.raises(CheckpointError, match=r"holds no model_best\.pth\.tar: give a checkpoint file"):
        recu.load(folder)


def test_a_published_released_file_says_what_it_is(tmp_path, tiny_project, images):
    torch.manual_seed(0)
    weights = build_model("resnet20_1w1a", family="cifar", num_classes=6).state_dict()
    torch.save({"state_dict": weights}, tmp_path / "theirs.pth")
    dataset = load_datasets(tiny_project / "params")["tiny"]
    released = make_released(tmp_path / "theirs.pth", dataset)
    publish_released(released, dataset=dataset, results_dir=tmp_path / "results")
    places = {"results_dir": tmp_path / "results"}
    classifier = recu.load(released.id, **places)
    assert classifier.dataset.seen_as == "resize" and classifier.predict(images[0])[0].name is None
    with pytest.raises(ConfigError, match="is the released file files/one, which says what it is"):
        recu.load(released.id, stage=2, **places)


@pytest.mark.parametrize("content", [None, b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(20)])
def test_an_image_that_cannot_be_read_is_named(tmp_path, images, content):
    broken = tmp_path / "broken.png"
    if content is not None:
        broken.write_bytes(content)
    guesses = recu.load(saved(tmp_path, classes=NAMES)).predict_all([images[0], broken])
    with pytest.raises(DataError, match=r"broken\.png"):
        list(guesses)


def test_the_form_without_kernels_guesses_the_same(tmp_path, images):
    file = saved(tmp_path, classes=NAMES)
    fast, plain = (recu.load(file, kernels=kernels).predict(images[3]) for kernels in ("auto", "off"))
    assert [guess.label for guess in fast] == [guess.label for guess in plain]
    assert [guess.probability for guess in fast] == pytest.approx([guess.probability for guess in plain], abs=1e-4)
