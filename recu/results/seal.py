"""The self-check that every published metrics.json carries: a hash of its own content.

It tells an altered file from one as it was published. It is no signature: who wants to deceive can compute it too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recu.base.errors import ResultError
from recu.base.files import atomic_write_json, canonical_json, read_json

SEAL = "content_sha256"
"""Key of the hash; it covers every other key."""


def content_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of `content` as canonical JSON, without the self-check itself.

    Raises:
        ValueError: it holds what JSON cannot express, e.g. a number that is not finite.
    """
    return hashlib.sha256(canonical_json({key: content[key] for key in content if key != SEAL}).encode()).hexdigest()


def seal_problem(content: Mapping[str, Any]) -> str | None:
    """Why `content` is not as it was published, in words; None where it is."""
    stated = content.get(SEAL)
    if stated is None:
        return f"has no {SEAL}: altered, or of an earlier version"
    try:
        intact = stated == content_hash(content)
    except ValueError:  # NaN and infinities, which no stage writes
        intact = False
    return None if intact else f"was altered after it was published ({SEAL} differs)"


def write_sealed_json(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write `content` with its self-check to `path`, atomically; returns what was written. Raises OutputError."""
    written = dict(content) | {SEAL: content_hash(content)}
    atomic_write_json(path, written)
    return written


def read_sealed_json(path: Path, *, again: str) -> dict[str, Any]:
    """A published JSON file, refused unless its self-check says that it is as it was published.

    Args:
        path: the file.
        again: the command that makes it again, said where it is refused.

    Raises:
        ResultError: it is missing, is no JSON object, or was altered.
    """
    try:
        content = read_json(path)
    except ResultError as error:
        raise ResultError(f"{error}: make it again: {again}") from error
    if not isinstance(content, dict):
        raise ResultError(f"{path} is not of the expected form: make it again: {again}")
    problem = seal_problem(content)
    if problem is not None:
        raise ResultError(f"{path} {problem}: make it again: {again}")
    return content
