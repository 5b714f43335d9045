"""The form of what this program writes into a checkpoint beside the weights, checked where a file is read.

A file may come from anywhere, and `weights_only=True` says of its values only that they are plain: whatever is used
later is checked here once, so that nothing after it meets a value of another kind. Foreign files have little of it:
what is taken from them is checked by `foreign_progress` and `recu.training.momenta`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recu.base.errors import CheckpointError, ResultError
from recu.results.records import EpochRecord, EpochResult, R, Reached, as_record
from recu.training.checkpoint_reading import as_tensor, shown

_LARGEST = 2**63 - 1
_DEEPEST, _MOST = 20, 1_000_000
"""Containers inside one another, and values in all: a container may hold itself, or another one many times."""
_WORDS_OF_MT19937 = 624


class _WrongForm(Exception):
    """Key and what was expected; becomes a CheckpointError that names the file."""


def check_form(checkpoint: Mapping[str, Any], ours: Any, path: Path) -> None:
    """Check a file of this program.

    Args:
        checkpoint: its top-level keys.
        ours: the part that only this program writes.
        path: the file, for the message.

    Raises:
        CheckpointError: naming the first value that has another form.
    """
    try:
        _check_identity(ours)
        _check_authors_part(checkpoint)
        if "row" in ours:
            _record(ours["row"], EpochResult, "recu.row")
        if "random" in ours:
            _check_progress(checkpoint, ours)
    except _WrongForm as error:
        raise CheckpointError(
            f"{path} is damaged or was altered: {error}; give another copy of the file, or train again"
        ) from error


def foreign_progress(checkpoint: Mapping[str, Any]) -> tuple[int, float | None]:
    """Epochs done and best top-1 (percent; None where it does not say) of a checkpoint with the authors' keys.

    Raises:
        CheckpointError: they are missing or no numbers.
    """
    epoch, best = _single(checkpoint.get("epoch")), _single(checkpoint.get("best_prec1"))
    if not _is_count(epoch) or "optimizer" not in checkpoint:
        raise CheckpointError("the checkpoint cannot be continued: it has no `epoch` (a count) or no `optimizer`")
    if best is not None and not (_is_number(best) and 0 <= best <= 100):
        raise CheckpointError(f"the checkpoint cannot be continued: its best_prec1 is {_said(best)}, expected 0 to 100")
    return epoch, None if best is None else float(best)


def _single(value: Any) -> Any:
    tensor = as_tensor(value)
    return value if tensor is None or tensor.numel() != 1 or tensor.is_quantized else tensor.item()


def _check_identity(ours: Any) -> None:
    _require(isinstance(ours, Mapping), "recu", "a dict", ours)
    for key in ("experiment", "spec_hash", "data_fingerprint"):
        _require(isinstance(ours.get(key), str), f"recu.{key}", "a text", ours.get(key))
    for key in ("format", "seed"):
        _require(_is_count(ours.get(key)), f"recu.{key}", "a count", ours.get(key))
    try:
        parsed = json.loads(ours["experiment"])
    except (ValueError, RecursionError):
        parsed = None
    _require(isinstance(parsed, dict), "recu.experiment", "a JSON object", ours["experiment"])


def _check_authors_part(checkpoint: Mapping[str, Any]) -> None:
    _require(_is_count(checkpoint.get("epoch")), "epoch", "a count", checkpoint.get("epoch"))
    _require(isinstance(checkpoint.get("model"), str), "model", "a text", checkpoint.get("model"))
    for key in ("best_prec1", "best_prec5"):
        _require(_is_percent(checkpoint.get(key)), key, "a percentage", checkpoint.get(key))


def _check_progress(checkpoint: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """What continuing exactly needs."""
    first_form: dict[str, Any] = {"segments": [], "origins": {}} if ours["format"] == 1 else {}
    stated = {name: ours[name] for name in Reached.model_fields if name in ours}
    reached = _record(first_form | stated, Reached, "recu")
    history, epochs = reached.history, checkpoint["epoch"]
    consecutive = [row.epoch for row in history] == list(range(epochs - len(history), epochs))
    expected = f"one row for each epoch up to {epochs - 1}"
    _require(consecutive and len(history) <= epochs, "recu.history", expected, ours["history"])
    measured = [-1, *(each.epoch for each in reached.diagnostics), epochs]
    rising = all(one < other for one, other in itertools.pairwise(measured))
    _require(rising, "recu.diagnostics", f"one text for each epoch that was measured, up to {epochs - 1}", measured)
    _check_position(ours.get("position"), checked=ours["format"] > 1)
    known = bool(reached.segments) or not history or ours["format"] == 1
    _require(known, "recu.segments", "what trained the epochs of the history", ours.get("segments"))
    _check_plain({key: ours.get(key) for key in ("segments", "origins", "position", "best_checkpoint")})
    _check_best(checkpoint, ours.get("best_checkpoint"), history)
    _check_random(ours["random"], "recu.random")
    others = ours.get("random_of_others", [])
    _require(isinstance(others, (list, tuple)), "recu.random_of_others", "a list", others)
    for number, states in enumerate(others):
        _check_random(states, f"recu.random_of_others.{number}")


def _record(content: Any, kind: type[R], where: str) -> R:
    try:
        return as_record(content, kind, where)
    except ResultError as error:
        raise _WrongForm(str(error)) from error


def _check_position(position: Any, *, checked: bool) -> None:
    """The place inside an interrupted epoch; `checked` says whether it names what it is valid for."""
    if position is None:
        return
    where = "recu.position"
    _require(isinstance(position, Mapping), where, "a dict or None", position)
    step, seconds, sums = (position.get(key) for key in ("step", "seconds", "sums"))
    _require(_is_count(step), f"{where}.step", "a count", step)
    _require(_is_number(seconds) and seconds >= 0, f"{where}.seconds", "a number of seconds", seconds)
    _require(isinstance(sums, Mapping), f"{where}.sums", "a dict", sums)
    values = sums.get("sums")
    numbers = _is_tensor(values, torch.float64, (3,)) and bool(values.isfinite().all()) and bool((values >= 0).all())
    _require(numbers, f"{where}.sums.sums", "three sums", values)
    for key, value in sums.items():
        _require(key == "sums" or _is_count(value), f"{where}.sums.{shown(key)}", "a count", value)
    _require("n" in sums, f"{where}.sums.n", "a count", None)
    if checked:
        for key in ("unreadable", "left_out"):
            _require(key in sums, f"{where}.sums.{key}", "a count", None)
        valid_for, start = position.get("valid_for"), position.get("start")
        _require(isinstance(valid_for, Mapping), f"{where}.valid_for", "a dict", valid_for)
        _require(isinstance(start, str), f"{where}.start", "a text", start)
        signs = position.get("positive_at_start", {})
        _require(isinstance(signs, Mapping), f"{where}.positive_at_start", "a dict", signs)
        for name, packed in signs.items():
            one_byte = _is_tensor(packed, torch.uint8) and packed.ndim == 1
            _require(one_byte, f"{where}.positive_at_start.{shown(name)}", "bytes", packed)


def _check_best(checkpoint: Mapping[str, Any], best: Any, history: Sequence[EpochRecord]) -> None:
    """The best checkpoint so far, which is published as it stands here."""
    where = "recu.best_checkpoint"
    _require(isinstance(best, Mapping) if history else best is None, where, "that of the history's best epoch", best)
    if best is None:
        return
    try:
        _check_identity(best.get("recu"))
        _check_authors_part(best)
    except _WrongForm as error:
        raise _WrongForm(f"{where}: {error}") from error
    highest = max(history, key=lambda row: row.test_top1).result
    row = _record(best["recu"].get("row"), EpochResult, f"{where}.recu.row")
    _require(row == highest, f"{where}.recu.row", f"the row of epoch {highest.epoch}", best["recu"]["row"])
    weights, own = best.get("state_dict"), checkpoint["state_dict"]
    same = isinstance(weights, Mapping) and weights.keys() == own.keys()
    _require(same, f"{where}.state_dict", "the tensors of the network", weights)
    for name, tensor in own.items():
        found = weights[name]
        fits = _is_tensor(found, tensor.dtype, tuple(tensor.shape)) and bool(found.isfinite().all())
        _require(fits, f"{where}.state_dict.{shown(name)}", f"finite numbers of shape {tuple(tensor.shape)}", found)


def _check_random(random: Any, where: str) -> None:
    """The states of the random generators of a process; see `recu.training.seeding.random_states`."""
    _require(isinstance(random, Mapping), where, "a dict", random)
    python, numpy, own, cuda = (random.get(key) for key in ("python", "numpy", "torch", "cuda"))
    whole = isinstance(python, (list, tuple)) and len(python) == 3 and _is_count(python[0]) and python[0] == 3
    words: Any = python[1] if whole else None
    whole = whole and isinstance(words, (list, tuple)) and len(words) == _WORDS_OF_MT19937 + 1
    whole = whole and all(_is_count(word) and word < 2**32 for word in words) and words[-1] <= _WORDS_OF_MT19937
    whole = whole and (python[2] is None or _is_number(python[2]))
    _require(whole, f"{where}.python", "a state of Python's generator", python)
    whole = isinstance(numpy, Mapping) and numpy.get("bit_generator") == "MT19937"
    whole = whole and _is_tensor(numpy.get("key"), torch.int64, (_WORDS_OF_MT19937,))
    whole = whole and bool(((numpy["key"] >= 0) & (numpy["key"] < 2**32)).all())
    whole = whole and _is_count(numpy.get("pos")) and numpy["pos"] <= _WORDS_OF_MT19937
    whole = whole and _is_count(numpy.get("has_gauss")) and numpy["has_gauss"] <= 1 and _is_number(numpy.get("gauss"))
    _require(whole, f"{where}.numpy", "a state of NumPy's generator", numpy)
    _require(_is_generator_state(own), f"{where}.torch", "a state of PyTorch's generator", own)
    whole = isinstance(cuda, list) and all(_is_tensor(each, torch.uint8) and each.ndim == 1 for each in cuda)
    _require(whole, f"{where}.cuda", "states of PyTorch's generators", cuda)


def _is_generator_state(value: Any) -> bool:
    if not _is_tensor(value, torch.uint8):
        return False
    try:
        torch.Generator().set_state(value.clone())
    except (RuntimeError, TypeError):
        return False
    return True


def _check_plain(value: Any) -> None:
    """Refuse what could not be written again: other kinds than plain values and tensors, and endless nesting."""
    waiting, seen = [(value, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        _require(seen + len(waiting) <= _MOST, "recu", f"at most {_MOST} values", value)
        _require(depth <= _DEEPEST, "recu", f"at most {_DEEPEST} containers inside one another", value)
        if isinstance(value, Mapping):
            waiting += [(inner, depth + 1) for pair in value.items() for inner in pair]
        elif isinstance(value, (list, tuple)):
            waiting += [(inner, depth + 1) for inner in value]
        else:
            known = value is None or isinstance(value, (bool, int, float, str)) or _is_tensor(value)
            _require(known, "recu", "plain values and tensors", value)


def _require(condition: bool, where: str, expected: str, found: Any) -> None:
    if not condition:
        raise _WrongForm(f"{where} is {_said(found)}, expected {expected}")


def _said(value: Any) -> str:
    if value is None:
        return "missing"
    return shown(repr(value)) if isinstance(value, (bool, int, float, str)) else f"a {type(value).__name__}"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _is_number(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= _LARGEST
    return isinstance(value, float) and math.isfinite(value)


def _is_percent(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 100


def _is_tensor(value: Any, dtype: torch.dtype | None = None, shape: tuple[int, ...] | None = None) -> bool:
    """A dense tensor with values of its own."""
    if type(value) is not Tensor or value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        return False
    return (dtype is None or value.dtype == dtype) and (shape is None or tuple(value.shape) == shape)
