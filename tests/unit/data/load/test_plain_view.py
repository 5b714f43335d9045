"""Images seen without PyTorch have the pixels that torchvision gives them."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from recu.base.errors import DataError
from recu.data.load import one_image
from recu.data.load.augmentation import normalise
from recu.data.load.plain_view import Seen, as_test_image, normalised, resized
from recu.data.load.transforms import evaluation_view
from recu.experiment.fit import stored_size_of
from recu.experiment.schema import Dataset
from tests.unit.training.ours import DATASET

as_torchvision_scales_bytes = pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="torchvision scales in float32 here"
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def seen_as(dataset: Dataset) -> Seen:
    return Seen(dataset.image_size, stored_size_of(dataset), dataset.seen_as)


@as_torchvision_scales_bytes
@pytest.mark.parametrize("view", ["resize", "resize_centre"])
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (375, 500, 224),
        (500, 375, 224),
        (256, 256, 224),
        (64, 64, 224),
        (33, 97, 32),
        (8, 8, 8),
        (9, 300, 8),
        (900, 31, 64),
    ],
)
def test_the_test_views(height, width, size, view):
    image = picture(height, width, size)
    expected = evaluation_view(torch.from_numpy(image).permute(2, 0, 1), view, size).permute(1, 2, 0).numpy()
    from recu.data.load import plain_view

    np.testing.assert_array_equal(plain_view.evaluation_view(image, Seen(size, None, view)), expected)


@as_torchvision_scales_bytes
def test_many_sizes():
    from torchvision.transforms.v2 import functional as F

    generator = np.random.default_rng(3)
    for number in range(60):
        height, width, tall, wide = (int(each) for each in generator.integers(1, 90, 4))
        image = picture(height, width, number)
        expected = F.resize(torch.from_numpy(image).permute(2, 0, 1), [tall, wide], antialias=True)
        np.testing.assert_array_equal(
            resized(image, (tall, wide)), expected.permute(1, 2, 0).numpy(), str((image.shape, tall, wide))
        )


@as_torchvision_scales_bytes
@pytest.mark.parametrize("kind", ["imagefolder", "tinyimagenet", "cifar10"])
@pytest.mark.parametrize("augmentation", ["crop_flip", "resized_crop_lighting"])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_one_image_from_a_file(tmp_path, kind, augmentation, form):
    dataset = DATASET.model_copy(update={"kind": kind, "augmentation": augmentation, "image_size": 16})
    smooth = Image.fromarray(picture(6, 9)).resize((90, 60), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "image", form, quality=90)
    expected = one_image.as_test_image(tmp_path / "image", dataset).numpy()
    np.testing.assert_array_equal(as_test_image(tmp_path / "image", seen_as(dataset)), expected)
    np.testing.assert_array_equal(
        as_test_image(smooth, seen_as(dataset)), one_image.as_test_image(smooth, dataset).numpy()
    )


def test_normalisation_is_the_same_to_the_last_bit():
    images = picture(32, 32)[None].repeat(3, 0)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = normalise(torch.from_numpy(images), torch.tensor(mean), torch.tensor(std))
    found = normalised(images, np.float32(mean), np.float32(std))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("content", [None, b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(20)])
def test_an_image_that_cannot_be_read_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(DataError, match=r"image\.png"):
        as_test_image(tmp_path / "image.png", seen_as(DATASET))


def test_it_needs_no_pytorch():
    code = "import sys, recu.data.load.plain_view; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
