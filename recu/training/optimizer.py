"""Optimisers and the three ways in which the recipes group parameters for weight decay."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from recu.base.errors import unknown_name


def _decays_always(_name: str, _parameter: nn.Parameter) -> bool:
    return True


def _decays_by_name(name: str, _parameter: nn.Parameter) -> bool:
    # By NAME, as the authors' program does: so alpha decays, and downsample.* and bn* do not.
    return "conv" in name or "fc" in name


def _decays_four_dimensional(name: str, parameter: nn.Parameter) -> bool:
    # Shifts (1, C, 1, 1) have four dimensions and decay too.
    return parameter.ndim == 4 or "conv" in name


GROUPINGS: Mapping[str, Callable[[str, nn.Parameter], bool]] = MappingProxyType(
    {"all": _decays_always, "imagenet": _decays_by_name, "birealnet": _decays_four_dimensional}
)
KINDS: Mapping[str, tuple[type[torch.optim.Optimizer], tuple[str, ...]]] = MappingProxyType(
    {
        "adam": (torch.optim.Adam, ("step", "exp_avg", "exp_avg_sq")),
        "sgd": (torch.optim.SGD, ("momentum_buffer",)),
    }
)
"""Of each optimiser the class, and what it keeps of a parameter."""


def parameter_groups(model: nn.Module, weight_decay: float, grouping: str) -> list[dict[str, Any]]:
    """Split a network's parameters into those with and those without weight decay.

    Args:
        model: any network; parameters that need no gradient are included, as in the authors' program.
        weight_decay: factor for the parameters that decay; the others get 0.
        grouping: "all": everything decays; "imagenet": parameters whose name contains "conv" or "fc";
            "birealnet": parameters of four dimensions and those whose name contains "conv".

    Returns:
        Parameter groups in torch's form, the decaying one first; an empty one is left out.

    Raises:
        ConfigError: unknown grouping.
    """
    if grouping not in GROUPINGS:
        raise unknown_name("parameter grouping", grouping, GROUPINGS)
    decays = GROUPINGS[grouping]
    named = list(model.named_parameters())
    decaying = [parameter for name, parameter in named if decays(name, parameter)]
    others = [parameter for name, parameter in named if not decays(name, parameter)]
    groups = [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module, name: str, lr: float, momentum: float, weight_decay: float, grouping: str
) -> torch.optim.Optimizer:
    """Build the optimiser of a recipe.

    Args:
        model: the network to train.
        name: "sgd" or "adam" (whose weight decay is added to the gradient, not decoupled).
        lr: initial learning rate.
        momentum: of SGD; Adam does not use it.
        weight_decay: see `parameter_groups`.
        grouping: see `parameter_groups`.

    Returns:
        A torch optimiser.

    Raises:
        ConfigError: unknown name or grouping.
    """
    if name not in KINDS:
        raise unknown_name("optimizer", name, KINDS)
    groups = parameter_groups(model, weight_decay, grouping)
    own = {"momentum": momentum} if name == "sgd" else {}
    return _never_compiled(KINDS[name][0])(groups, lr=lr, **own)


def _never_compiled(optimizer: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The class without the wrappers that keep PyTorch's compiler out of its methods, and import it to do so.

    That takes two seconds of every training; here a compiled program holds networks, but never an optimiser.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    # Its wrapper also says that no gradients are taken.
    methods["step"] = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), methods)
