"""A packed network's file read with NumPy alone: the executable specification of docs/packed.md, in 100 lines."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"ReCUbits"
VERSION = 1
PREFIX = struct.Struct("<8sII")
"""The first bytes: MAGIC, version, length of the header. All numbers of a file are little-endian."""
DIGEST_BYTES = 32
"""The last bytes: SHA-256 of all before."""
NUMBERS = {"float32": "<f4", "int32": "<i4"}


class PackedError(ValueError):
    """Why a file is no packed network, in words that follow its name."""


@dataclass(frozen=True)
class Packed:
    """What a file says."""

    header: dict[str, Any]
    """All but the operations: network, classes, how images are seen, source."""
    operations: list[dict[str, Any]]
    """In their order. `op` names one, `of` lists the values that it takes: 0 is the image, n the result of the n-th
    operation. Whatever else it has is a plain value or an array; binary weights are int8, -1, 0 or 1."""
    sha256: str
    """Of the whole file."""


def read(path: Path) -> Packed:
    """Raises PackedError, OSError."""
    return parse(path.read_bytes())


def parse(data: bytes) -> Packed:
    """The same of a file's content."""
    if data[: len(MAGIC)] != MAGIC:
        raise PackedError(f"is no packed network: it does not begin with {MAGIC.decode()}")
    if len(data) < PREFIX.size + DIGEST_BYTES:
        raise PackedError(f"is cut off after {len(data)} bytes: write it again")
    _, version, length = PREFIX.unpack_from(data)
    if version != VERSION:
        raise PackedError(
            f"has version {version} of the packed form, expected {VERSION}: take a version of this program that knows"
            " it, or export the network again"
        )
    body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise PackedError("is damaged or cut off (its SHA-256 is not the one at its end): write it again")
    begin = PREFIX.size + length
    try:
        header = json.loads(body[PREFIX.size : begin].decode())
        operations = [_with_arrays(each, body[begin:]) for each in header.pop("operations")]
        if not operations or any(i not in range(n + 1) for n, each in enumerate(operations) for i in each["of"]):
            raise ValueError("an operation takes what comes after it, or there is none")
    except (ValueError, TypeError, LookupError, AttributeError, StopIteration, OverflowError, RecursionError) as error:
        raise PackedError(f"has no valid header ({error or type(error).__name__}): write it again") from error
    return Packed(header, operations, hashlib.sha256(data).hexdigest())


def _with_arrays(operation: dict[str, Any], tensors: bytes) -> dict[str, Any]:
    """An operation with arrays where its file has {"float32": shape, "at": offset} and the like."""
    found = {key: _array(value, tensors) if isinstance(value, dict) else value for key, value in operation.items()}
    if "zeros" in found:  # places of weights whose sign is 0
        places, signs = found.pop("zeros"), found["weight"].reshape(-1)
        signs[np.where(places < 0, signs.size, places)] = 0
    return found


def _array(entry: dict[str, Any], tensors: bytes) -> NDArray[Any]:
    at, (kind, shape) = entry["at"], next(item for item in entry.items() if item[0] != "at")
    if min([at, *shape]) < 0 or (kind == "bits" and min(shape) == 0):
        raise ValueError("a negative size, or filters without weights")
    if kind != "bits":
        numbers = np.frombuffer(tensors, NUMBERS[kind], math.prod(shape), at).reshape(shape).astype(kind)
        if not np.isfinite(numbers).all():
            raise ValueError("a number that is not finite")
        return numbers
    # Each filter begins with a byte; its first weight is the lowest bit of that. 1 is +1, 0 is -1.
    filters, weights = shape[0], math.prod(shape[1:])
    width = -(-weights // 8)
    packed = np.frombuffer(tensors, np.uint8, filters * width, at).reshape(filters, width)
    bits = np.unpackbits(packed, axis=1, count=weights, bitorder="little")
    return (bits.astype(np.int8) * 2 - 1).reshape(shape)
