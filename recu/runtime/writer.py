"""The bytes of a packed network's file, which docs/packed.md describes and `recu.runtime.reader` reads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recu.base.files import canonical_json
from recu.runtime.reader import MAGIC, NUMBERS, PREFIX, VERSION

_ALIGNMENT = 4
"""Bytes; every tensor begins at a multiple of it."""


def packed_bytes(header: Mapping[str, Any], operations: Sequence[Mapping[str, Any]]) -> bytes:
    """A file that `recu.runtime.reader.parse` gives these of; equal ones give equal bytes.

    Args:
        header: JSON-compatible, without a key `operations`.
        operations: as `recu.runtime.reader.Packed` has them; `weight` of a "binary" one is int8 of -1, 0 and 1, every
            other array float32 or int32.

    Raises:
        ValueError: a number is not finite.
    """
    tensors = bytearray()

    def stored(key: str, values: NDArray[Any]) -> dict[str, Any]:
        at = len(tensors)
        kind = "bits" if values.dtype == np.int8 else values.dtype.name
        if kind != "bits" and not np.isfinite(values).all():
            raise ValueError(f"a {key} is not finite")
        tensors.extend(_bits(values) if kind == "bits" else values.astype(NUMBERS[kind]).tobytes())
        tensors.extend(bytes(-len(tensors) % _ALIGNMENT))
        return {kind: list(values.shape), "at": at}

    said = []
    for operation in operations:
        entry = {key: stored(key, each) if isinstance(each, np.ndarray) else each for key, each in operation.items()}
        weight = operation.get("weight")
        if isinstance(weight, np.ndarray) and weight.dtype == np.int8 and not weight.all():
            entry["zeros"] = stored("zeros", np.flatnonzero(weight == 0).astype(np.int32))
        said.append(entry)
    text = canonical_json({**header, "operations": said}).encode()
    text += b" " * (-(PREFIX.size + len(text)) % _ALIGNMENT)
    body = PREFIX.pack(MAGIC, VERSION, len(text)) + text + tensors
    return body + hashlib.sha256(body).digest()


def _bits(signs: NDArray[np.int8]) -> bytes:
    """1 for +1, 0 for all else; each filter in whole bytes, the first weight in the lowest bit."""
    return np.packbits(signs.reshape(len(signs), -1) > 0, axis=1, bitorder="little").tobytes()
