"""ResNet-18 and -34 for ImageNet and TinyImageNet: two residual connections a block (Bi-Real style).

Tensors are (N, 3, 224, 224) in and (N, num_classes) out; other sizes work too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from recu.nn import binary_unit
from recu.nn.layers import Convolution, HardTanh, TwoConvolutions, initialise_kaiming, residual_stages

WIDTHS = (64, 128, 256, 512)

# Not 0: a BatchNorm weight of exactly 0 would make sign(0) = 0 of every activation behind it.
INITIAL_BATCH_NORM_WEIGHT = 1e-8


def resnet18(num_classes: int, convolution: Convolution) -> nn.Module:
    """ResNet-18: (2, 2, 2, 2) blocks."""
    return _ImageNetResNet(num_classes, convolution, (2, 2, 2, 2))


def resnet34(num_classes: int, convolution: Convolution) -> nn.Module:
    """ResNet-34: (3, 4, 6, 3) blocks."""
    return _ImageNetResNet(num_classes, convolution, (3, 4, 6, 3))


class _Block(TwoConvolutions):
    fixed_graph = True

    def __init__(self, in_channels: int, channels: int, stride: int, convolution: Convolution) -> None:
        super().__init__(in_channels, channels, stride, convolution)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        x = binary_unit(self.conv1, self.bn1, x, self.downsample(x), hardtanh=True)
        return binary_unit(self.conv2, self.bn2, x, x, hardtanh=True)


class _ImageNetResNet(nn.Module):
    fixed_graph = True

    def __init__(self, num_classes: int, convolution: Convolution, blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.hardtanh = HardTanh()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = residual_stages(_Block, convolution, WIDTHS, blocks)
        self.bn2 = nn.BatchNorm1d(WIDTHS[3])
        self.fc = nn.Linear(WIDTHS[3], num_classes)
        initialise_kaiming(self)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, INITIAL_BATCH_NORM_WEIGHT)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.hardtanh(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        # Adaptive, so that sizes other than 224 work; at 224 it is the 7x7 average pooling.
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.fc(self.bn2(x))
