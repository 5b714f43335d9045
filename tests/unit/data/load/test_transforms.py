import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from recu.base.errors import DataError
from recu.data.load.plain_view import Box, validation_geometry
from recu.data.load.transforms import CROP_RATIO, augment, decode, draw_box, evaluation_view, lighting
from recu.experiment.augmentations import CROP_SCALES
from tests.unit.data.builders import image_bytes


def picture(height: int, width: int) -> torch.Tensor:
    """A smooth image with some texture."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    channels = [128 + 100 * torch.sin(rows / (9 + 3 * k)) * torch.cos(columns / (7 + 2 * k)) for k in range(3)]
    return torch.stack(channels).to(torch.uint8)


def as_pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def test_boxes_have_the_distribution_of_torchvision():
    def features(box: Box) -> list[float]:
        return [box.height * box.width / (375 * 500), box.width / box.height, box.top, box.left]

    torch.manual_seed(0)
    image, draw = as_pil(picture(375, 500)), transforms.RandomResizedCrop.get_params
    theirs = np.array([features(Box(*draw(image, [0.08, 1.25], list(CROP_RATIO)))) for _ in range(4000)])
    generator = random.Random(0)
    ours = np.array(
        [features(draw_box(375, 500, CROP_SCALES["resized_crop_lighting"], generator)) for _ in range(4000)]
    )
    scale = theirs.std(axis=0)
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 0.08 * scale).all()
    for share in (10, 50, 90):
        difference = np.percentile(ours, share, axis=0) - np.percentile(theirs, share, axis=0)
        assert (np.abs(difference) < 0.15 * scale).all()


@pytest.mark.parametrize(("height", "width"), [(10, 400), (400, 10), (1, 1), (375, 500)])
def test_boxes_lie_inside_whatever_the_shape(height: int, width: int):
    for seed in range(50):
        box = draw_box(height, width, (0.08, 1.25), random.Random(seed))
        assert box.top >= 0 and box.left >= 0 and box.height > 0 and box.width > 0
        assert box.top + box.height <= height and box.left + box.width <= width


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (300, 300), (100, 120)])
@pytest.mark.parametrize("size", [224, 64, 112])
def test_the_validation_view_agrees_with_pillow_to_two_levels(height: int, width: int, size: int):
    image = picture(height, width)
    theirs = transforms.CenterCrop(size)(transforms.Resize(round(size * 256 / 224))(as_pil(image)))
    ours = evaluation_view(image, "resize_centre", size)
    assert ours.shape == (3, size, size)
    assert (ours.int() - torch.from_numpy(np.array(theirs)).permute(2, 0, 1).int()).abs().max() <= 2


def test_validation_geometry_at_224_is_resize_256_and_centre_crop():
    assert validation_geometry(375, 500, 224) == ((256, 341), Box(16, 58, 224, 224))


@pytest.mark.parametrize("alphas", [(0.1, -0.2, 0.3), (0.1, 0.2, -0.3), (0.2, 0.1, 0.1), (9.0, -150.0, 400.0)])
def test_lighting_adds_the_noise_and_truncates(alphas: tuple[float, float, float]):
    image = torch.arange(256, dtype=torch.uint8).repeat(3, 1, 1)
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    noise = vectors @ (np.array(alphas) * np.array([0.2175, 0.0188, 0.0045]))
    expected = np.clip(image.numpy().astype(np.float64) + noise[:, None, None], 0, 255).astype(np.uint8)
    assert np.array_equal(lighting(image, alphas).numpy(), expected)
    assert not np.array_equal(expected, image.numpy())


def test_no_lighting_draw_leaves_the_image():
    image = picture(8, 8)
    assert torch.equal(lighting(image, (0.0, 0.0, 0.0)), image)


@pytest.mark.parametrize("name", ["none", "crop", "crop_flip", "rotate_flip", *CROP_SCALES])
def test_every_augmentation_gives_uint8_of_the_size_and_depends_on_its_generator_alone(name: str):
    image = picture(40, 50)
    views = [augment(image, name, 32, random.Random(seed)) for seed in (1, 1, 2)]
    assert views[0].shape == (3, 32, 32) and views[0].dtype == torch.uint8
    assert torch.equal(views[0], views[1])
    assert torch.equal(views[0], views[2]) == (name == "none")


def test_rotation_stays_within_twenty_degrees_and_mirrors_half_of_the_images():
    # A bright bar from the centre to the right: its end tells angle and mirroring.
    image = torch.zeros(3, 101, 101, dtype=torch.uint8)
    image[:, 49:52, 50:96] = 255
    angles, mirrored = [], 0
    for seed in range(200):
        view = augment(image, "rotate_flip", 101, random.Random(seed))[0].float()
        rows, columns = torch.nonzero(view, as_tuple=True)
        y, x = 50 - rows.float().mean(), columns.float().mean() - 50
        mirrored += bool(x < 0)
        angles.append(float(torch.rad2deg(torch.atan2(y, x.abs()))))
    assert 17 < max(angles) < 21 and -21 < min(angles) < -17
    assert 70 < mirrored < 130


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_decoding_gives_rgb_as_pillow_does(kind: str):
    data = image_bytes(3, (20, 10), kind, mode="L")
    assert decode(data, "x").shape == (3, 10, 20)


def test_cmyk_jpegs_are_read():
    assert decode(image_bytes(3, (20, 10), "JPEG", mode="CMYK"), "x").shape == (3, 10, 20)


@pytest.mark.parametrize("data", [b"", b"junk", image_bytes(1, (60, 60), "JPEG")[:500]])
def test_unreadable_images_are_named(data: bytes):
    with pytest.raises(DataError, match=r"unreadable image some/where.JPEG"):
        decode(data, "some/where.JPEG")
