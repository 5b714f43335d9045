"""Keeps credentials out of everything that is stored, printed or logged."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

from recu.tracking.tracker import RunDescription

_HIDDEN = "***"
_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME")
# Greedy up to the last "@" before the path ends, because a careless password may itself hold an "@".
_USER_INFO = re.compile(r"(?<=://)[^/\s'\"]+@")
_SECRET_QUERY = re.compile(r"(?i)([?&](?:password|passwd|token|key|secret)[^=&\s]*=)[^&\s'\"]+")
_SHORTEST_SECRET = 4


def redact(text: str) -> str:
    """`text` without user names and passwords in addresses, and without the values of MLFLOW_TRACKING_*
    secrets.

    Values of fewer than four characters are not searched for outside addresses: they would match ordinary
    words.
    """
    text = _USER_INFO.sub(f"{_HIDDEN}@", text)
    text = _SECRET_QUERY.sub(rf"\1{_HIDDEN}", text)
    for secret in _secrets():
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", _HIDDEN, text)
    return text


def redact_values(values: Mapping[str, str]) -> dict[str, str]:
    """`values` with each value redacted."""
    return {name: redact(str(value)) for name, value in values.items()}


def redact_description(description: RunDescription) -> RunDescription:
    """`description` with every free text in it redacted."""
    dataset = description.dataset
    return replace(
        description,
        run_name=redact(description.run_name),
        params=redact_values(description.params),
        tags=redact_values(description.tags),
        dataset=None if dataset is None else replace(dataset, source=redact(dataset.source)),
    )


def _secrets() -> list[str]:
    values = [os.environ.get(name, "") for name in _SECRET_VARIABLES]
    long_enough = {value for value in values if len(value) >= _SHORTEST_SECRET}
    # The longest first, so that a secret that contains another leaves no rest behind.
    return sorted(long_enough | {quote(value, safe="") for value in long_enough}, key=len, reverse=True)
