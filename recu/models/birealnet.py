"""The competitor of the comparison table, ReActNet (Bi-Real based ResNet-18), without ReCU.

Stage 1 has binary activations and real weights; stage 2 starts from stage 1's weights and binarises both.
Tensors are (N, 3, 224, 224) in and (N, num_classes) out; other sizes work too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from recu.nn.layers import Convolution, LearnableShift, pooled_downsample, residual_stages

WIDTHS = (64, 128, 256, 512)


def birealnet18(num_classes: int, convolution: Convolution) -> nn.Module:
    """ResNet-18: (4, 4, 4, 4) one-convolution blocks."""
    return _BiRealNet(num_classes, convolution, (4, 4, 4, 4))


class _Block(nn.Module):
    """Shift, binary 3x3 convolution, BatchNorm, residual, shift, PReLU, shift."""

    fixed_graph = True

    def __init__(self, in_channels: int, channels: int, stride: int, convolution: Convolution) -> None:
        super().__init__()
        self.move0 = LearnableShift(in_channels)
        self.binary_conv = convolution(in_channels, channels, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.move1 = LearnableShift(channels)
        self.prelu = nn.PReLU(channels)
        self.move2 = LearnableShift(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.downsample = pooled_downsample(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.binary_conv(self.move0(x))) + self.downsample(x)
        return self.move2(self.prelu(self.move1(out)))


class _BiRealNet(nn.Module):
    fixed_graph = True

    def __init__(self, num_classes: int, convolution: Convolution, blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = residual_stages(_Block, convolution, WIDTHS, blocks)
        self.fc = nn.Linear(WIDTHS[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
