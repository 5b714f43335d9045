"""The one table of networks: family, name and variant, who builds it, and what a table says of its structure.

Free of torch: values are "module:function", imported on use by `recu.models.build`, so that planning can check names.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from recu.base.errors import ConfigError, unknown_name
from recu.experiment.binarisers import USUAL, check_binariser
from recu.experiment.own import entry_names, find_own, is_own

Family = Literal["cifar", "imagenet", "reactnet", "birealnet", "torchvision"]
Stage = Literal[0, 1, 2]
STAGES = get_args(Stage)
"""What a network binarises: 0 nothing, 1 activations, 2 activations and weights."""

TORCHVISION_TEACHERS = (
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny", "densenet121", "densenet161",
    "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3",
    "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_l",
    "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mnasnet0_75",
    "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "regnet_x_16gf",
    "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf", "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf",
    "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf", "regnet_y_400mf", "regnet_y_800mf",
    "regnet_y_8gf", "resnet101", "resnet152", "resnet18", "resnet34", "resnet50", "resnext101_32x8d",
    "resnext101_64x4d", "resnext50_32x4d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0", "squeezenet1_0", "squeezenet1_1", "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s",
    "swin_v2_t", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "vit_b_16",
    "vit_b_32", "vit_l_16", "vit_l_32", "wide_resnet101_2", "wide_resnet50_2",
)  # fmt: skip
"""Networks whose weights torchvision publishes as IMAGENET1K_V1, for 1000 classes; a test compares with torchvision."""

TORCHVISION_UNPUBLISHED = ("regnet_y_128gf", "vit_h_14")
"""Its other networks, which teach with weights of one's own only."""


ANY_SIZE = range(8, 4097)
"""The image sizes that a dataset may have: networks that average over all that is left of an image take every one."""

_VGG_SIZES = range(32, 40)  # three times halved, rounding down, they are the 4x4 that its classifier is made for


class ModelName(NamedTuple):
    """What a user writes to get a network; `variant` is None for the current form."""

    family: str
    name: str
    variant: str | None


class Network(NamedTuple):
    """One entry of the table."""

    builder: Any
    """"module:function", or the function itself; it takes the number of classes and the convolution class."""
    shortcut: str
    """How residual connections are laid out; worth more than a point of accuracy, so every table shows it."""
    stages: tuple[int, ...] = STAGES
    """The stages it can be built at."""
    sizes: range = ANY_SIZE
    """Image sizes (pixels a side) that it takes."""


_TWO, _ONE, _EACH, _NONE = "two per block", "one per block", "one per convolution", "none"

_NETWORKS: Mapping[ModelName, Network] = MappingProxyType(
    {
        ModelName("cifar", "resnet18_1w1a", None): Network("recu.models.cifar:resnet18", _ONE),
        ModelName("cifar", "resnet18_1w1a", "2021-03"): Network("recu.models.cifar:resnet18_2021_03", _ONE),
        ModelName("cifar", "resnet18A_1w1a", None): Network("recu.models.cifar:resnet18_a", _ONE),
        ModelName("cifar", "resnet18B_1w1a", None): Network("recu.models.cifar:resnet18_b", _ONE),
        ModelName("cifar", "resnet18C_1w1a", None): Network("recu.models.cifar:resnet18_c", _ONE),
        ModelName("cifar", "resnet20_1w1a", None): Network("recu.models.cifar:resnet20", _TWO),
        ModelName("cifar", "resnet20_1w1a", "2021-03"): Network("recu.models.cifar:resnet20_2021_03", _TWO),
        ModelName("cifar", "resnet34_1w1a", None): Network("recu.models.cifar:resnet34", _ONE),
        ModelName("cifar", "vgg_small_1w1a", None): Network("recu.models.cifar:vgg_small", _NONE, sizes=_VGG_SIZES),
        ModelName("imagenet", "resnet18_1w1a", None): Network("recu.models.imagenet:resnet18", _TWO),
        ModelName("imagenet", "resnet34_1w1a", None): Network("recu.models.imagenet:resnet34", _TWO),
        ModelName("reactnet", "resnet18_1w1a", None): Network("recu.models.reactnet:resnet18", _EACH),
        ModelName("reactnet", "resnet34_1w1a", None): Network("recu.models.reactnet:resnet34", _EACH),
        ModelName("torchvision", "resnet18", None): Network("recu.models.torchvision_networks:resnet18", _ONE, (0,)),
        ModelName("torchvision", "resnet34", None): Network("recu.models.torchvision_networks:resnet34", _ONE, (0,)),
        ModelName("birealnet", "birealnet18", None): Network("recu.models.birealnet:birealnet18", _EACH),
    }
)


def available_models(stage: int | None = None) -> list[ModelName]:
    """Every network of the table, sorted by family, name and variant (the current form first).

    Args:
        stage: only those that can be built at this stage; None for all.
    """
    names = [name for name, network in _NETWORKS.items() if stage is None or stage in network.stages]
    return sorted(names, key=lambda entry: (entry.family, entry.name, entry.variant or ""))


def check_network(
    name: str,
    *,
    family: str,
    variant: str | None,
    stage: int,
    image_size: int | None = None,
    binariser: str = USUAL,
) -> None:
    """Raise ConfigError for a network that is not in the table, or not at this stage, for images of this size or with
    this binariser.

    Args:
        name: as a user writes it.
        family: likewise.
        variant: None for the current form.
        stage: what is binarised.
        image_size: side of the dataset's images in pixels; None where it does not matter.
        binariser: a name in `recu.experiment.binarisers`.
    """
    network = find_network(name, family=family, variant=variant)
    if stage not in network.stages:
        raise ConfigError(
            f"model {name!r} of family {family!r} has no stage {stage!r}, expected"
            f" {' or '.join(map(str, network.stages))} (0 full precision, 1 binary activations, 2 binary activations"
            " and weights)"
        )
    check_binariser(binariser, family=family, stage=stage)
    if image_size is not None and image_size not in network.sizes:
        smallest, largest = network.sizes[0], network.sizes[-1]
        raise ConfigError(
            f"model {name!r} of family {family!r} takes images of {smallest} to {largest} pixels a side, the dataset's"
            f" are {image_size}: choose another model, or set the dataset's image_size to {smallest} in"
            " params/datasets.yaml"
        )


def find_network(name: str, *, family: str, variant: str | None = None) -> Network:
    """The table's entry of a network.

    Raises:
        ConfigError: unknown family, name or variant, answered with the nearest right one.
    """
    families = {entry.family for entry in _NETWORKS}
    if family not in families:
        raise unknown_name("model family", family, families)
    names = {entry.name for entry in _NETWORKS if entry.family == family}
    if is_own(name) or (name not in names and name in entry_names("network")):
        if variant is not None:
            raise ConfigError(f"model {name!r} has no variant {variant!r}: leave it out")
        return _own(name)
    if name not in names:
        raise unknown_name(f"model of family {family}:", name, (*names, *entry_names("network")))
    entry = ModelName(family, name, variant)
    if entry in _NETWORKS:
        return _NETWORKS[entry]
    variants = [known.variant for known in _NETWORKS if known[:2] == (family, name) and known.variant]
    if not variants:
        raise ConfigError(f"model {name!r} of family {family!r} has no variant {variant!r}: leave it out")
    raise unknown_name(f"variant of {name!r}", variant or "", variants)


def _own(name: str) -> Network:
    """What stands on a user's builder. Raises ConfigError."""
    builder = find_own("network", name, ()).value
    shortcut, stages, sizes = (getattr(builder, key, None) for key in ("shortcut", "stages", "sizes"))
    if not callable(builder) or not isinstance(shortcut, str):
        raise ConfigError(
            f"model {name!r} does not say how its residual connections are laid out, which tables show: set"
            f" {name.rpartition(':')[2]}.shortcut to a text, e.g. 'one per block' or 'none'"
        )
    if not set(stages or STAGES) <= set(STAGES) or not isinstance(sizes or ANY_SIZE, range):
        raise ConfigError(
            f"model {name!r}: expected stages among {STAGES} and sizes as a range, found {stages}, {sizes}"
        )
    return Network(builder, shortcut, tuple(stages or STAGES), sizes or ANY_SIZE)
