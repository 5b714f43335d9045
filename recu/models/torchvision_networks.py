"""Full-precision networks of torchvision: teachers for distillation, trainable as nodes of the workflow.

Their stem halves the input twice, as ImageNet's does, whatever the input size.
"""

from __future__ import annotations

import torchvision
from torch import nn


def resnet18(num_classes: int, _convolution: type[nn.Conv2d]) -> nn.Module:
    """torchvision's ResNet-18, (N, 3, H, W) to (N, num_classes), randomly initialised."""
    return torchvision.models.resnet18(weights=None, num_classes=num_classes)


def resnet34(num_classes: int, _convolution: type[nn.Conv2d]) -> nn.Module:
    """torchvision's ResNet-34, (N, 3, H, W) to (N, num_classes), randomly initialised."""
    return torchvision.models.resnet34(weights=None, num_classes=num_classes)
