import json
import os
import shutil

import pytest

from recu.base.errors import ConfigError
from recu.base.files import hash_file
from recu.experiment.params import load_datasets, load_defaults, load_published, validate_model
from recu.experiment.paths import METRICS, PARAMS_DIR, train_folder
from recu.experiment.released import file_state, load_released, parse_planned, parse_released, resolve_files
from recu.experiment.resolving import load_experiments, parse_experiment
from recu.experiment.schema import ReleasedSuite

FILE = {
    "name": "one",
    "path": "one.pth.tar",
    "model": "resnet20_1w1a",
    "method": "vanilla",
    "claimed_top1": 90,
    "obtain": "ask",
}


def resolve(tmp_path, defaults=None, **changes):
    data = {"title": "T", "description": "D", "dataset": "cifar10", "files": [FILE | changes]}
    suite = validate_model(data, ReleasedSuite, "test")
    defaults = defaults or load_defaults(PARAMS_DIR)
    found = resolve_files("mine", suite, defaults, load_datasets(PARAMS_DIR), tmp_path / "results")
    return found[0]


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_everything_left_out_is_filled_in(tmp_path):
    found = resolve(tmp_path)
    assert (found.id, found.family, found.stage, found.dataset) == ("mine/one", "cifar", None, "cifar10")
    usual = load_defaults(PARAMS_DIR).hyperparameters.batch_size_test
    assert found.measured_with == (usual, "auto") and resolve(tmp_path, batch_size_test=7).measured_with == (7, "auto")
    assert parse_released(found.canonical).model_copy(update={"batch_size_test": usual}) == found
    assert parse_planned(found.canonical) == parse_released(found.canonical)
    (first, *_) = load_experiments(PARAMS_DIR, ("demo",)).values()
    assert parse_planned(first.canonical) == parse_experiment(first.canonical)
    assert resolve(tmp_path, dataset="imagenet", model="resnet34_1w1a").family == "imagenet"
    assert resolve(tmp_path, family="reactnet", model="resnet18_1w1a", stage=1).stage == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet21_1w1a"}, "did you mean 'resnet20_1w1a'"),
        ({"dataset": "cifra10"}, "unknown dataset of one 'cifra10'; did you mean 'cifar10'"),
        ({"claimed_on": "cifra10"}, "did you mean 'cifar10'"),
        ({"family": "torchvision", "model": "resnet18", "stage": 2}, "no stage 2"),
        ({"dataset": "imagenet", "family": "cifar", "model": "vgg_small_1w1a"}, "takes images of 32 to 39 pixels"),
    ],
)
def test_names_that_are_not_defined_are_named_with_the_file(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(tmp_path, **changes)
    assert str(caught.value).startswith("params/suites/mine.yaml: ")


def test_another_file_in_its_place_is_another_measurement(tmp_path):
    missing = resolve(tmp_path)
    assert missing.sha256 is None and missing.obtain == "ask"
    file = tmp_path / "one.pth.tar"
    file.write_bytes(b"first")
    first = resolve(tmp_path)
    assert first.obtain is None and first.spec_hash != missing.spec_hash
    assert resolve(tmp_path, obtain="reworded").spec_hash == first.spec_hash
    stamp = file.stat().st_mtime_ns
    os.utime(file, ns=(0, stamp + 1))
    assert resolve(tmp_path).spec_hash == first.spec_hash, "it is the same file at another time"
    file.write_bytes(b"other size")
    os.utime(file, ns=(stamp, stamp))
    assert resolve(tmp_path).spec_hash != first.spec_hash


def test_a_file_of_the_same_size_and_time_in_its_place_is_another_measurement(tmp_path):
    file = tmp_path / "one.pth.tar"
    for content in (b"first", b"other"):
        (tmp_path / "new").write_bytes(content)
        os.utime(tmp_path / "new", ns=(0, 0))
        (tmp_path / "new").replace(file)
        if content == b"first":
            first = resolve(tmp_path)
    assert file.stat().st_mtime_ns == 0 and resolve(tmp_path).spec_hash != first.spec_hash


def publish(tmp_path, released, file) -> str:
    """As far as planning reads it; returns how the file looks."""
    metrics, state = train_folder(tmp_path / "results", released.id) / METRICS, file_state(file)
    metrics.parent.mkdir(parents=True)
    content = {"released": json.loads(released.canonical), "checkpoint_sha256": hash_file(file), "file_state": state}
    metrics.write_text(json.dumps(content))
    return state


def test_a_file_that_looks_as_it_did_is_not_read_again(tmp_path, monkeypatch):
    file = tmp_path / "one.pth.tar"
    file.write_bytes(b"weights")
    found = resolve(tmp_path)
    publish(tmp_path, found, file)
    monkeypatch.setattr("recu.experiment.released.hash_file", None)
    assert resolve(tmp_path) == found


def test_neutral_settings_are_in_no_hash(tmp_path):
    (tmp_path / "one.pth.tar").write_bytes(b"weights")
    assert resolve(tmp_path, batch_size_test=7).spec_hash == resolve(tmp_path).spec_hash
    assert resolve(tmp_path, claimed_top1=91).spec_hash != resolve(tmp_path).spec_hash
    named = load_defaults(PARAMS_DIR)
    named = named.model_copy(update={"hyperparameters": named.hyperparameters.model_copy(update={"loader": "memory"})})
    assert resolve(tmp_path, named).spec_hash == resolve(tmp_path).spec_hash, "auto takes the same"


def test_the_result_of_a_file_that_was_copied_stays_good(tmp_path):
    file = tmp_path / "one.pth.tar"
    file.write_bytes(b"weights")
    found = resolve(tmp_path)
    before = publish(tmp_path, found, file)
    shutil.copy2(file, tmp_path / "copy")
    (tmp_path / "copy").replace(file)
    assert file_state(file) != before and resolve(tmp_path) == found
    file.write_bytes(b"wEights")
    assert resolve(tmp_path) != found


def test_the_result_of_a_file_that_is_gone_stays_good(tmp_path):
    file = tmp_path / "one.pth.tar"
    file.write_bytes(b"content")
    found = resolve(tmp_path)
    publish(tmp_path, found, file)
    file.unlink()
    assert resolve(tmp_path) == found
    assert resolve(tmp_path, path="two.pth.tar").sha256 is None
    (train_folder(tmp_path / "results", found.id) / METRICS).write_text("{")
    assert resolve(tmp_path).sha256 is None


def test_the_shipped_claims_are_the_published_numbers(tmp_path):
    datasets = load_datasets(PARAMS_DIR)
    results = [each for each in load_published(PARAMS_DIR).results if each.row is None]
    published = {(each.dataset, each.model, each.method): each.top1 for each in results}
    released = load_released(PARAMS_DIR, ("released",), tmp_path)
    claims = {
        (datasets[each.dataset].published_as, each.model, each.method): each.claimed_top1 for each in released.values()
    }
    assert claims == {key: top1 for key, top1 in published.items() if key[2] in ("vanilla", "finetune")}


def test_suites_of_both_kinds_share_a_call(tmp_path):
    suites = ("demo", "released")
    assert {each.suite for each in load_experiments(PARAMS_DIR, suites).values()} == {"demo"}
    assert {each.suite for each in load_released(PARAMS_DIR, suites, tmp_path).values()} == {"released"}
