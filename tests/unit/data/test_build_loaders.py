from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from recu.base.errors import ConfigError, DataError
from recu.data import build_loaders, open_prepared, prepare
from recu.data.load.transforms import evaluation_view
from recu.experiment.augmentations import Augmentation
from recu.experiment.params import load_datasets
from recu.experiment.paths import PARAMS_DIR

from .builders import cifar10_files, class_tree, dataset, write_folder, write_tar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    archive = write_tar(tmp_path / "x.tar", class_tree(per_class={"train": 5, "test": 3}))
    prepare("mini", dataset(), folder=tmp_path / "mini", source=archive, workers=0)
    return tmp_path / "mini"


def build(folder: Path, entry=None, **changes):
    arguments = {"batch_size": 4, "batch_size_test": 4, "loader": "auto", "seed": 1, "device": "cpu", "workers": 0}
    return build_loaders(open_prepared(folder, entry or dataset()), entry or dataset(), **{**arguments, **changes})


def test_both_splits_are_served(folder: Path):
    loaders = build(folder)
    assert (loaders.train.num_images, loaders.test.num_images) == (10, 6)
    assert [len(labels) for _, labels in loaders.train.batches(0)] == [4, 4, 2]
    assert loaders.manifest.classes == ("ant", "bee")


def test_test_images_are_the_stored_ones_normalised(folder: Path):
    images = torch.cat([images for images, _ in build(folder).test.batches(0)])
    stored = torch.from_numpy(np.load(folder / "test_images.npy")).permute(0, 3, 1, 2) / 255
    entry = dataset()
    expected = (stored - torch.tensor(entry.mean).view(3, 1, 1)) / torch.tensor(entry.std).view(3, 1, 1)
    assert torch.allclose(images, expected, atol=1e-6)


def test_augmentation_of_the_entry_is_used(tmp_path: Path, folder: Path):
    plain = dataset(augmentation="none")
    archive = tmp_path / "x.tar"
    prepare("plain", plain, folder=tmp_path / "plain", source=archive, workers=0)
    stored = torch.cat([images for images, _ in build(tmp_path / "plain", plain).train.batches(0)])
    augmented = torch.cat([images for images, _ in build(folder).train.batches(0)])
    assert stored.shape == augmented.shape and not torch.equal(stored, augmented)


def test_batches_do_not_change_the_prepared_file(folder: Path):
    before = (folder / "train_images.npy").read_bytes()
    for images, labels in build(folder).train.batches(0):
        images.zero_()
        labels.zero_()
    assert (folder / "train_images.npy").read_bytes() == before
    assert sum(labels.sum() for _, labels in build(folder).train.batches(0)) == 5


def test_data_of_other_settings_is_refused(folder: Path):
    with pytest.raises(DataError, match="other settings"):
        build(folder, dataset(mean=(0.1, 0.1, 0.1)))


def test_missing_data_says_to_prepare(tmp_path: Path):
    with pytest.raises(DataError, match=f"run `recu prepare {tmp_path.name}`"):
        build(tmp_path)


def test_a_last_batch_of_one_is_refused(folder: Path):
    with pytest.raises(ConfigError, match="leaves one of 10 training images"):
        build(folder, batch_size=3)


def test_an_unknown_loader_proposes_the_right_one(folder: Path):
    with pytest.raises(ConfigError, match="did you mean 'memory'"):
        build(folder, loader="memori")


def seen_in(loaders) -> torch.Tensor:
    return torch.cat([images for images, _ in loaders.test.batches(0)])


@pytest.mark.parametrize("augmentation", get_args(Augmentation))
def test_an_augmentation_of_training_never_changes_how_test_images_are_seen(folder: Path, augmentation: str):
    assert torch.allclose(seen_in(build(folder, augmentation=augmentation)), seen_in(build(folder)), rtol=0, atol=1e-6)


def test_another_test_view_is_other_data_and_shows_other_images(tmp_path: Path, folder: Path):
    centre = dataset(test_view="resize_centre")
    before = open_prepared(folder, dataset()).manifest
    stored = (folder / "test_images.npy").stat()
    prepare("mini", centre, folder=folder, source=tmp_path / "x.tar", workers=0)
    after = open_prepared(folder, centre).manifest
    assert after.fingerprint != before.fingerprint and after.content == before.content
    assert (folder / "test_images.npy").stat().st_ino == stored.st_ino
    seen = seen_in(build(folder, centre))
    whole = np.load(folder / "test_images.npy")[0]
    assert seen.shape[-1] == whole.shape[0]
    pixels = torch.from_numpy(whole).permute(2, 0, 1)
    cut = evaluation_view(pixels, "resize_centre", whole.shape[0])
    again = (cut / 255 - torch.tensor(centre.mean).view(3, 1, 1)) / torch.tensor(centre.std).view(3, 1, 1)
    assert torch.allclose(seen[0], again, atol=1e-6) and not torch.equal(cut, pixels)
    with pytest.raises(ConfigError, match=r"'memory' cannot serve .*test view 'resize_centre'"):
        build(folder, centre, loader="memory")


def test_the_test_split_alone_needs_no_training_images(folder: Path):
    expected = seen_in(build(folder))
    (folder / "train_images.npy").unlink()
    loaders = build(folder, splits=("test",))
    assert loaders.train is None and torch.equal(seen_in(loaders), expected)


def test_images_stored_in_their_own_size_are_enlarged_to_the_networks(tmp_path: Path):
    entry = load_datasets(PARAMS_DIR)["cifar10"].model_copy(
        update={"image_size": 48, "train_images": 20, "test_images": 4, "archives": ()}
    )
    source = write_folder(tmp_path / "source", cifar10_files())
    prepared = prepare("cifar10", entry, folder=tmp_path / "cifar10", source=source, workers=0)
    loaders = build(tmp_path / "cifar10", entry, workers=0)
    assert prepared.manifest.stored_size == 32
    assert next(loaders.test.batches(0))[0].shape[1:] == next(loaders.train.batches(0))[0].shape[1:] == (3, 48, 48)
