"""The networks of the specification around the textbook convolutions: NCHW, nothing in place or shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reference.binary_conv import (
    ReferenceBinaryConv2d,
    ReferenceCompetitorConv2d,
    ReferenceRealConv2d,
    ReferenceStage1Conv2d,
    ReferenceStep1Conv2d,
)

Conv = type[nn.Conv2d]


def build_reference(
    name: str, *, family: str, num_classes: int, variant: str | None = None, stage: int = 2
) -> nn.Module:
    """Build the reference form of a network in PyTorch's default initialisation.

    Raises:
        KeyError: there is no reference for this network.
    """
    recu = (ReferenceRealConv2d, ReferenceStage1Conv2d, ReferenceBinaryConv2d)
    competitor = (ReferenceRealConv2d, ReferenceStep1Conv2d, ReferenceCompetitorConv2d)
    conv = (competitor if family == "birealnet" else recu)[stage]
    return BUILDERS[family, name, variant](num_classes, conv)


class Shortcut(nn.Module):
    """Half the size by `reduce`, then the new channels as zeros on both sides (a quarter each where they double)."""

    def __init__(self, inputs: int, outputs: int, reduce: Callable[[Tensor], Tensor]):
        super().__init__()
        self.zeros = (outputs - inputs) // 2
        self.reduce = reduce

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(self.reduce(x), (0, 0, 0, 0, self.zeros, self.zeros))


def average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


def every_second(x: Tensor) -> Tensor:
    return x[:, :, ::2, ::2]


class BasicBlock(nn.Module):
    """What the three kinds of two-convolution block have in common."""

    def __init__(self, inputs: int, outputs: int, stride: int, conv: Conv):
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride, 1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.changes = stride != 1


class TwoShortcutBlock(BasicBlock):
    def __init__(self, inputs: int, outputs: int, stride: int, conv: Conv):
        super().__init__(inputs, outputs, stride, conv)
        self.shortcut = Shortcut(inputs, outputs, average) if self.changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x1 = F.hardtanh(self.bn1(self.conv1(x)) + self.shortcut(x))
        return F.hardtanh(self.bn2(self.conv2(x1)) + x1)


class PreluBlock(BasicBlock):
    def __init__(self, inputs: int, outputs: int, stride: int, conv: Conv):
        super().__init__(inputs, outputs, stride, conv)
        self.prelu = nn.PReLU(outputs)
        self.shortcut = Shortcut(inputs, outputs, every_second) if self.changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.bn1(self.conv1(x)) + self.shortcut(x)
        return self.prelu(self.bn2(self.conv2(F.hardtanh(x1))) + x1)


class OneShortcutBlock(BasicBlock):
    def __init__(self, inputs: int, outputs: int, stride: int, conv: Conv):
        super().__init__(inputs, outputs, stride, conv)
        self.shortcut = Shortcut(inputs, outputs, average) if self.changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = F.hardtanh(self.bn1(self.conv1(x)))
        return F.hardtanh(self.bn2(self.conv2(out)) + self.shortcut(x))


class ConvShortcutBlock(OneShortcutBlock):
    """March 2021: a binary 1x1 strided convolution and BatchNorm where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, conv: Conv):
        super().__init__(inputs, outputs, stride, conv)
        if self.changes:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class DownsampleBlock(BasicBlock):
    def __init__(self, inputs: int, outputs: int, stride: int, conv: Conv):
        super().__init__(inputs, outputs, stride, conv)
        self.downsample = nn.Identity()
        if self.changes:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x1 = F.hardtanh(self.bn1(self.conv1(x)) + self.downsample(x))
        return F.hardtanh(self.bn2(self.conv2(x1)) + x1)


class Shift(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


def shift_downsample(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.AvgPool2d(2, stride), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class ReActBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, conv: Conv):
        super().__init__()
        self.move0 = Shift(inputs)
        self.conv = conv(inputs, outputs, 3, stride, 1)
        self.bn = nn.BatchNorm2d(outputs)
        self.move1 = Shift(outputs)
        self.nonlinear = nn.PReLU(outputs)
        self.move2 = Shift(outputs)
        self.downsample = shift_downsample(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn(self.conv(self.move0(x))) + self.downsample(x)
        return self.move2(self.nonlinear(self.move1(out)))


class CompetitorBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, conv: Conv):
        super().__init__()
        self.move0 = Shift(inputs)
        self.binary_conv = conv(inputs, outputs, 3, stride, 1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.move1 = Shift(outputs)
        self.prelu = nn.PReLU(outputs)
        self.move2 = Shift(outputs)
        self.downsample = shift_downsample(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.binary_conv(self.move0(x))) + self.downsample(x)
        return self.move2(self.prelu(self.move1(out)))


def layer(block: type[nn.Module], inputs: int, outputs: int, blocks: int, stride: int, conv: Conv) -> nn.Sequential:
    rest = (block(outputs, outputs, 1, conv) for _ in range(blocks - 1))
    return nn.Sequential(block(inputs, outputs, stride, conv), *rest)


class CifarResNet20(nn.Module):
    def __init__(self, num_classes: int, conv: Conv, block: type[nn.Module]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = layer(block, 16, 16, 3, 1, conv)
        self.layer2 = layer(block, 16, 32, 3, 2, conv)
        self.layer3 = layer(block, 32, 64, 3, 2, conv)
        self.bn2 = nn.BatchNorm1d(64)
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardtanh(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.bn2(x.mean(dim=(2, 3))))


class CifarResNet18(nn.Module):
    def __init__(
        self, num_classes: int, conv: Conv, block: type[nn.Module], blocks: Sequence[int], widths: Sequence[int]
    ):
        super().__init__()
        w1, w2, w3, w4 = widths
        self.conv1 = nn.Conv2d(3, w1, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(w1)
        self.layer1 = layer(block, w1, w1, blocks[0], 1, conv)
        self.layer2 = layer(block, w1, w2, blocks[1], 2, conv)
        self.layer3 = layer(block, w2, w3, blocks[2], 2, conv)
        self.layer4 = layer(block, w3, w4, blocks[3], 2, conv)
        self.bn2 = nn.BatchNorm1d(w4)
        self.linear = nn.Linear(w4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(self.bn2(F.avg_pool2d(x, 4).flatten(1)))


class VggSmall(nn.Module):
    def __init__(self, num_classes: int, conv: Conv):
        super().__init__()
        self.conv0 = nn.Conv2d(3, 128, 3, padding=1, bias=False)
        self.bn0 = nn.BatchNorm2d(128)
        widths = (128, 128, 256, 256, 512, 512)
        for i in range(1, 6):
            self.add_module(f"conv{i}", conv(widths[i - 1], widths[i], 3, 1, 1))
            self.add_module(f"bn{i}", nn.BatchNorm2d(widths[i]))
        self.fc = nn.Linear(8192, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardtanh(self.bn0(self.conv0(x)))
        x = F.hardtanh(self.bn1(F.max_pool2d(self.conv1(x), 2)))
        x = F.hardtanh(self.bn2(self.conv2(x)))
        x = F.hardtanh(self.bn3(F.max_pool2d(self.conv3(x), 2)))
        x = F.hardtanh(self.bn4(self.conv4(x)))
        x = F.hardtanh(self.bn5(F.max_pool2d(self.conv5(x), 2)))
        return self.fc(x.flatten(1))


class ImageNetResNet(nn.Module):
    def __init__(self, num_classes: int, conv: Conv, blocks: Sequence[int]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = layer(DownsampleBlock, 64, 64, blocks[0], 1, conv)
        self.layer2 = layer(DownsampleBlock, 64, 128, blocks[1], 2, conv)
        self.layer3 = layer(DownsampleBlock, 128, 256, blocks[2], 2, conv)
        self.layer4 = layer(DownsampleBlock, 256, 512, blocks[3], 2, conv)
        self.bn2 = nn.BatchNorm1d(512)
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.hardtanh(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.bn2(x.mean(dim=(2, 3))))


class ReActNet(nn.Module):
    def __init__(self, num_classes: int, conv: Conv, blocks: Sequence[int]):
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn = nn.BatchNorm2d(64)
        self.layer1 = layer(ReActBlock, 64, 64, blocks[0], 1, conv)
        self.layer2 = layer(ReActBlock, 64, 128, blocks[1], 2, conv)
        self.layer3 = layer(ReActBlock, 128, 256, blocks[2], 2, conv)
        self.layer4 = layer(ReActBlock, 256, 512, blocks[3], 2, conv)
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.bn(self.conv(x)), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))


class BiRealNet(nn.Module):
    def __init__(self, num_classes: int, conv: Conv):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = layer(CompetitorBlock, 64, 64, 4, 1, conv)
        self.layer2 = layer(CompetitorBlock, 64, 128, 4, 2, conv)
        self.layer3 = layer(CompetitorBlock, 128, 256, 4, 2, conv)
        self.layer4 = layer(CompetitorBlock, 256, 512, 4, 2, conv)
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.bn1(self.conv1(x)), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))


WIDE = (64, 128, 256, 512)

BUILDERS: dict[tuple[str, str, str | None], Callable[[int, Conv], nn.Module]] = {
    ("cifar", "resnet20_1w1a", None): lambda n, conv: CifarResNet20(n, conv, TwoShortcutBlock),
    ("cifar", "resnet20_1w1a", "2021-03"): lambda n, conv: CifarResNet20(n, conv, PreluBlock),
    ("cifar", "resnet18_1w1a", None): lambda n, conv: CifarResNet18(n, conv, OneShortcutBlock, (2, 2, 2, 2), WIDE),
    ("cifar", "resnet18_1w1a", "2021-03"): lambda n, conv: CifarResNet18(
        n, conv, ConvShortcutBlock, (2, 2, 2, 2), WIDE
    ),
    ("cifar", "resnet18A_1w1a", None): lambda n, conv: CifarResNet18(
        n, conv, OneShortcutBlock, (2, 2, 2, 2), (32, 32, 64, 128)
    ),
    ("cifar", "resnet18B_1w1a", None): lambda n, conv: CifarResNet18(
        n, conv, OneShortcutBlock, (2, 2, 2, 2), (32, 64, 128, 256)
    ),
    ("cifar", "resnet18C_1w1a", None): lambda n, conv: CifarResNet18(
        n, conv, OneShortcutBlock, (2, 2, 2, 2), (64, 64, 128, 256)
    ),
    ("cifar", "resnet34_1w1a", None): lambda n, conv: CifarResNet18(n, conv, OneShortcutBlock, (3, 4, 6, 3), WIDE),
    ("cifar", "vgg_small_1w1a", None): VggSmall,
    ("imagenet", "resnet18_1w1a", None): lambda n, conv: ImageNetResNet(n, conv, (2, 2, 2, 2)),
    ("imagenet", "resnet34_1w1a", None): lambda n, conv: ImageNetResNet(n, conv, (3, 4, 6, 3)),
    ("reactnet", "resnet18_1w1a", None): lambda n, conv: ReActNet(n, conv, (4, 4, 4, 4)),
    ("reactnet", "resnet34_1w1a", None): lambda n, conv: ReActNet(n, conv, (6, 8, 12, 6)),
    ("birealnet", "birealnet18", None): BiRealNet,
}
