"""Small building blocks shared by the families."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.binarisers.protocol import LayerCost

Convolution = type[nn.Conv2d]
"""Of the binarised convolutions; `recu.experiment.binarisers` has one for each binariser and stage."""


class HardTanh(nn.Module):
    """min(1, max(-1, x)), in place.

    Its inputs are results of a BatchNorm or of an addition, which no gradient needs again; in place, one
    activation is kept for the backward pass instead of two. The gradient is the same to the bit.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; the result is the input's own memory."""
        return F.hardtanh(x, inplace=True)


class _PaddedShortcut(nn.Module):
    """Without parameters: fewer pixels, then zero channels on both sides.

    Where the width doubles, each side gets a quarter of the new width.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (out_channels - in_channels) // 2
        self.padding = (0, 0, 0, 0, before, out_channels - in_channels - before)


class AveragePoolShortcut(_PaddedShortcut):
    """Average pooling over stride x stride."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride), rounded up as a convolution's."""
        return F.pad(F.avg_pool2d(x, self.stride, ceil_mode=True), self.padding)


class SubsampleShortcut(_PaddedShortcut):
    """Of March 2021: every stride-th pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, H / stride, W / stride), rounded up."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


class TwoConvolutions(nn.Module):
    """The binarised 3x3 convolutions of a block and their BatchNorms, which derived classes connect.

    Args:
        in_channels: of the block's input.
        channels: of its result.
        stride: of the first convolution.
        convolution: class of both.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, convolution: Convolution) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, channels, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)


class LearnableShift(nn.Module):
    """x + bias with one learnt value per channel (ReActNet, ECCV 2020).

    Parameter `bias` (1, C, 1, 1), initially 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x + self.bias

    def layer_cost(self) -> LayerCost:
        """32 bits a channel; its additions are not counted."""
        return LayerCost(values=(self.bias,))


def pooled_downsample(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """The shortcut of ReActNet's blocks: average pooling, 1x1 convolution with real weights, BatchNorm.

    (N, in_channels, H, W) to (N, channels, H / stride, W / stride), rounded up at odd sizes as the strided convolution
    beside it does.
    """
    return nn.Sequential(
        nn.AvgPool2d(2, stride=stride, ceil_mode=True),
        nn.Conv2d(in_channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )


def residual_stages(
    block: Callable[[int, int, int, Convolution], nn.Module],
    convolution: Convolution,
    widths: Sequence[int],
    blocks: Sequence[int],
) -> list[nn.Sequential]:
    """The stages of a residual network, each but the first beginning with a block of stride 2.

    Args:
        block: from input channels, channels, stride and convolution to a block.
        convolution: class of the binarised convolutions.
        widths: channels of each stage; the network's stem has those of the first.
        blocks: how many each stage has.
    """
    return [
        nn.Sequential(
            block(in_channels, channels, 2 if number else 1, convolution),
            *(block(channels, channels, 1, convolution) for _ in range(count - 1)),
        )
        for number, (in_channels, channels, count) in enumerate(zip((widths[0], *widths), widths, blocks, strict=False))
    ]


def initialise_kaiming(model: nn.Module, *, linear: bool = False) -> None:
    """Kaiming-normal (fan-in) initialisation of every convolution, binary ones included.

    Args:
        model: changed in place.
        linear: whether linear layers get it too.
    """
    kinds = (nn.Conv2d, nn.Linear) if linear else (nn.Conv2d,)
    for module in model.modules():
        if isinstance(module, kinds):
            nn.init.kaiming_normal_(module.weight)
