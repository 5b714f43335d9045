"""Copying a checkpoint's weights into a network: all of them or none, and only what can be a network's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recu.base.errors import CheckpointError
from recu.models import canonical_names, normalise_state_dict, removed_prefixes
from recu.training.checkpoint_reading import listed, one_line

COUNTERS = ("total_ops", "total_params", "n_averaged")
"""Last parts of the names of tensors that profilers such as thop, and torch's AveragedModel, put beside a network's."""
NEVER_USED = ("num_batches_tracked",)
"""Of BatchNorm, younger than many files. Nothing is computed from it where there is a momentum, as everywhere here."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of the tensors of a checkpoint."""

    expected: int
    taken: int
    missing: tuple[str, ...]
    """Names the network has and the checkpoint has not, all of them allowed."""
    unexpected: tuple[str, ...]
    """Names the checkpoint has and the network has not, all of them harmless."""
    prefixes: tuple[str, ...] = ()
    """What stood before the network's own names and was taken away, e.g. `module.`."""
    converted: tuple[str, ...] = ()
    """Types of numbers that were converted to the network's, e.g. `float16`."""

    def as_json(self) -> dict[str, Any]:
        """Its fields, with lists for tuples."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def __str__(self) -> str:
        text = f"{self.taken} of {self.expected} tensors taken"
        text += f", {len(self.missing)} missing" + (f" ({listed(self.missing)})" if self.missing else "")
        text += f", {len(self.unexpected)} unexpected" + (f" ({listed(self.unexpected)})" if self.unexpected else "")
        text += f", prefix {' and '.join(self.prefixes)} taken away" if self.prefixes else ""
        return text + (f", converted from {' and '.join(self.converted)}" if self.converted else "")


def load_weights(
    model: nn.Module, state_dict: Mapping[str, Tensor], *, allow_missing: Sequence[str] = ()
) -> LoadReport:
    """Copy a checkpoint's weights into a network; all of them or none.

    Names may carry the prefixes that `recu.models.canonical_names` takes away, `tau` may have either shape, numbers may
    be of another floating-point type, and `num_batches_tracked` may be missing.

    Args:
        model: keeps its device, dtypes and layout.
        state_dict: named tensors.
        allow_missing: last parts of further names that may be missing, those that the network's stage adds to that
            of the weights (`recu.models.build.further_state`).

    Raises:
        CheckpointError: tensors are missing, have another shape, belong to layers that the network has not, or hold
            values that no trained network has.
    """
    given = normalise_state_dict(state_dict)
    state = model.state_dict()
    names = canonical_names(state)
    own = {names[name]: tensor for name, tensor in state.items()}
    missing = tuple(name for name in own if name not in given)
    unexpected = tuple(name for name in given if name not in own)
    shared = [name for name in own if name in given]
    misshapen = [name for name in shared if given[name].shape != own[name].shape]
    _check_classes(own, given, misshapen)
    foreign = [name for name in unexpected if _last_part(name) not in COUNTERS]
    problems = _problems(
        lacking=[name for name in missing if _last_part(name) not in (*allow_missing, *NEVER_USED)],
        foreign=foreign,
        misshapen=[_shapes(name, own, given) for name in misshapen],
    )
    if problems:
        raise CheckpointError(
            f"the checkpoint does not fit the network, {len(own)} tensors expected: {'; '.join(problems)};"
            f" {_advice(own, given, only_foreign=len(problems) == 1 and bool(foreign))}"
        )
    values = {name: _usable(name, given[name], own[name]) for name in shared}
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    converted = [name for name in shared if own[name].is_floating_point() and given[name].dtype != own[name].dtype]
    kinds = {str(given[name].dtype).removeprefix("torch.") for name in converted}
    return LoadReport(
        expected=len(own),
        taken=len(shared),
        missing=missing,
        unexpected=unexpected,
        prefixes=removed_prefixes(state_dict),
        converted=tuple(sorted(kinds)),
    )


def _check_classes(own: Mapping[str, Tensor], given: Mapping[str, Tensor], misshapen: Sequence[str]) -> None:
    """Where nothing but the classifier differs, and that only in its number of classes, say so."""
    classifier = list(own)[-1].rpartition(".")[0]
    differing = [name for name in misshapen if given[name].shape[1:] == own[name].shape[1:] and given[name].ndim]
    if misshapen and differing == list(misshapen) and all(n.rpartition(".")[0] == classifier for n in misshapen):
        found, expected = (len(tensors[misshapen[0]]) for tensors in (given, own))
        raise CheckpointError(
            f"the checkpoint's network has {found} classes, expected {expected} ({_shapes(misshapen[0], own, given)}):"
            " check the dataset"
        )


def _usable(name: str, given: Tensor, own: Tensor) -> Tensor:
    """The values in the network's type. Raises CheckpointError for what no trained network holds."""
    if given.layout != torch.strided or given.is_quantized or given.device.type == "meta":
        raise CheckpointError(f"the checkpoint's {name} is no dense tensor with values of its own ({given.layout})")
    if given.is_complex() or (own.is_floating_point() and given.dtype not in _FLOATS):
        raise CheckpointError(
            f"the checkpoint's {name} is of type {given.dtype}, expected {own.dtype}: numbers of that type stand for"
            " others that the file does not name"
        )
    try:
        value = given.to(own.dtype)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise CheckpointError(f"the checkpoint's {name} cannot be used: {one_line(error)}") from error
    if own.is_floating_point():
        _check_values(name, value)
    return value


def _check_values(name: str, value: Tensor) -> None:
    last = _last_part(name)
    if not bool(value.isfinite().all()):
        problem = "is not finite (NaN or infinite): its training has diverged, or the file was damaged"
    elif last == "running_var" and bool((value < 0).any()):
        problem = "is negative, and a variance is not: the file was damaged"
    elif last == "tau" and not bool(((value > 0.5) & (value <= 1)).all()):
        problem = f"is {value.flatten()[0]:g}, expected a value in (0.5, 1]: the file was damaged"
    else:
        return
    raise CheckpointError(f"the checkpoint's {name} {problem}; give another file")


def _shapes(name: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    return f"{name} {tuple(given[name].shape)} for {tuple(own[name].shape)}"


def _problems(*, lacking: list[str], foreign: list[str], misshapen: list[str]) -> list[str]:
    kinds = (("missing", lacking), ("of another shape", misshapen), ("of no layer of this network", foreign))
    return [f"{len(names)} {kind} ({listed(names)})" for kind, names in kinds if names]


def _advice(own: Mapping[str, Tensor], given: Mapping[str, Tensor], *, only_foreign: bool) -> str:
    """What to do about a checkpoint that does not fit; where a part of it is the network, which."""
    needed = [name for name in own if _last_part(name) not in NEVER_USED]
    ends = (name.removesuffix(needed[0]) for name in given if name.endswith(f".{needed[0]}"))
    below = [start for start in ends if all(f"{start}{name}" in given for name in needed)]
    if below:
        return (
            f"the names that begin with {listed(below)} are this network's: write the tensors of one beginning into a"
            " file of their own, without it"
        )
    more = ", or write the network's own tensors into a file of their own" if only_foreign else ""
    return f"check model, family, variant, stage and dataset{more}"


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]
