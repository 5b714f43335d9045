"""Whether a layer is exactly what its class says, so that a faster form may stand in for calling it."""

from __future__ import annotations

from functools import cache
from typing import TypeGuard, TypeVar

from torch import nn
from torch.nn.modules import module as torch_module

M = TypeVar("M", bound=nn.Module)

_SWITCHED_OFF = "kernels_switched_off"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_exactly(layer: nn.Module, *kinds: type[M]) -> TypeGuard[M]:
    """Whether calling a layer runs the forward of one of these very classes, and nothing beside it.

    A subclass is another layer, whatever it inherits, and so is one with a parametrisation, which torch makes a class
    of its own. A hook may look at or change what goes through; a method set on the instance replaces the class's.

    Args:
        layer: any module.
        kinds: classes; a class derived from one of them does not count.
    """
    return type(layer) in kinds and not is_altered(layer)


def switch_off(model: nn.Module) -> None:
    """Let every layer of a network, and every copy of it, run its own forward and no kernel."""
    for layer in model.modules():
        setattr(layer, _SWITCHED_OFF, True)


def is_altered(layer: nn.Module) -> bool:
    """Whether something put on a layer, or on all layers of the process, takes part when it is called.

    So that a layer without kernels needs no rule of its own, it counts as one that must be called.
    """
    attributes = vars(layer)
    return (
        attributes.get(_SWITCHED_OFF, False)
        or any(attributes.get(name) for name in _HOOKS)
        or not attributes.keys().isdisjoint(_methods(type(layer)))  # type: ignore[arg-type]
        or torch_module._has_any_global_hook()
    )


@cache
def _methods(kind: type[nn.Module]) -> frozenset[str]:
    return frozenset(name for name in dir(kind) if callable(getattr(kind, name, None)))
