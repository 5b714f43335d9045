"""An image from anywhere is seen as the test images of the dataset are."""

import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from recu.data import build_loaders, prepare
from recu.data.load.augmentation import normalise
from recu.data.load.one_image import as_test_image
from tests.unit.data.builders import dataset


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
