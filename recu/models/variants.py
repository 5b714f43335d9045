"""Telling the forms of a checkpoint apart and bringing its state dict into this project's form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

DATA_PARALLEL_PREFIX = "module."

# The competitor's blocks have a `prelu` too, but beside `binary_conv`: a block must also have `conv1`.
_BLOCK = re.compile(r"(layer\d+\.\d+)\.(shortcut\.0|prelu|conv1)\.weight")


def recognise_variant(keys: Iterable[str]) -> str | None:
    """Tell from the keys of a state dict whether a CIFAR ResNet is of the form first published in March 2021.

    Args:
        keys: state-dict keys, with or without DataParallel's prefix.

    Returns:
        "2021-03" if a block has a binary shortcut (ResNet-18) or a PReLU (ResNet-20), else None.
    """
    parts: dict[str, set[str]] = {}
    for key in keys:
        match = _BLOCK.fullmatch(key.removeprefix(DATA_PARALLEL_PREFIX))
        if match:
            parts.setdefault(match[1], set()).add(match[2])
    early = any("conv1" in names and names & {"shortcut.0", "prelu"} for names in parts.values())
    return "2021-03" if early else None


def normalise_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip DataParallel's `module.` from every key and bring `tau` of shape (1,) to ().

    The authors' `tau` has shape () when fresh and (1,) once trained.

    Args:
        state_dict: left as it is.

    Returns:
        A new dict in the same order; tensors are shared.
    """
    normalised = {}
    for key, value in state_dict.items():
        name = key.removeprefix(DATA_PARALLEL_PREFIX)
        is_tau = name == "tau" or name.endswith(".tau")
        normalised[name] = value.reshape(()) if is_tau and value.numel() == 1 else value
    return normalised
