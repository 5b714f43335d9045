"""The one table from family, name and variant to the function that builds a network."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from recu.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from torch import nn

STAGES = (0, 1, 2)


class ModelName(NamedTuple):
    """What a user writes to get a network; `variant` is None for the current form."""

    family: str
    name: str
    variant: str | None


# Values are "module:function", imported on use, so that listing names does not load torch.
_BUILDERS: Mapping[ModelName, str] = MappingProxyType(
    {
        ModelName("cifar", "resnet18_1w1a", None): "recu.models.cifar:resnet18",
        ModelName("cifar", "resnet18_1w1a", "2021-03"): "recu.models.cifar:resnet18_2021_03",
        ModelName("cifar", "resnet18A_1w1a", None): "recu.models.cifar:resnet18_a",
        ModelName("cifar", "resnet18B_1w1a", None): "recu.models.cifar:resnet18_b",
        ModelName("cifar", "resnet18C_1w1a", None): "recu.models.cifar:resnet18_c",
        ModelName("cifar", "resnet20_1w1a", None): "recu.models.cifar:resnet20",
        ModelName("cifar", "resnet20_1w1a", "2021-03"): "recu.models.cifar:resnet20_2021_03",
        ModelName("cifar", "resnet34_1w1a", None): "recu.models.cifar:resnet34",
        ModelName("cifar", "vgg_small_1w1a", None): "recu.models.cifar:vgg_small",
        ModelName("imagenet", "resnet18_1w1a", None): "recu.models.imagenet:resnet18",
        ModelName("imagenet", "resnet34_1w1a", None): "recu.models.imagenet:resnet34",
        ModelName("reactnet", "resnet18_1w1a", None): "recu.models.reactnet:resnet18",
        ModelName("reactnet", "resnet34_1w1a", None): "recu.models.reactnet:resnet34",
        ModelName("birealnet", "birealnet18", None): "recu.models.birealnet:birealnet18",
    }
)


def available_models() -> list[ModelName]:
    """Every network `build_model` can build, sorted by family, name and variant (the current form first)."""
    return sorted(_BUILDERS, key=lambda entry: (entry.family, entry.name, entry.variant or ""))


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
    families = {entry.family for entry in _BUILDERS}
    if family not in families:
        raise unknown_name("model family", family, families)
    names = {entry.name for entry in _BUILDERS if entry.family == family}
    if name not in names:
        raise unknown_name(f"model of family {family!r}", name, names)
    entry = ModelName(family, name, variant)
    if entry not in _BUILDERS:
        variants = [known.variant or "" for known in _BUILDERS if known[:2] == (family, name)]
        if not any(variants):
            raise ConfigError(f"model {name!r} of family {family!r} has no variant {variant!r}: leave it out")
        raise unknown_name(f"variant of {name!r}", variant or "", [known for known in variants if known])
    if stage not in STAGES:
        raise ConfigError(f"stage is {stage!r}, expected 0 (full precision), 1 (binary activations) or 2 (binary)")
    if num_classes < 1:
        raise ConfigError(f"num_classes is {num_classes}, expected at least 1")
    module, function = _BUILDERS[entry].split(":")
    build = getattr(importlib.import_module(module), function)
    return build(num_classes, _convolution(family, stage))


def _convolution(family: str, stage: int) -> type[nn.Conv2d]:
    from recu.models.layers import COMPETITOR_CONVOLUTIONS, RECU_CONVOLUTIONS

    return (COMPETITOR_CONVOLUTIONS if family == "birealnet" else RECU_CONVOLUTIONS)[stage]
