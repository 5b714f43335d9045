"""Input, training and evaluation as a researcher would write them first: PIL images one by one, numbers read each step.

`recu bench` measures the package against it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Pictures(Dataset):
    """Images (N, S, S, 3) uint8 and labels (N,), transformed one at a time."""

    def __init__(self, images: Tensor, labels: Tensor, *, train: bool):
        self.images = images.numpy()
        self.labels = labels.tolist()
        augmentation = [transforms.RandomCrop(images.shape[1], padding=4), transforms.RandomHorizontalFlip()]
        steps = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        self.transform = transforms.Compose([*augmentation, *steps] if train else steps)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def build_loader(images: Tensor, labels: Tensor, batch_size: int, *, train: bool) -> DataLoader:
    return DataLoader(Pictures(images, labels, train=train), batch_size=batch_size, shuffle=train, num_workers=0)


def train_epoch(
    model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, device: torch.device
) -> Iterator[int]:
    """Yields the number of images of each step, after it."""
    model.train()
    total_loss = total_top1 = total_top5 = seen = 0.0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        top1, top5 = count_hits(logits, labels)
        total_loss += loss.item() * len(labels)
        total_top1 += top1
        total_top5 += top5
        seen += len(labels)
        yield len(labels)


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader, device: torch.device) -> tuple[float, float, float]:
    """Loss, top-1 and top-5 in percent."""
    model.eval()
    total_loss = total_top1 = total_top5 = seen = 0.0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        logits = model(images)
        total_loss += F.cross_entropy(logits, labels).item() * len(labels)
        top1, top5 = count_hits(logits, labels)
        total_top1 += top1
        total_top5 += top5
        seen += len(labels)
    return total_loss / seen, 100 * total_top1 / seen, 100 * total_top5 / seen


def count_hits(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    hits = logits.topk(5, dim=1).indices == labels[:, None]
    return hits[:, :1].sum().item(), hits.sum().item()
