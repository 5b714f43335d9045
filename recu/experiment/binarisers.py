"""The one table of binarisers: name, title, and the convolution that each has at a stage.

Free of torch: values are "module:class", imported on use by `recu.models.build`, so that planning can check names.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from recu.base.errors import ConfigError
from recu.experiment.own import entry_names, find_own

USUAL = "recu"
"""The binariser of a recipe that names none, in each family its own: the competitor's in `birealnet`, else ReCU."""

REAL = "recu.binarisers.real:RealConv2d"
"""Stage 0 of every binariser."""


class Binariser(NamedTuple):
    """One entry of the table."""

    title: str
    """How tables call it."""
    convolutions: Mapping[int, Any]
    """"module:class", or the class itself, by stage: 2 binarises activations and weights, 1 activations alone where
    there is such a stage."""

    @property
    def stages(self) -> tuple[int, ...]:
        """Those that it can be built at."""
        return (0, *sorted(self.convolutions))

    def convolution(self, stage: int) -> Any:
        """The class of a stage, as in the table."""
        return self.convolutions[stage] if stage else REAL


_COMPETITOR = Binariser(
    "ReActNet",
    {1: "recu.binarisers.real:SignActivationConv2d", 2: "recu.binarisers.react:CompetitorBinaryConv2d"},
)
_BINARISERS: Mapping[str, Binariser] = MappingProxyType(
    {
        USUAL: Binariser(
            "ReCU",
            {1: "recu.binarisers.real:RescaledSignActivationConv2d", 2: "recu.binarisers.recu:BinaryConv2d"},
        ),
        "ir-net": Binariser("IR-Net", {2: "recu.binarisers.irnet:IRNetConv2d"}),
        "reste": Binariser("ReSTE", {2: "recu.binarisers.reste:ReSTEConv2d"}),
        "biper": Binariser(
            "BiPer", {1: "recu.binarisers.biper:PeriodicWeightConv2d", 2: "recu.binarisers.biper:BiPerConv2d"}
        ),
        "biper-f30": Binariser(
            "BiPer, f = 30 in stage 2",
            {1: "recu.binarisers.biper:PeriodicWeightConv2d", 2: "recu.binarisers.biper:FasterBiPerConv2d"},
        ),
        "sign": Binariser("plain sign", {2: "recu.binarisers.sign:SignConv2d"}),
        "recu-centred": Binariser("ReCU, centred only", {2: "recu.binarisers.ablation:CentredBinaryConv2d"}),
        "recu-unstandardised": Binariser(
            "ReCU, not standardised", {2: "recu.binarisers.ablation:UnstandardisedBinaryConv2d"}
        ),
        "recu-b1": Binariser("ReCU, b = 1", {2: "recu.binarisers.ablation:NarrowBinaryConv2d"}),
        "recu-b4": Binariser("ReCU, b = 4", {2: "recu.binarisers.ablation:WideBinaryConv2d"}),
    }
)


def available_binarisers() -> tuple[str, ...]:
    """Every name of the table, ReCU's first, and those that installed packages bring."""
    return (*_BINARISERS, *entry_names("binariser"))


def package_binarisers() -> tuple[str, ...]:
    """Every name of the table, ReCU's first."""
    return tuple(_BINARISERS)


def title_of(name: str, *, family: str = "") -> str:
    """How tables call the binariser of a network; one that this version does not know by its name."""
    if family == "birealnet":
        return _COMPETITOR.title
    return _BINARISERS[name].title if name in _BINARISERS else name


def find_binariser(name: str, *, family: str) -> Binariser:
    """What a recipe's `binariser` means for a network of a family.

    Raises:
        ConfigError: unknown name, answered with the nearest right one, one's own that is no binariser, or a family that
            has its own and no other.
    """
    found = _BINARISERS[name] if name in _BINARISERS else _own(name)
    if family != "birealnet":
        return found
    if name != USUAL:
        raise ConfigError(
            f"binariser {name!r}: networks of family 'birealnet' are the competitor's, with its own binariser: leave"
            " binariser out, or choose another family"
        )
    return _COMPETITOR


def _own(name: str) -> Binariser:
    value = find_own("binariser", name, _BINARISERS).value
    convolutions = value if isinstance(value, Mapping) else {2: value}
    if not convolutions.keys() <= {1, 2} or not all(isinstance(each, type) for each in convolutions.values()):
        raise ConfigError(
            f"binariser {name!r} is a {type(value).__name__}: expected a class of convolutions, or a mapping of such to"
            " the stages 1 and 2"
        )
    return Binariser(name.rpartition(":")[2], convolutions)


def is_same_at(stage: int, name: str, other: str) -> bool:
    """Whether two binarisers have one convolution at a stage."""
    both = [_BINARISERS[each].convolutions.get(stage) for each in (name, other) if each in _BINARISERS]
    return name == other or (len(both) == 2 and both[0] is not None and both[0] == both[1])


def check_binariser(name: str, *, family: str, stage: int) -> None:
    """Raise ConfigError for a binariser that is not in the table, or not for a network of this family and stage."""
    found = find_binariser(name, family=family)
    if stage not in found.stages:
        raise ConfigError(
            f"binariser {name!r} has no stage {stage!r}, expected {' or '.join(map(str, found.stages))} (0 full"
            " precision, 1 binary activations, 2 binary activations and weights)"
        )
