"""Nested parameters as the flat text pairs that a tracker stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recu.base.files import canonical_json


def flatten_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Nested mappings become dotted names; text stays as it is, every other value becomes JSON (None:
    "null").

    >>> flatten_params({"model": "resnet20_1w1a", "hyperparameters": {"lr": 0.1, "lr_decay_step": [30, 60]}})
    {'model': 'resnet20_1w1a', 'hyperparameters.lr': '0.1', 'hyperparameters.lr_decay_step': '[30,60]'}
    """
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            flat |= {f"{name}.{inner}": text for inner, text in flatten_params(value).items()}
        else:
            flat[name] = value if isinstance(value, str) else canonical_json(value)
    return flat
