"""What an optimiser remembers of earlier steps, taken out of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recu.base.errors import CheckpointError
from recu.training.checkpoint_reading import as_tensor, listed, shown
from recu.training.optimizer import KINDS


def load_momenta(optimizer: torch.optim.Optimizer, saved: Any) -> None:
    """Take momenta from a checkpoint's `optimizer`, and nothing else: rates and decays stay those of this training.

    Args:
        optimizer: of this training.
        saved: the state of the one that wrote the checkpoint, in torch's form.

    Raises:
        CheckpointError: it is not of that form, of another optimiser or of another network.
    """
    own = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    own_identifiers = [identifier for group in own["param_groups"] for identifier in group["params"]]
    identifiers, state = _identifiers(saved, [len(group["params"]) for group in optimizer.param_groups])
    names = next(names for kind, names in KINDS.values() if isinstance(optimizer, kind))
    kept = {
        own_identifier: _slots(state[identifier], parameter, names)
        for identifier, own_identifier, parameter in zip(identifiers, own_identifiers, parameters, strict=True)
        if identifier in state
    }
    optimizer.load_state_dict({"state": kept, "param_groups": own["param_groups"]})


def _identifiers(saved: Any, sizes: list[int]) -> tuple[list[int], Mapping[Any, Any]]:
    """Its parameters' numbers in order, and what it keeps of each."""
    groups = saved.get("param_groups") if isinstance(saved, Mapping) else None
    state = saved.get("state") if isinstance(saved, Mapping) else None
    if not (isinstance(groups, (list, tuple)) and all(map(_is_numbered, groups)) and isinstance(state, Mapping)):
        raise CheckpointError("the checkpoint's optimizer is not of torch's form: expected `state` and `param_groups`")
    found = [len(group["params"]) for group in groups]
    if found != sizes:
        raise CheckpointError(
            f"the checkpoint's optimizer has groups of {found} parameters, expected {sizes}: it is of another network,"
            " or of another weight_decay_groups"
        )
    return [identifier for group in groups for identifier in group["params"]], state


def _is_numbered(group: Any) -> bool:
    found = group.get("params") if isinstance(group, Mapping) else None
    return isinstance(found, (list, tuple)) and all(type(identifier) is int for identifier in found)


def _slots(slots: Any, parameter: nn.Parameter, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(slots, Mapping):
        raise CheckpointError("the checkpoint's optimizer is not of torch's form: expected a dict for each parameter")
    found = {name: value for name, value in slots.items() if value is not None}
    if found and set(found) != set(names):
        raise CheckpointError(
            f"the checkpoint's optimizer keeps {listed(list(found))}, expected {listed(names)}: it is of another"
            " optimizer"
        )
    return {name: _slot(name, value, parameter) for name, value in found.items()}


def _slot(name: str, value: Any, parameter: nn.Parameter) -> Tensor:
    """A copy: torch would train on the checkpoint's own tensors, which the best checkpoint in it may share."""
    shape = () if name == "step" else tuple(parameter.shape)
    tensor = torch.tensor(float(value)) if name == "step" and type(value) in (int, float) else as_tensor(value)
    if tensor is None or not _is_dense(tensor) or tuple(tensor.shape) != shape:
        has = f"shape {tuple(tensor.shape)} and type {tensor.dtype}" if tensor is not None else type(value).__name__
        raise CheckpointError(f"the checkpoint's optimizer has a {shown(name)} of {has}, expected shape {shape}")
    copied = tensor.detach().to(torch.float32 if name == "step" else parameter.dtype, copy=True)
    if not bool(copied.isfinite().all()) or (name in ("step", "exp_avg_sq") and bool((copied < 0).any())):
        raise CheckpointError(f"the checkpoint's optimizer has a {shown(name)} that is not finite, or below zero")
    return copied


def _is_dense(tensor: Tensor) -> bool:
    on_cpu = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return on_cpu and not tensor.is_quantized and tensor.is_floating_point()
