import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from PIL import Image

from recu.base.errors import ConfigError, DataError, StalledError
from recu.data import build_loaders, open_prepared, prepare
from recu.data.index import read_index
from recu.data.load import torchvision_loader
from recu.data.load.torchvision_loader import FileImages, TorchvisionLoader, View
from recu.experiment.augmentations import Augmentation
from tests.unit.data.builders import (
    dataset,
    large_dataset,
    prepared_as_it_is,
    tinyimagenet_files,
    write_imagenet,
    write_zip,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = write_imagenet(tmp_path / "archives", validation=7)
    prepare("im", large_dataset(), folder=tmp_path / "im", source=source, workers=0)
    return tmp_path / "im"


def build(folder: Path, entry=None, **changes):
    arguments = {"batch_size": 4, "batch_size_test": 3, "loader": "auto", "seed": 1, "device": "cpu", "workers": 0}
    # Nine training images in batches of four leave one over, so train on batches of five.
    arguments["batch_size"] = 5
    return build_loaders(
        open_prepared(folder, entry or large_dataset()), entry or large_dataset(), **{**arguments, **changes}
    )


def collect(batches) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def break_image(folder: Path, split: str, position: int) -> str:
    index = read_index(folder, split)
    path = index.root / index.paths[position]
    path.write_bytes(path.read_bytes()[:300])
    return path.name


def test_each_image_once_with_its_label(folder: Path):
    loaders = build(folder)
    images, labels = collect(loaders.test.batches(0))
    assert images.shape == (7, 3, 32, 32) and images.dtype == torch.float32
    assert labels.tolist() == read_index(folder, "test").labels.tolist()
    assert sorted(collect(loaders.train.batches(0))[1].tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert loaders.train.num_batches == 2 and loaders.test.num_batches == 3


def test_workers_change_nothing(folder: Path):
    alone, helped = build(folder), build(folder, workers=2)
    for split in ("train", "test"):
        one, other = (collect(getattr(loaders, split).batches(3)) for loaders in (alone, helped))
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_a_worker_that_hangs_is_one_line_after_a_while(folder: Path, monkeypatch):
    monkeypatch.setattr(torchvision_loader, "PATIENCE_S", 1)
    monkeypatch.setattr(torchvision_loader.FileImages, "read", lambda images, index: time.sleep(60))
    with pytest.raises(StalledError, match=r"gave no batch \(DataLoader timed out after 1 seconds\)"):
        list(build(folder, workers=1).train.batches(0))


def test_a_worker_that_is_killed_is_one_line(folder: Path, monkeypatch):
    monkeypatch.setattr(torchvision_loader.FileImages, "read", lambda images, index: os.kill(os.getpid(), 9))
    with pytest.raises(StalledError, match=r"gave no batch \(DataLoader worker"):
        list(build(folder, workers=1).train.batches(0))


def test_too_little_shared_memory_is_said_before_workers_start(folder: Path, monkeypatch):
    monkeypatch.setattr(torchvision_loader.os, "statvfs", lambda _: SimpleNamespace(f_bavail=10, f_frsize=1024))
    with pytest.raises(ConfigError, match=r"/dev/shm has 0.01 MiB free, but 1 loader .* give --workers 0"):
        build(folder, workers=1)
    assert build(folder, workers=0).train.num_batches == 2


def test_shared_memory_that_runs_out_later_is_one_line(folder: Path, monkeypatch):
    def full(_tensor):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(ConfigError, match=r"/dev/shm is full: give --workers 0"):
        list(build(folder, workers=1).train.batches(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_whatever_goes_wrong_while_an_image_is_viewed_names_it(folder: Path, monkeypatch, workers: int):
    def fails(*_arguments):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(torchvision_loader, "evaluation_view", fails)
    with pytest.raises(DataError, match=r"cannot use image .*\.JPEG \(ZeroDivisionError:.*\); replace it"):
        list(build(folder, workers=workers).test.batches(0))


@pytest.mark.parametrize("shape", [(20000, 1), (1, 20000), (1, 1)])
def test_long_and_narrow_images_are_seen_or_refused_by_name(folder: Path, monkeypatch, shape: tuple[int, int]):
    path = read_index(folder, "test").path(0)
    Image.new("RGB", shape).save(path, "JPEG")
    index = read_index(prepared_as_it_is(folder), "test")
    loader = TorchvisionLoader(
        FileImages(index),
        View("resized_crop_lighting", "resize_centre", 224),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        batch_size=1,
        device=torch.device("cpu"),
        seed=None,
    )
    if max(shape) == 1:
        assert next(loader.batches(0))[0].shape == (1, 3, 224, 224)
    else:
        with pytest.raises(DataError, match=f"image {path}: {shape[0]}x{shape[1]} pixels would be scaled to"):
            next(loader.batches(0))


def test_continuing_at_a_batch_gives_the_same_images_and_epochs_differ(folder: Path):
    loaders = build(folder)
    whole = list(loaders.train.batches(1))
    rest = list(loaders.train.batches(1, start=1))
    assert len(rest) == 1 and torch.equal(rest[0][0], whole[1][0])
    assert not torch.equal(collect(loaders.train.batches(2))[0], collect(whole)[0])


def test_the_network_random_numbers_are_left_alone(folder: Path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    collect(build(folder).train.batches(0))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_corrupt_image_in_the_middle_of_an_epoch_is_named_in_one_line(folder: Path, split: str, workers: int):
    name = break_image(folder, split, 4)
    with pytest.raises(DataError, match=f"unreadable image .*{name}") as caught:
        collect(getattr(build(prepared_as_it_is(folder), workers=workers), split).batches(0))
    assert "\n" not in str(caught.value)


def test_corrupt_images_are_skipped_and_counted_on_request(folder: Path, caplog):
    name = break_image(folder, "test", 4)
    test = build(prepared_as_it_is(folder), skip_unreadable=True).test
    _, labels = collect(test.batches(0))
    assert len(labels) == 6 and test.skipped == 1 and test.num_images == 7
    assert name in caplog.text
    assert len(collect(test.batches(1))[1]) == 6 and test.skipped == 1


def test_a_training_batch_that_lost_all_images_keeps_its_place(folder: Path):
    for position in range(9):
        break_image(folder, "train", position)
    train = build(prepared_as_it_is(folder), skip_unreadable=True).train
    batches = list(train.batches(0))
    assert [len(labels) for _, labels in batches] == [0] * train.num_batches and train.skipped == 9
    assert {tuple(images.shape[1:]) for images, _ in batches} == {(3, 32, 32)}


@pytest.mark.parametrize(("broken", "left"), [((3, 4, 5), [3, 0, 1]), ((0, 1, 2, 6), [0, 3, 0]), ((1, 4), [2, 2, 1])])
def test_a_batch_that_lost_images_moves_no_other(folder: Path, broken: tuple, left: list):
    for number in broken:
        break_image(folder, "test", number)
    test = build(prepared_as_it_is(folder), skip_unreadable=True).test
    assert [len(labels) for _, labels in test.batches(0)] == left
    assert [len(labels) for _, labels in test.batches(0, start=1)] == left[1:]


def test_a_missing_file_is_named(folder: Path):
    index = read_index(folder, "test")
    (index.root / index.paths[2]).unlink()
    with pytest.raises(DataError, match=r"cannot read .*\.JPEG: No such file"):
        collect(build(folder).test.batches(0))


def test_tinyimagenet_is_enlarged_when_loaded(tmp_path: Path):
    entry = dataset(kind="tinyimagenet", num_classes=3, image_size=96, augmentation="rotate_flip")
    source = write_zip(tmp_path / "t.zip", tinyimagenet_files())
    prepare("tiny", entry, folder=tmp_path / "tiny", source=source, workers=0)
    loaders = build(tmp_path / "tiny", entry)
    assert collect(loaders.train.batches(0))[0].shape == (9, 3, 96, 96)
    assert collect(loaders.test.batches(0))[0].shape == (6, 3, 96, 96)


def test_the_memory_loader_is_refused_for_large_images(folder: Path):
    with pytest.raises(ConfigError, match="'memory' cannot serve"):
        build(folder, loader="memory")


@pytest.mark.parametrize("augmentation", get_args(Augmentation))
def test_an_augmentation_of_training_never_changes_how_files_are_tested(folder: Path, augmentation: str):
    own, other = (build(folder, augmentation=name).test for name in (None, augmentation))
    assert torch.equal(collect(own.batches(0))[0], collect(other.batches(0))[0])


def test_files_can_be_tested_as_a_whole(folder: Path, tmp_path: Path):
    entry = large_dataset(test_view="resize")
    prepare("im", entry, folder=tmp_path / "whole", source=folder / "images", workers=0)
    seen = collect(build(tmp_path / "whole", entry).test.batches(0))[0]
    centre = collect(build(folder).test.batches(0))[0]
    assert seen.shape == centre.shape and not torch.equal(seen, centre)


def test_stored_images_are_enlarged_whatever_the_augmentation(tmp_path: Path):
    entry = dataset(kind="tinyimagenet", num_classes=3, image_size=96, augmentation="rotate_flip")
    source = write_zip(tmp_path / "t.zip", tinyimagenet_files())
    prepare("tiny", entry, folder=tmp_path / "tiny", source=source, workers=0)
    loaders = build(tmp_path / "tiny", entry, augmentation="crop_flip")
    assert collect(loaders.train.batches(0))[0].shape == (9, 3, 96, 96)
    assert collect(loaders.test.batches(0))[0].shape == (6, 3, 96, 96)
