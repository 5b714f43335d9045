"""Telling the forms of a checkpoint apart and bringing its state dict into this project's form."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from recu.base.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

DATA_PARALLEL_PREFIX = "module."
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts that torch.compile and others put into names, before a network's or a layer's own."""
_HOLDERS = ("model.", "net.", "network.")
"""What a program may call the network that it keeps beside its loss; only if ALL names begin so."""

# The competitor's blocks have a `prelu` too, but beside `binary_conv`: a block must also have `conv1`.
_BLOCK = re.compile(r"(layer\d+\.\d+)\.(shortcut\.0|prelu|conv1)\.weight")


def recognise_variant(keys: Iterable[str]) -> str | None:
    """Tell from the keys of a state dict whether a CIFAR ResNet is of the form first published in March 2021.

    Args:
        keys: state-dict keys, with or without the prefixes that `canonical_names` takes away.

    Returns:
        "2021-03" if a block has a binary shortcut (ResNet-18) or a PReLU (ResNet-20), else None.
    """
    parts: dict[str, set[str]] = {}
    for name in canonical_names(keys).values():
        match = _BLOCK.fullmatch(name)
        if match:
            parts.setdefault(match[1], set()).add(match[2])
    early = any("conv1" in names and names & {"shortcut.0", "prelu"} for names in parts.values())
    return "2021-03" if early else None


def canonical_names(names: Iterable[str]) -> dict[str, str]:
    """The names that tensors have in a network itself, by the names that a file gives them.

    What DataParallel, torch.compile and the like put before them is taken away, however often and in whatever order it
    stands there, and so is the name of the attribute that holds the whole network (`model.`, `net.`, `network.`).

    Raises:
        CheckpointError: two names would become one, so that one of two tensors would be lost.
    """
    found = {name: _unwrapped(name) for name in names}
    while found and (holder := next((h for h in _HOLDERS if all(n.startswith(h) for n in found.values())), None)):
        found = {name: _unwrapped(inner.removeprefix(holder)) for name, inner in found.items()}
    twice = next((name for name, count in Counter(found.values()).items() if count > 1), None)
    if twice is not None:
        both = [name for name, canonical in found.items() if canonical == twice][:2]
        raise CheckpointError(
            f"the checkpoint holds {both[0]!a} and {both[1]!a}, which are both {twice!a} of the network: write those"
            " that are meant into a file of their own"
        )
    return found


def removed_prefixes(names: Iterable[str]) -> tuple[str, ...]:
    """What `canonical_names` takes away, e.g. ("module.",), sorted; for a report."""
    pairs = canonical_names(names).items()
    # Within a name it is a part, and not what comes before.
    removed = {name.removesuffix(inner) if name.endswith(inner) else "_orig_mod." for name, inner in pairs}
    return tuple(sorted(removed - {""}))


def _unwrapped(name: str) -> str:
    inner = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    while inner.startswith(DATA_PARALLEL_PREFIX):
        inner = inner.removeprefix(DATA_PARALLEL_PREFIX)
    return inner


def normalise_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give every tensor its `canonical_names` name, and bring `tau` of shape (1,) to ().

    The authors' `tau` has shape () when fresh and (1,) once trained.

    Args:
        state_dict: left as it is.

    Returns:
        A new dict in the same order; tensors are shared.

    Raises:
        CheckpointError: two names would become one.
    """
    names = canonical_names(state_dict)
    normalised = {}
    for key, value in state_dict.items():
        name = names[key]
        is_tau = name == "tau" or name.endswith(".tau")
        normalised[name] = value.reshape(()) if is_tau and value.numel() == 1 else value
    return normalised
