"""Training augmentation of small images: pure functions on whole batches of uint8 tensors.

Shapes: N images of H x W pixels; batches are uint8 (N, H, W, 3), as they are stored. Randomness comes in as an
argument: the draws of a batch are a tensor, made by `draw_crop_flip` from an explicit generator. Large images are
augmented one by one, see `recu.data.load.transforms`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recu.experiment.augmentations import BatchAugmentation


def draw_crop_flip(count: int, augmentation: BatchAugmentation, generator: torch.Generator) -> Tensor:
    """Independent draws for `count` images: int64 (count, 3), columns top, left (0..2*padding) and flip (0 or 1)."""
    corners = torch.randint(0, 2 * augmentation.padding + 1, (count, 2), generator=generator)
    flips = torch.randint(0, 2 if augmentation.flip else 1, (count, 1), generator=generator)
    return torch.cat([corners, flips], dim=1)


def crop_flip(images: Tensor, draws: Tensor, padding: int) -> Tensor:
    """Pad with black, cut out an image-sized window, mirror where drawn.

    The padding is black (0) before normalisation, as torchvision's RandomCrop before ToTensor and Normalize makes it.

    Args:
        images: uint8 (N, H, W, 3).
        draws: int64 (N, 3) on the same device, see `draw_crop_flip`.
        padding: pixels on each side.

    Returns:
        uint8 (N, H, W, 3), contiguous.
    """
    count, height, width, channels = images.shape
    padded_height, padded_width = height + 2 * padding, width + 2 * padding
    rows, columns = slice(padding, padding + height), slice(padding, padding + width)
    # Row i of `padded` holds image i, row N + i its mirror image: flipping becomes a choice of the row to read.
    padded = images.new_zeros(2 * count, padded_height, padded_width, channels)
    padded[:count, rows, columns] = images
    # As (N, 3, H, W) in channels_last memory, the layout that PyTorch mirrors in one fast pass.
    padded[count:, rows, columns] = images.permute(0, 3, 1, 2).flip(-1).permute(0, 2, 3, 1)
    top, left, flip = draws.unbind(dim=1)
    # Mirroring a window cut at `left` equals cutting the mirror image at the mirrored place.
    left = torch.where(flip == 1, 2 * padding - left, left)
    image_index = torch.arange(count, device=images.device) + count * flip
    first_pixel = (image_index * padded_height + top) * padded_width + left
    row_offsets = torch.arange(height, device=images.device) * padded_width
    starts = (first_pixel[:, None] + row_offsets).flatten()
    # Every run of `width` pixels as one row of a view: an image row is then one contiguous copy.
    num_pixels = 2 * count * padded_height * padded_width
    runs = padded.view(-1).as_strided((num_pixels - width + 1, width * channels), (channels, 1))
    return runs.index_select(0, starts).view(count, height, width, channels)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(images / 255 - mean) / std, in the order of operations of torchvision's ToTensor and Normalize.

    Args:
        images: uint8 (N, H, W, 3), contiguous.
        mean: float32 (3,) on the same device.
        std: likewise.

    Returns:
        float32 (N, 3, H, W) in channels_last memory format.
    """
    count, height, width, channels = images.shape
    # Whole images as rows: the per-channel values, repeated to a row, then vectorise over thousands of elements, not
    # three.
    pixels = images.flatten(1).to(torch.float32).div_(255)
    pixels.sub_(mean.repeat(height * width)).div_(std.repeat(height * width))
    return pixels.view(count, height, width, channels).permute(0, 3, 1, 2)
