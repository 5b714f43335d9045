"""Keeps credentials out of everything that is stored, printed or logged."""

from __future__ import annotations

import base64
import logging
import os
import re
from urllib.parse import quote

from recu.base.text import encodable

_HIDDEN = "***"
_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME")
# Greedy up to the last "@" before the path ends, because a careless password may itself hold an "@".
# A careless one may hold a "/" or a quote too; what follows a port is a path.
_USER_INFO = re.compile(r"(?<=://)(?:[^/\s'\"]+|(?!\[)[^/\s:@]*:(?!\d+(?:[/?#,)'\"]|$))[^\s@]*(?:@[^\s@/]*)*)@")
# Names that hold such a word, e.g. X-Amz-Signature, access_token; of the short words, only whole parts of a name.
_SECRET_NAME = (
    r"[^=&;\s]*(?:passw|token|secret|signature|credential|apikey|accesskey|auth(?!or)|jwt|session)[^=&;\s]*"
    r"|(?:[^=&;\s]*[-_.])?(?<!ssl[-_.])(?:key|sig|pwd|pass|sas)(?:[-_.][^=&;\s]*)?"
    r"|key[^=&;\s]*"
)
_SECRET_QUERY = re.compile(rf"(?i)([?&;#](?:{_SECRET_NAME})=)[^&;\s'\"]+")
_SHORTEST_SECRET = 4


def redact(text: str) -> str:
    """`text` without user names and passwords in addresses, and without the values of MLFLOW_TRACKING_* secrets.

    Values of fewer than four characters are not searched for outside addresses: they would match ordinary words.
    """
    text = without_credentials(text)
    for secret in _secrets():
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?![\w=])", _HIDDEN, text)
    return text


def without_credentials(text: str) -> str:
    """`text` without what addresses in it say of a user, a password or a key."""
    return _SECRET_QUERY.sub(rf"\1{_HIDDEN}", _USER_INFO.sub(f"{_HIDDEN}@", text))


class RedactingFormatter(logging.Formatter):
    """Formats as `logging.Formatter`, exceptions included, redacts the whole of it and escapes what no file takes."""

    def format(self, record: logging.LogRecord) -> str:
        """The line to write."""
        return encodable(redact(super().format(record)))


def _secrets() -> list[str]:
    values = [os.environ.get(name, "") for name in _SECRET_VARIABLES]
    password, _, user = values
    if password:
        # As HTTP sends the two, and as a server's answer may repeat them.
        values.append(base64.b64encode(f"{user}:{password}".encode()).decode())
    long_enough = {value for value in values if len(value) >= _SHORTEST_SECRET}
    # The longest first, so that a secret that contains another leaves no rest behind.
    return sorted(long_enough | {quote(value, safe="") for value in long_enough}, key=len, reverse=True)
