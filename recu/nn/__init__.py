"""The layers that networks are made of: they ask `recu.kernels` for a faster form and else run `recu.binarisers`."""

from recu.binarisers.react import CompetitorBinaryConv2d
from recu.binarisers.real import RealConv2d, RescaledSignActivationConv2d, SignActivationConv2d
from recu.binarisers.recu import BinaryConv2d, set_tau
from recu.nn.binary_unit import binary_unit, convolve

__all__ = [
    "BinaryConv2d",
    "CompetitorBinaryConv2d",
    "RealConv2d",
    "RescaledSignActivationConv2d",
    "SignActivationConv2d",
    "binary_unit",
    "convolve",
    "set_tau",
]
