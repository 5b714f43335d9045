"""Imports of what tables name, and of large packages, a quarter faster."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def imported(place: Any) -> Any:
    """What "module:name" names, its module imported now; anything but a text is what it stands for."""
    if not isinstance(place, str):
        return place
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


@contextmanager
def without_collection() -> Iterator[None]:
    """Within the block Python does not look for garbage.

    It does so for every few hundred new objects, and modules being imported are thousands that are here to stay.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
