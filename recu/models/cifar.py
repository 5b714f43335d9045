"""Networks for 32x32 images (CIFAR-10 and -100): ResNet-20, -18 and -34, VGG-small, and two earlier forms.

"ResNet-20" has two residual connections a block (Bi-Real style), ResNet-18 and -34 one. Every builder takes
the number of classes and the class of the binarised convolutions; (N, 3, 32, 32) in, (N, num_classes) out. Which
other sizes each takes stands in `recu.experiment.networks`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from recu.nn import binary_unit, convolve
from recu.nn.layers import (
    AveragePoolShortcut,
    Convolution,
    HardTanh,
    SubsampleShortcut,
    TwoConvolutions,
    initialise_kaiming,
    residual_stages,
)

RESNET20_WIDTHS = (16, 32, 64)
RESNET18_WIDTHS = (64, 128, 256, 512)


def resnet20(num_classes: int, convolution: Convolution) -> nn.Module:
    """ResNet-20 as released since August 2021."""
    model = _CifarResNet20(num_classes, convolution, _TwoShortcutBlock)
    initialise_kaiming(model)
    return model


def resnet20_2021_03(num_classes: int, convolution: Convolution) -> nn.Module:
    """ResNet-20 as first published in March 2021: subsampling shortcut, PReLU at the end of a block."""
    model = _CifarResNet20(num_classes, convolution, _PreluBlock)
    initialise_kaiming(model, linear=True)
    return model


def resnet18(num_classes: int, convolution: Convolution) -> nn.Module:
    """ResNet-18, widths 64/128/256/512."""
    return _kaiming_resnet18(num_classes, convolution, RESNET18_WIDTHS, (2, 2, 2, 2))


def resnet18_2021_03(num_classes: int, convolution: Convolution) -> nn.Module:
    """ResNet-18 as first published in March 2021: binary 1x1 shortcut, PyTorch's default initialisation."""
    return _CifarResNet18(num_classes, convolution, _ConvolutionShortcutBlock, RESNET18_WIDTHS, (2, 2, 2, 2))


def resnet18_a(num_classes: int, convolution: Convolution) -> nn.Module:
    """ResNet-18 of widths 32/32/64/128."""
    return _kaiming_resnet18(num_classes, convolution, (32, 32, 64, 128), (2, 2, 2, 2))


def resnet18_b(num_classes: int, convolution: Convolution) -> nn.Module:
    """ResNet-18 of widths 32/64/128/256."""
    return _kaiming_resnet18(num_classes, convolution, (32, 64, 128, 256), (2, 2, 2, 2))


def resnet18_c(num_classes: int, convolution: Convolution) -> nn.Module:
    """ResNet-18 of widths 64/64/128/256."""
    return _kaiming_resnet18(num_classes, convolution, (64, 64, 128, 256), (2, 2, 2, 2))


def resnet34(num_classes: int, convolution: Convolution) -> nn.Module:
    """ResNet-34, widths 64/128/256/512."""
    return _kaiming_resnet18(num_classes, convolution, RESNET18_WIDTHS, (3, 4, 6, 3))


def vgg_small(num_classes: int, convolution: Convolution) -> nn.Module:
    """VGG-small: a full-precision stem and five binary convolutions."""
    return _VggSmall(num_classes, convolution)


def _kaiming_resnet18(
    num_classes: int, convolution: Convolution, widths: Sequence[int], blocks: Sequence[int]
) -> nn.Module:
    model = _CifarResNet18(num_classes, convolution, _OneShortcutBlock, widths, blocks)
    initialise_kaiming(model)
    return model


class _Block(TwoConvolutions):
    """With a shortcut that has no parameters, of the kind that derived classes name."""

    shortcut_kind: type[AveragePoolShortcut | SubsampleShortcut] = AveragePoolShortcut

    def __init__(self, in_channels: int, channels: int, stride: int, convolution: Convolution) -> None:
        super().__init__(in_channels, channels, stride, convolution)
        same_shape = stride == 1 and in_channels == channels
        self.shortcut: nn.Module = nn.Identity() if same_shape else self.shortcut_kind(in_channels, channels, stride)


class _TwoShortcutBlock(_Block):
    """Two binary convolutions, each with its own residual connection."""

    fixed_graph = True

    def forward(self, x: Tensor) -> Tensor:
        x = binary_unit(self.conv1, self.bn1, x, self.shortcut(x), hardtanh=True)
        return binary_unit(self.conv2, self.bn2, x, x, hardtanh=True)


class _PreluBlock(_Block):
    """March 2021: the second residual connection starts before the first hardtanh, a PReLU ends the block."""

    fixed_graph = True
    shortcut_kind = SubsampleShortcut

    def __init__(self, in_channels: int, channels: int, stride: int, convolution: Convolution) -> None:
        super().__init__(in_channels, channels, stride, convolution)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        x1 = binary_unit(self.conv1, self.bn1, x, self.shortcut(x))
        # Not in place: x1 itself is added below.
        return self.prelu(binary_unit(self.conv2, self.bn2, F.hardtanh(x1), x1))


class _OneShortcutBlock(_Block):
    """Two binary convolutions inside one residual connection, as in an ordinary ResNet."""

    fixed_graph = True

    def forward(self, x: Tensor) -> Tensor:
        out = binary_unit(self.conv1, self.bn1, x, hardtanh=True)
        return binary_unit(self.conv2, self.bn2, out, self.shortcut(x), hardtanh=True)


class _ConvolutionShortcut(nn.Sequential):
    """A binary 1x1 strided convolution and its BatchNorm."""

    fixed_graph = True

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self
        return norm(convolve(conv, x))


class _ConvolutionShortcutBlock(_OneShortcutBlock):
    """March 2021: where the shape changes, the shortcut is a convolution."""

    fixed_graph = True

    def __init__(self, in_channels: int, channels: int, stride: int, convolution: Convolution) -> None:
        super().__init__(in_channels, channels, stride, convolution)
        if stride != 1 or in_channels != channels:
            self.shortcut = _ConvolutionShortcut(
                convolution(in_channels, channels, 1, stride=stride), nn.BatchNorm2d(channels)
            )


class _CifarResNet20(nn.Module):
    fixed_graph = True

    def __init__(
        self, num_classes: int, convolution: Convolution, block: type[_TwoShortcutBlock | _PreluBlock]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, RESNET20_WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(RESNET20_WIDTHS[0])
        self.hardtanh = HardTanh()
        self.layer1, self.layer2, self.layer3 = residual_stages(block, convolution, RESNET20_WIDTHS, (3, 3, 3))
        self.bn2 = nn.BatchNorm1d(RESNET20_WIDTHS[2])
        self.linear = nn.Linear(RESNET20_WIDTHS[2], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.hardtanh(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.linear(self.bn2(x))


class _CifarResNet18(nn.Module):
    fixed_graph = True

    def __init__(
        self,
        num_classes: int,
        convolution: Convolution,
        block: type[_OneShortcutBlock],
        widths: Sequence[int],
        blocks: Sequence[int],
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = residual_stages(block, convolution, widths, blocks)
        self.bn2 = nn.BatchNorm1d(widths[3])
        self.linear = nn.Linear(widths[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        # No activation after the stem: the first block's sign sees the BatchNorm's result.
        x = self.bn1(self.conv1(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        # All that is left: 4x4 of 32x32 images.
        x = F.avg_pool2d(x, x.shape[-2:]).flatten(1)
        return self.linear(self.bn2(x))


class _VggSmall(nn.Module):
    fixed_graph = True

    def __init__(self, num_classes: int, convolution: Convolution) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 128, 3, padding=1, bias=False)
        self.bn0 = nn.BatchNorm2d(128)
        self.conv1 = convolution(128, 128, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(128)
        self.conv2 = convolution(128, 256, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(256)
        self.conv3 = convolution(256, 256, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(256)
        self.conv4 = convolution(256, 512, 3, padding=1)
        self.bn4 = nn.BatchNorm2d(512)
        self.conv5 = convolution(512, 512, 3, padding=1)
        self.bn5 = nn.BatchNorm2d(512)
        self.pooling = nn.MaxPool2d(2)
        self.hardtanh = HardTanh()
        self.fc = nn.Linear(512 * 4 * 4, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, (2.0 / fan_out) ** 0.5)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        # Pooling comes before BatchNorm: the maximum of integers times alpha, not of normalised values.
        x = self.hardtanh(self.bn0(self.conv0(x)))
        x = self.hardtanh(self.bn1(self.pooling(convolve(self.conv1, x))))
        x = binary_unit(self.conv2, self.bn2, x, hardtanh=True)
        x = self.hardtanh(self.bn3(self.pooling(convolve(self.conv3, x))))
        x = binary_unit(self.conv4, self.bn4, x, hardtanh=True)
        x = self.hardtanh(self.bn5(self.pooling(convolve(self.conv5, x))))
        return self.fc(x.flatten(1))
