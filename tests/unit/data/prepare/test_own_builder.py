"""What a builder of one's own stored is what its dataset's readers will take it for, or is refused in one line."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recu.base.errors import ConfigError
from recu.data import Prepared
from recu.data.opening import open_arrays
from recu.data.prepare import preparation
from recu.data.prepare.preparation import prepare
from tests.unit.data.builders import (
    cifar10_files,
    cifar100_files,
    class_tree,
    dataset,
    large_dataset,
    tinyimagenet_files,
    write_folder,
    write_imagenet,
)

BUILDER = """
import numpy as np
from recu.data.prepare.content import Content, store_arrays, stored_arrays
def build(request, out):
    side = request.dataset.image_size
    images = np.random.default_rng(0).integers(0, 256, (10, side, side, 3), dtype=np.uint8)
    train, test = images[:6], images[6:]
    of_train, of_test = np.arange(6) % 2, np.arange(4) % 2
    names = ("a", "b")
    {change}
    return store_arrays(names, {{"train": (train, of_train), "test": (test, of_test)}}, out)
"""
NUMBERS = itertools.count()


@pytest.fixture
def built(tmp_path: Path, monkeypatch) -> Callable[..., Prepared]:
    """Prepares ten images by a builder with one line of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "source").touch()

    def build(change: str = "pass", below: str = "", **entry) -> Prepared:
        name = f"own_builder_{next(NUMBERS)}"  # Python imports a name once
        (tmp_path / f"{name}.py").write_text(BUILDER.format(change=change) + below)
        kind = dataset(kind=f"{name}:build", **entry)
        return prepare("own", kind, folder=tmp_path / "own", source=tmp_path / "source", workers=0)

    return build


@pytest.mark.parametrize("change", ["pass", "of_test = of_test.astype('uint8')", "train = np.asfortranarray(train)"])
def test_what_readers_can_use_is_stored(built, change: str):
    prepared = built(change)
    assert prepared.manifest.splits == {"train": 6, "test": 4} and prepared.manifest.stored_size == 8
    assert open_arrays(prepared, "test").labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train = train[:, ::2, ::2]", r"train images as uint8 \(6, 4, 4, 3\), expected uint8 \(6, 8, 8, 3\)"),
        ("test = test / 255", r"test images as float64 \(4, 8, 8, 3\), expected uint8 \(4, 8, 8, 3\), grey levels"),
        ("test = test.transpose(0, 3, 1, 2)", r"test images as uint8 \(4, 3, 8, 8\), expected uint8 \(4, 8, 8, 3\)"),
        ("test = test.reshape(-1)", r"test images as uint8 \(768,\), expected uint8 \(4, 8, 8, 3\)"),
        ("train = train[1:]", r"train images as uint8 \(5, 8, 8, 3\), expected uint8 \(6, 8, 8, 3\)"),
        ("of_train = of_train + 1", r"train labels from 1 to 2, expected 0 to 1"),
        ("of_test = of_test - 1", r"test labels from -1 to 0, expected 0 to 1"),
        ("of_test = of_test / 1", r"test labels as float64 \(4,\), expected int64 \(4,\)"),
        ("of_test = np.eye(2, dtype=int)[of_test]", r"test labels as int64 \(4, 2\), expected int64 \(4,\), one for"),
        ("test, of_test = test[:0], of_test[:0]", "no test images, expected one or more"),
        ("return store_arrays(names, {'test': (test, of_test)}, out)", "stores test images, expected train and test"),
        ("return store_arrays(names, {}, out)", "stores no images, expected train and test"),
        ("names = [0, 1]", r"gives classes \[0, 1\], expected a tuple of their names as text"),
        ("return None", "gives a NoneType, expected what `store_arrays`, .* gives: return that"),
        ("return Content(names, {'train': 6, 'test': 4}, {}, 8)", "leaves no train_labels.npy that NumPy can read"),
    ],
)
def test_what_they_cannot_use_is_refused_in_one_line_that_names_the_builder(built, tmp_path, change, message):
    with pytest.raises(ConfigError, match=rf"dataset kind 'own_builder_\d+:build' .*{message}") as caught:
        built(change)
    assert "\n" not in str(caught.value) and not (tmp_path / "own").exists()


def test_arrays_where_files_are_expected_are_refused_unless_the_builder_says_so(built):
    with pytest.raises(ConfigError, match=r"keeps images as arrays, expected files .*: set the builder's `storage` to"):
        built(augmentation="resized_crop_lighting")
    assert built(below="build.storage = 'arrays'\n", augmentation="resized_crop_lighting").manifest.stored_size == 8
    with pytest.raises(ConfigError, match=r"images as uint8 \(6, 8, 8, 3\), expected uint8 \(6, 16, 16"):
        built(below="build.side = 16\n")


@pytest.mark.parametrize(
    ("kind", "files", "changes"),
    [
        ("digits", None, {"num_classes": 10}),
        ("digits", None, {"num_classes": 10, "augmentation": "resized_crop_lighting"}),
        ("cifar10", cifar10_files, {"num_classes": 10}),
        ("cifar100", cifar100_files, {"num_classes": 100}),
        ("cifar100", cifar100_files, {"num_classes": 100, "augmentation": "resized_crop_within_lighting"}),
        ("imagefolder", class_tree, {}),
        ("imagefolder", class_tree, {"augmentation": "resized_crop_lighting"}),
        ("tinyimagenet", tinyimagenet_files, {"num_classes": 3}),
    ],
)
def test_what_the_packages_builders_store_would_pass(tmp_path: Path, monkeypatch, kind: str, files, changes: dict):
    monkeypatch.setattr(preparation, "KINDS", {})
    source = None if files is None else write_folder(tmp_path / "source", files())
    source = source / "tiny-imagenet-200" if kind == "tinyimagenet" else source
    manifest = prepare("x", dataset(kind=kind, **changes), folder=tmp_path / "x", source=source, workers=0).manifest
    assert np.load(tmp_path / "x" / "test_labels.npy").shape == (manifest.splits["test"],)


def test_what_imagenets_builder_stores_would_pass(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(preparation, "KINDS", {})
    source = write_imagenet(tmp_path / "archives")
    assert prepare("im", large_dataset(), folder=tmp_path / "im", source=source, workers=0).manifest.stored_size is None
