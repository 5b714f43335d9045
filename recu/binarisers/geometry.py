"""What a convolution of this package does not do, and says so where an attribute of torch's convolution asks for it."""

from __future__ import annotations

from torch import nn


def has_plain_geometry(layer: nn.Conv2d) -> bool:
    """Whether a layer has a stride and zeros around the image, and nothing else: no dilation, groups or bias."""
    pairs = (layer.stride, layer.padding)
    return (
        all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs)
        and layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and layer.bias is None
    )


def require_plain_geometry(layer: nn.Conv2d) -> None:
    """Refuse attributes that the layer's own forward would not look at.

    Raises:
        ValueError: see `has_plain_geometry`.
    """
    if not has_plain_geometry(layer):
        raise ValueError(
            f"{type(layer).__name__} has stride {layer.stride}, padding {layer.padding}, dilation {layer.dilation},"
            f" {layer.groups} groups, padding mode {layer.padding_mode!r} and {'no' if layer.bias is None else 'a'}"
            " bias: expected stride and padding as pairs of whole numbers, dilation (1, 1), one group, 'zeros' and no"
            " bias; a layer with others is a class of its own"
        )
