"""Checkpoint files in the authors' form: written so that none is ever lost, read so that none can run code.

A checkpoint is a dict with the authors' keys `epoch` (the NEXT epoch), `model`, `state_dict`, `best_prec1`,
`best_prec5`, `optimizer` and `lr_scheduler`, and under `recu` what continuing exactly needs (see
`recu.engine.trainer`). It holds tensors and plain Python values only, so that torch loads it with `weights_only=True`.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recu.errors import CheckpointError, OutputError
from recu.files import atomic_writer, check_ordinary
from recu.models import normalise_state_dict

RESUME_KEY = "recu"
STAGE_2_ONLY = ("alpha", "tau")
"""Tensors that only a network with ReCU has; the one thing an earlier stage's weights may lack."""

_log = logging.getLogger(__name__)
# Counters that profilers such as thop leave in a network's buffers; they are no part of it.
_PROFILER_COUNTERS = ("total_ops", "total_params")
_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of the tensors of a checkpoint."""

    expected: int
    taken: int
    missing: tuple[str, ...]
    """Names the network has and the checkpoint has not, all of them allowed."""
    unexpected: tuple[str, ...]
    """Names the checkpoint has and the network has not, all of them harmless."""

    def __str__(self) -> str:
        text = f"{self.taken} of {self.expected} tensors taken"
        missing = f", {len(self.missing)} missing ({_listed(self.missing)})" if self.missing else ", 0 missing"
        extra = f", {len(self.unexpected)} unexpected ({_listed(self.unexpected)})" if self.unexpected else ""
        return text + missing + (extra or ", 0 unexpected")


def previous_of(path: Path) -> Path:
    """Where `save_checkpoint` keeps the file that `path` replaced: `checkpoint.previous.pth.tar`."""
    return _beside(path, "previous")


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write one file atomically. Equal checkpoints give equal bytes.

    Raises:
        OutputError: it cannot be written, or cannot be read back.
    """
    content = _canonical(checkpoint)
    with atomic_writer(path) as stream:
        # By way of memory: on a full disk torch's own writer ends in an error about its archive, and not in one about
        # the disk; besides, it writes in thousands of pieces.
        buffer = io.BytesIO()
        torch.save(content, buffer)
        stream.write(buffer.getbuffer())


def save_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path`, keeping the replaced file as `previous_of(path)`.

    The new file is complete, flushed to disk and read back before the old one is moved, so at any moment, whatever is
    killed, `load_latest` finds a whole checkpoint.

    Raises:
        OutputError: it cannot be written, or reads back damaged; the checkpoint at `path` is then as it was.
    """
    following = _beside(path, "next")
    write_checkpoint(following, checkpoint)
    try:
        _check_readable(following)
    except CheckpointError as error:
        following.unlink(missing_ok=True)
        raise OutputError(f"a checkpoint just written reads back damaged: {error}; check the disk") from error
    try:
        if path.exists():
            path.replace(previous_of(path))
        following.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; check permissions") from error


def load_latest(path: Path) -> dict[str, Any] | None:
    """Read the checkpoint at `path` or, where it is missing or damaged, the one it replaced, and say so.

    A damaged file is moved aside to `checkpoint.damaged.pth.tar` when the one before it is whole, lest the next save
    take the damaged one for the one to keep.

    Returns:
        The checkpoint; None where there is neither file.

    Raises:
        CheckpointError: every file that is there is damaged.
    """
    failure: CheckpointError | None = None
    for candidate in (path, previous_of(path)):
        if not candidate.exists():
            continue
        try:
            checkpoint = read_checkpoint(candidate)
        except CheckpointError as error:
            failure = error
            _log.warning("%s", error)
            continue
        if candidate != path:
            _log.warning("continuing from the checkpoint before it, %s", candidate)
            _move_aside(path)
        return checkpoint
    if failure is not None:
        raise failure
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this program or of the authors' (zip or legacy format), tensors on the CPU.

    A file that holds nothing but named tensors is taken for a `state_dict`.

    Raises:
        CheckpointError: one line: missing, damaged, not a checkpoint, or holding objects that could run code.
    """
    _check_integrity(path)
    content = _load(path)
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        content = {"state_dict": content}
    if not isinstance(content, Mapping) or not _is_state_dict(content.get("state_dict")):
        raise CheckpointError(f"{path} is not a checkpoint: expected a dict with a `state_dict` of named tensors")
    return dict(content)


def load_weights(
    model: nn.Module, state_dict: Mapping[str, Tensor], *, allow_missing: Sequence[str] = ()
) -> LoadReport:
    """Copy a checkpoint's weights into a network; all of them or none.

    `module.` prefixes are stripped and `tau` may have either shape.

    Args:
        model: keeps its device, dtypes and layout.
        state_dict: named tensors.
        allow_missing: last parts of names that may be missing, `STAGE_2_ONLY` when a stage 0 or 1 network's weights
            start a stage 2 network; empty otherwise.

    Raises:
        CheckpointError: tensors are missing, have another shape, or belong to layers that the network has not.
    """
    given = normalise_state_dict(state_dict)
    own = model.state_dict()
    missing = tuple(name for name in own if name not in given)
    unexpected = tuple(name for name in given if name not in own)
    shared = [name for name in own if name in given]
    problems = _problems(
        lacking=[name for name in missing if _last_part(name) not in allow_missing],
        foreign=[name for name in unexpected if _last_part(name) not in _PROFILER_COUNTERS],
        misshapen=[
            f"{name} {tuple(given[name].shape)} for {tuple(own[name].shape)}"
            for name in shared
            if given[name].shape != own[name].shape
        ],
    )
    if problems:
        raise CheckpointError(
            f"the checkpoint does not fit the network, {len(own)} tensors expected: {'; '.join(problems)};"
            " check model, family, variant, stage and dataset"
        )
    _copy(own, given, shared)
    return LoadReport(expected=len(own), taken=len(shared), missing=missing, unexpected=unexpected)


def to_cpu(value: Any) -> Any:
    """A copy of nested dicts, lists and tensors with every tensor on the CPU, strides kept."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: to_cpu(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_cpu(inner) for inner in value)
    return value


def _move_aside(path: Path) -> None:
    try:
        path.replace(_beside(path, "damaged"))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(f"cannot move the damaged {path} aside: {error.strerror}; check permissions") from error


def _copy(own: Mapping[str, Tensor], given: Mapping[str, Tensor], names: Sequence[str]) -> None:
    with torch.no_grad():
        for name in names:
            try:
                own[name].copy_(given[name])
            except (RuntimeError, NotImplementedError, TypeError) as error:
                raise CheckpointError(f"the checkpoint's {name} cannot be used: {_one_line(error)}") from error


def _problems(*, lacking: list[str], foreign: list[str], misshapen: list[str]) -> list[str]:
    kinds = (("missing", lacking), ("of another shape", misshapen), ("of no layer of this network", foreign))
    return [f"{len(names)} {kind} ({_listed(names)})" for kind, names in kinds if names]


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _beside(path: Path, word: str) -> Path:
    stem, _, suffix = path.name.partition(".")
    return path.with_name(f"{stem}.{word}.{suffix}")


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


def _check_readable(path: Path) -> None:
    _check_integrity(path)
    _load(path)


def _check_integrity(path: Path) -> None:
    """Compare the checksums of a zip-format file, which torch itself ignores: a flipped bit would become a weight."""
    try:
        check_ordinary(path)
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # zipfile raises many kinds for damaged files
        raise CheckpointError(f"{path} is damaged: {_one_line(error)}") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of its part {damaged} is wrong")


def _load(path: Path) -> Any:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        with stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damaged content happens to trigger
        blocked = re.search(r"(?:GLOBAL|global|class) ([\w.]+) ", str(error))
        if blocked and "weights" in str(error).lower():
            raise CheckpointError(
                f"{path} holds Python objects that could run code ({blocked[1]}); a checkpoint may hold only tensors"
                " and plain values"
            ) from error
        # torch's own text is a page about its defaults, and says nothing about the file.
        reason = "PyTorch cannot read it" if "weights_only" in str(error) else _one_line(error)
        raise CheckpointError(f"{path} is damaged or not a checkpoint: {reason}") from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


def _canonical(value: Any) -> Any:
    """The same value with equal texts being one object, since pickle writes an object's second mention differently."""
    if isinstance(value, str):
        return sys.intern(str(value))
    if isinstance(value, Mapping):
        return {_canonical(key): _canonical(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_canonical(inner) for inner in value)
    if value is None or isinstance(value, (bool, int, float, Tensor)):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain values only, not {type(value).__name__}")
