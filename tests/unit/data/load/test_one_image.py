"""An image from anywhere is seen as the test images of the dataset are."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from recu.data import build_loaders, prepare
from recu.data.load.augmentation import normalise
from recu.data.load.one_image import as_test_image
from recu.experiment.fit import storage_of, stored_size_of
from tests.unit.data.builders import cifar10_files, dataset, image_bytes, tinyimagenet_files, write_folder


@pytest.mark.parametrize(
    ("augmentation", "test_view"),
    [
        ("crop_flip", None),
        ("crop_flip", "resize_centre"),
        ("resized_crop_lighting", None),
        ("resized_crop_lighting", "resize"),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_views_are_those_of_the_loader_to_the_bit(tmp_path: Path, augmentation, test_view, suffix):
    generator = random.Random(1)
    for split in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            for number in range(2):
                size = generator.randrange(20, 90), generator.randrange(20, 90)
                image = Image.effect_noise(size, 70).convert("L" if number else "RGB")
                image.save(tmp_path / "images" / split / label / f"{number}.{suffix}")
    entry = dataset(kind="imagefolder", num_classes=2, image_size=16, augmentation=augmentation, test_view=test_view)
    prepared = prepare("some", entry, folder=tmp_path / "data", source=tmp_path / "images", workers=0)
    settings = {"batch_size": 2, "batch_size_test": 4, "loader": "auto", "seed": 1, "device": "cpu", "workers": 0}
    ((seen, _),) = build_loaders(prepared, entry, splits=("test",), **settings).test.batches(0)
    files = sorted((tmp_path / "images/test").glob("*/*"))
    mean, std = torch.tensor(entry.mean), torch.tensor(entry.std)
    for images in (files, map(Image.open, files)):
        views = torch.stack([as_test_image(image, entry) for image in images])
        assert torch.equal(normalise(views, mean, std), seen)


@pytest.mark.parametrize("test_view", [None, "resize"])
@pytest.mark.parametrize("augmentation", ["crop_flip", "resized_crop_lighting"])
@pytest.mark.parametrize("kind", ["cifar10", "tinyimagenet"])
def test_images_that_are_stored_in_one_size_are_predicted_from_that_size(tmp_path: Path, kind, augmentation, test_view):
    """TinyImageNet's may come in any size, and CIFAR's as files again."""
    entry = dataset(kind=kind, num_classes=3, image_size=48, augmentation=augmentation, test_view=test_view)
    if kind == "cifar10":
        entry = entry.model_copy(update={"num_classes": 10})
        source = write_folder(tmp_path / "source", cifar10_files())
    else:
        files = tinyimagenet_files() | {f"tiny-imagenet-200/val/images/val_{n}.JPEG": jpeg(n) for n in range(6)}
        source = write_folder(tmp_path / "source", files) / "tiny-imagenet-200"
    prepared = prepare("some", entry, folder=tmp_path / "data", source=source, workers=0)
    assert (prepared.manifest.storage, prepared.manifest.stored_size) == (storage_of(entry), stored_size_of(entry))
    settings = {"batch_size": 2, "batch_size_test": 9, "loader": "auto", "seed": 1, "device": "cpu", "workers": 0}
    ((seen, _),) = build_loaders(prepared, entry, splits=("test",), **settings).test.batches(0)
    if kind == "cifar10":
        images = [Image.fromarray(pixels) for pixels in np.load(tmp_path / "data/test_images.npy")]
    else:
        images = [source / f"val/images/val_{number}.JPEG" for number in (0, 3, 1, 4, 2, 5)]  # by class
    views = torch.stack([as_test_image(image, entry) for image in images])
    assert torch.equal(normalise(views, torch.tensor(entry.mean), torch.tensor(entry.std)), seen)


def jpeg(number: int) -> bytes:
    return image_bytes(number, (70 + number, 100), "JPEG")
