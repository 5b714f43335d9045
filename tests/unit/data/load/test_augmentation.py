import pytest
import torch
from torchvision import transforms

from recu.data.load.augmentation import crop_flip, draw_crop_flip, normalise
from recu.experiment.augmentations import BATCH_AUGMENTATIONS, BatchAugmentation


def some_images(count: int = 6, size: int = 8) -> torch.Tensor:
    return torch.randint(1, 256, (count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def reference(image: torch.Tensor, draw: list[int], padding: int) -> torch.Tensor:
    """Pad, cut, mirror one image (H, W, 3), written down literally."""
    height, width, _ = image.shape
    padded = torch.zeros(height + 2 * padding, width + 2 * padding, 3, dtype=torch.uint8)
    padded[padding : padding + height, padding : padding + width] = image
    top, left, flip = draw
    window = padded[top : top + height, left : left + width]
    return window.flip(1) if flip else window


def test_every_crop_and_flip_equals_the_literal_definition():
    padding = 4
    draws = torch.tensor([[top, left, flip] for top in range(9) for left in range(9) for flip in (0, 1)])
    images = some_images(len(draws))
    result = crop_flip(images, draws, padding)
    for image, draw, row in zip(images, draws.tolist(), result, strict=True):
        assert torch.equal(row, reference(image, draw, padding))


def test_padding_is_black_before_normalisation():
    images = torch.full((1, 8, 8, 3), 255, dtype=torch.uint8)
    corner = crop_flip(images, torch.tensor([[0, 0, 0]]), 4)[0, 0, 0]
    assert corner.tolist() == [0, 0, 0]


def test_non_square_images_keep_their_shape():
    images = torch.randint(0, 256, (2, 6, 10, 3), dtype=torch.uint8)
    draws = torch.tensor([[0, 8, 1], [3, 2, 0]])
    result = crop_flip(images, draws, 4)
    assert all(torch.equal(result[index], reference(images[index], draws[index].tolist(), 4)) for index in range(2))


def test_normalise_equals_torchvision_to_the_last_bit():
    images, mean, std = some_images(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    expected = torch.stack([theirs(image.numpy()) for image in images])
    result = normalise(images, torch.tensor(mean), torch.tensor(std))
    assert torch.equal(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_draws_are_independent_per_image_and_cover_their_range():
    draws = draw_crop_flip(4000, BATCH_AUGMENTATIONS["crop_flip"], torch.Generator().manual_seed(1))
    assert set(draws[:, 0].tolist()) == set(draws[:, 1].tolist()) == set(range(9))
    counts = torch.bincount(draws[:, 0])
    assert counts.min() > 4000 / 9 * 0.75
    assert abs(draws[:, 2].float().mean() - 0.5) < 0.05
    correlations = torch.corrcoef(draws.T.float()) - torch.eye(3)
    assert correlations.abs().max() < 0.06


@pytest.mark.parametrize("name", ["none", "crop"])
def test_augmentations_without_flip_never_mirror(name: str):
    draws = draw_crop_flip(500, BATCH_AUGMENTATIONS[name], torch.Generator().manual_seed(1))
    assert draws[:, 2].sum() == 0


def test_no_augmentation_changes_nothing():
    images = some_images()
    draws = draw_crop_flip(len(images), BatchAugmentation(padding=0, flip=False), torch.Generator())
    assert torch.equal(crop_flip(images, draws, 0), images)
