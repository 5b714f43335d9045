"""The plain implementation that the project's fast one is tested and measured against."""

from benchmarks.reference.binary_conv import ReferenceBinaryConv2d
from benchmarks.reference.networks import build_reference

__all__ = ["ReferenceBinaryConv2d", "build_reference"]
