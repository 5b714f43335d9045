"""Builds a network of the table in `recu.experiment.networks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recu.base.errors import ConfigError
from recu.base.imports import imported
from recu.experiment.binarisers import USUAL, check_binariser, find_binariser
from recu.experiment.networks import check_network, find_network

if TYPE_CHECKING:
    from torch import nn


def build_model(
    name: str,
    *,
    family: str,
    num_classes: int,
    variant: str | None = None,
    stage: int = 2,
    binariser: str = USUAL,
) -> nn.Module:
    """Build a freshly initialised network from torch's global generator.

    Args:
        name: e.g. "resnet20_1w1a".
        family: "cifar", "imagenet", "reactnet" or "birealnet".
        num_classes: length of the logits, at least 1.
        variant: "2021-03" for the form first published, None for the current one.
        stage: 2 binarises activations and weights, 1 activations only, 0 nothing. The networks of the
            stages have the same shapes and keys, but for `alpha` and `tau`, which only ReCU's stage 2 has.
        binariser: "recu" for the family's own, or another name in `recu.experiment.binarisers`.

    Returns:
        A module from (N, 3, H, W) to logits (N, num_classes), in training mode.

    Raises:
        ConfigError: unknown family, name, variant, stage or binariser, or no classes.
    """
    check_network(name, family=family, variant=variant, stage=stage, binariser=binariser)
    if num_classes < 1:
        raise ConfigError(f"num_classes is {num_classes}, expected at least 1")
    build = imported(find_network(name, family=family, variant=variant).builder)
    return build(num_classes, convolution_of(family, stage, binariser))


def convolution_of(family: str, stage: int, binariser: str = USUAL) -> type[nn.Conv2d]:
    """The class of the convolutions that a network's family, stage and binariser decide. Raises ConfigError."""
    check_binariser(binariser, family=family, stage=stage)
    return imported(find_binariser(binariser, family=family).convolution(stage))


def further_state(family: str, binariser: str, stage: int, following: int) -> tuple[str, ...]:
    """Names of the tensors that a binarised convolution has at one stage and had not at an earlier one.

    Args:
        family: of the network.
        binariser: of both.
        stage: the earlier.
        following: the later.
    """
    import torch

    with torch.device("meta"):
        before, after = (convolution_of(family, each, binariser)(2, 2, 1).state_dict() for each in (stage, following))
    return tuple(name for name in after if name not in before)
