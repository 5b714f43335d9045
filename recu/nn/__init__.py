"""The paper: rectified clamp unit, sign estimators and the convolutions built on them."""

from recu.binarisers.tau import set_tau
from recu.nn.binary_conv import BinaryConv2d
from recu.nn.binary_unit import binary_unit
from recu.nn.competitor import CompetitorBinaryConv2d
from recu.nn.real_conv import RealConv2d, RescaledSignActivationConv2d, SignActivationConv2d

__all__ = [
    "BinaryConv2d",
    "CompetitorBinaryConv2d",
    "RealConv2d",
    "RescaledSignActivationConv2d",
    "SignActivationConv2d",
    "binary_unit",
    "set_tau",
]
