"""Input of large images as a researcher would write it first: torchvision's PIL transforms in a DataLoader.

`recu bench --images` measures the package's loaders against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.reference.engine import MEAN, STD

SIZE = 224
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


class Lighting:
    """PCA noise of standard deviation 0.1, added to the 8-bit image and truncated."""

    def __call__(self, image: Image.Image) -> Image.Image:
        noise = EIGENVECTORS @ (np.random.normal(0, 0.1, 3) * EIGENVALUES)
        pixels = np.asarray(image).astype(np.float32) + noise.astype(np.float32)
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


TO_TENSOR = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
TRAINING = [
    transforms.RandomResizedCrop(SIZE, scale=(0.08, 1.25)),
    Lighting(),
    transforms.RandomHorizontalFlip(),
    *TO_TENSOR,
]
EVALUATION = [transforms.Resize(256), transforms.CenterCrop(SIZE), *TO_TENSOR]


class PictureFiles(Dataset):
    """Image files, opened and transformed one at a time."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], *, train: bool):
        self.paths = paths
        self.labels = labels
        self.transform = transforms.Compose(TRAINING if train else EVALUATION)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index]


def build_loader(
    paths: Sequence[Path], labels: Sequence[int], batch_size: int, *, train: bool, workers: int
) -> DataLoader:
    files = PictureFiles(paths, labels, train=train)
    return DataLoader(files, batch_size=batch_size, shuffle=train, num_workers=workers)


def load_epoch(loader: DataLoader, device: torch.device) -> int:
    """The number of images delivered to the device."""
    seen = 0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        seen += len(images)
    return seen
