"""Checkpoint files in the authors' form: written so that none is ever lost, read so that none can run code.

A checkpoint is a dict with the authors' keys `epoch` (the NEXT epoch), `model`, `state_dict`, `best_prec1`,
`best_prec5`, `optimizer` and `lr_scheduler`, and under `recu` what continuing exactly needs (see
`recu.training.trainer`). It holds tensors and plain Python values only: torch loads it with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recu.base.errors import CheckpointError, OutputError
from recu.base.files import atomic_writer
from recu.experiment import paths
from recu.training.checkpoint_form import check_form
from recu.training.checkpoint_reading import as_tensor, listed, read_bytes, read_content, shown

RESUME_KEY = "recu"

_log = logging.getLogger(__name__)
_AVERAGED = re.compile(r"(?:^|[_.])ema(?:$|[_.])|average", re.IGNORECASE)


def previous_of(path: Path) -> Path:
    """Where `save_checkpoint` keeps the file that `path` replaced: `checkpoint.previous.pth.tar`."""
    return paths.beside(path, "previous")


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write one file atomically. Equal checkpoints give equal bytes.

    Raises:
        OutputError: it cannot be written, or cannot be read back.
    """
    _write(path, _to_bytes(checkpoint))


def _to_bytes(checkpoint: Mapping[str, Any]) -> bytes:
    # By way of memory: on a full disk torch's own writer ends in an error about its archive, and not in one about the
    # disk; besides, it writes in thousands of pieces.
    buffer = io.BytesIO()
    torch.save(_canonical(checkpoint), buffer)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with atomic_writer(path) as stream:
        stream.write(content)


def save_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path`, keeping the replaced file as `previous_of(path)`.

    The new file is complete, flushed to disk and read back before the old one is moved, so at any moment, whatever is
    killed, `load_latest` finds a whole checkpoint.

    Raises:
        OutputError: it cannot be written, or reads back damaged; the checkpoint at `path` is then as it was.
    """
    following, content = paths.beside(path, "next"), _to_bytes(checkpoint)
    _write(following, content)
    try:
        written = read_bytes(following)
        if not path.exists():  # later ones are of the same form; reading it takes longer than all else here
            read_content(written, following)
        if written != content:
            raise CheckpointError(f"{following} holds other bytes than were written")
    except CheckpointError as error:
        following.unlink(missing_ok=True)
        raise OutputError(f"a checkpoint just written reads back damaged: {error}; check the disk") from error
    try:
        if path.exists():
            path.replace(previous_of(path))
        following.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; check permissions") from error


def without_momenta(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The same weights without what the optimiser remembers of each, which a finished training needs no more."""
    return {**checkpoint, "optimizer": {**checkpoint["optimizer"], "state": {}}}


def lacks_momenta(checkpoint: Mapping[str, Any]) -> bool:
    """Whether it is what `without_momenta` made."""
    optimizer = checkpoint.get("optimizer")
    return isinstance(optimizer, Mapping) and optimizer.get("state") == {}


def free_state(path: Path) -> None:
    """Remove the checkpoint at `path` and what this program keeps beside it for continuing; the training is finished.

    Files of other names, such as copies of the user's, stay. `path` itself goes last, so that a training killed
    meanwhile is still found finished, and frees the rest.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        for file in paths.state_files(path):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {error.filename}: {error.strerror}; check permissions") from error


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


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """A checkpoint as it was read, of this program, of the authors' or of others."""

    path: Path
    content: dict[str, Any]
    """Its top-level keys; `state_dict` is there whatever the file calls it."""
    weights_key: str | None
    """The key that the weights stood under; None where the file is nothing but weights."""
    sha256: str
    """Of the very bytes that were read."""


def open_checkpoint(path: Path) -> CheckpointFile:
    """Read a checkpoint (zip format or that before PyTorch 1.6), tensors on the CPU, and say where its weights stood.

    A file that holds nothing but named tensors is taken for a `state_dict`; where a file has none, the weights under
    another key are taken if they are the only ones, averaged ones (`ema`) aside.

    Raises:
        CheckpointError: one line: missing, damaged, of another kind, not a checkpoint, holding objects that could run
            code, or several sets of weights of which none is the one to take.
    """
    data = read_bytes(path)
    content = read_content(data, path)
    key, weights = _find_weights(content, path)
    found = dict(content) if key is not None else {}
    if key != "state_dict":
        found.pop(key, None)
    content = found | {"state_dict": weights}
    if RESUME_KEY in content:
        check_form(content, content[RESUME_KEY], path)
    return CheckpointFile(
        path=path,
        content=content,
        weights_key=key,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; as `open_checkpoint`."""
    return open_checkpoint(path).content


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
        path.replace(paths.beside(path, "damaged"))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(f"cannot move the damaged {path} aside: {error.strerror}; check permissions") from error


def _find_weights(content: Any, path: Path) -> tuple[str | None, dict[str, Tensor]]:
    """The key of the weights to take (None: the file is nothing else), and the weights."""
    bare = _weights_in(content)
    if bare:
        return None, bare
    found = {key: weights for key in _keys(content) if (weights := _weights_in(content[key])) and _may_be(key, weights)}
    averaged = [key for key in found if _AVERAGED.search(key)]
    plain = [key for key in found if key not in averaged]
    key = "state_dict" if "state_dict" in found else next(iter(plain if len(plain) == 1 else found), None)
    # Averaged weights never stand in for plain ones that cannot be read.
    spoilt = next((k for k in _keys(content) if not plain and k not in found and _holds_weights(content[k])), None)
    if key is None or spoilt is not None:
        raise CheckpointError(
            f"{path} is not a checkpoint: expected a dict with a `state_dict` of named tensors, found"
            f" {_what(content, spoilt)}; write the weights alone where it was made: torch.save(model.state_dict(),"
            " 'weights.pth')"
        )
    others = [other for other in found if other != key]
    if key != "state_dict" and len(plain) != 1 and others:
        raise CheckpointError(
            f"{path} holds several sets of weights ({listed(list(found))}), and none is called `state_dict`: write"
            f" those that are meant into a file of their own, e.g. torch.save(torch.load(FILE)[{key!r}], 'weights.pth')"
        )
    if key != "state_dict" or others:
        left = f", not those of {listed(others)}" if others else ""
        _log.info("%s: the weights under its key %s are taken%s", path, shown(key), left)
    return key, found[key]


def _keys(content: Any) -> list[str]:
    return [key for key in content if isinstance(key, str)] if isinstance(content, Mapping) else []


def _weights_in(value: Any) -> dict[str, Tensor]:
    """Named tensors (or arrays); empty where `value` is anything else."""
    if not isinstance(value, Mapping):
        return {}
    named = {name: as_tensor(inner) for name, inner in value.items() if isinstance(name, str)}
    tensors = {name: tensor.detach() for name, tensor in named.items() if tensor is not None}
    return tensors if len(tensors) == len(value) else {}


def _holds_weights(value: Any) -> bool:
    """Whether some of what `value` names is a network's weights."""
    tensors = map(as_tensor, value.values()) if isinstance(value, Mapping) else ()
    return any(tensor is not None and tensor.ndim > 1 for tensor in tensors)


def _may_be(key: str, weights: Mapping[str, Tensor]) -> bool:
    # Measurements are named tensors too, but single numbers.
    return key == "state_dict" or any(tensor.ndim > 1 for tensor in weights.values())


def _what(content: Any, spoilt: str | None) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    key = spoilt or "state_dict"
    inside = content.get(key)
    if isinstance(inside, Mapping) and inside:
        other = next((name for name in inside if as_tensor(inside[name]) is None), None)
        return f"a `{shown(key)}` whose {shown(other)} is no tensor"
    return f"the keys {listed(list(content), most=12)}" if content else "an empty dict"


def _canonical(value: Any) -> Any:
    """The same value with equal texts being one object, since pickle writes an object's second mention differently."""
    # First what most values are: a history of hundreds of epochs is walked at every save.
    if value is None or isinstance(value, (int, float, Tensor)):
        return value
    if isinstance(value, str):
        return sys.intern(str(value))
    if isinstance(value, Mapping):
        return {_canonical(key): _canonical(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_canonical(inner) for inner in value)
    raise TypeError(f"a checkpoint holds tensors and plain values only, not {type(value).__name__}")
