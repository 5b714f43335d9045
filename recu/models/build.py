"""Builds a network of the table in `recu.experiment.networks`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from recu.base.errors import ConfigError
from recu.experiment.networks import check_network, find_network

if TYPE_CHECKING:
    from torch import nn


def build_model(name: str, *, family: str, num_classes: int, variant: str | None = None, stage: int = 2) -> nn.Module:
    """Build a freshly initialised network from torch's global generator.

    Args:
        name: e.g. "resnet20_1w1a".
        family: "cifar", "imagenet", "reactnet" or "birealnet".
        num_classes: length of the logits, at least 1.
        variant: "2021-03" for the form first published, None for the current one.
        stage: 2 binarises activations and weights, 1 activations only, 0 nothing. The networks of the
            stages have the same shapes and keys, but for `alpha` and `tau`, which only ReCU's stage 2 has.

    Returns:
        A module from (N, 3, H, W) to logits (N, num_classes), in training mode.

    Raises:
        ConfigError: unknown family, name, variant or stage, or no classes.
    """
    check_network(name, family=family, variant=variant, stage=stage)
    if num_classes < 1:
        raise ConfigError(f"num_classes is {num_classes}, expected at least 1")
    module, function = find_network(name, family=family, variant=variant).builder.split(":")
    build = getattr(importlib.import_module(module), function)
    return build(num_classes, _convolution(family, stage))


def _convolution(family: str, stage: int) -> type[nn.Conv2d]:
    from recu.nn.layers import COMPETITOR_CONVOLUTIONS, RECU_CONVOLUTIONS

    return (COMPETITOR_CONVOLUTIONS if family == "birealnet" else RECU_CONVOLUTIONS)[stage]
