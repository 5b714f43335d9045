"""Single values of the files under params/: names, texts, paths and numbers, with what each may be.

What YAML, or Snakemake's --config, reads as another type although a person can only have meant one thing is taken as
that: a suite called 2024, the GPU 0. Everything else is refused where it stands.
"""

from __future__ import annotations

import json
import struct
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from recu.base.errors import ConfigError
from recu.base.redaction import without_credentials
from recu.experiment.paths import user_path

V = TypeVar("V", bound=Iterable[Any])
N = TypeVar("N", bound=Iterable[str])

LARGEST = 2**31 - 1
"""What PyTorch, MLflow and SQLite all hold."""
LARGEST_SEED = 2**63 - 1
TAU_ABOVE, TAU_MOST = 0.5, 1
"""Of tau: Q(tau) = -m ln(2 - 2 tau) is positive above 0.5 only, and at 1 nothing is clamped (recu_clamp)."""
MOST_PROCESSES = 1024
"""Worker processes or threads of one job; no machine here has more cores."""

_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_FORBIDDEN_KINDS = ("Cc", "Cs", "Zl", "Zp")
"""Of Unicode: control characters, halves of characters, separators of lines and paragraphs."""


def number_as_text(value: Any) -> Any:
    """A number that stands where a name or a path does, as text: YAML reads 2024 as a number. Others unchanged."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def text_as_number(value: Any) -> Any:
    """A text of digits that stands where a count does, as a number: --config may quote it. Others unchanged."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value


def whole(value: Any) -> Any:
    """Unchanged, unless it equals a whole number and is none: true is no 1, 2.0 no 2. Raises ValueError."""
    if isinstance(value, bool | float):
        raise ValueError(f"should be a whole number, found {json.dumps(value)}")
    return value


def text_as_switch(value: Any) -> Any:
    """A text that says true or false, as that: Snakemake's --config takes only `True` and `False` for it."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def empty_as_text(value: Any) -> Any:
    """Nothing after a key, as the empty text; others unchanged."""
    return "" if value is None else value


def check_printable(text: str) -> str:
    """`text`, which a terminal, a table and a log show as it is.

    Raises:
        ValueError: it holds a control character, or one that ends lines or turns their direction.
    """
    for position, letter in enumerate(text):
        if unicodedata.category(letter) in _FORBIDDEN_KINDS or letter in _DIRECTIONS:
            raise ValueError(f"must hold no control characters, found U+{ord(letter):04X} at position {position}")
    return text


def as_line(text: str) -> str:
    """`text` with line ends, tabs and runs of spaces as one space. Raises ValueError as `check_printable`."""
    return " ".join(check_printable(text.translate({ord(letter): " " for letter in "\n\r\t"})).split())


def check_no_secret(text: str) -> str:
    """`text`, which is printed, logged and recorded.

    Raises:
        ValueError: an address in it holds a user name, a password, a key or a token; the message does not repeat it.
    """
    if without_credentials(text) != text:
        raise ValueError(
            "must hold no user name, password, key, token or signature, since it is printed and recorded: downloads"
            " take user and password from ~/.netrc; a file behind a signed address is fetched by hand and named under"
            " `sources` in params/config.yaml"
        )
    return text


def check_filled(text: str) -> str:
    """`text`. Raises ValueError if it is empty."""
    if not text:
        raise ValueError("string should have at least 1 character")
    return text


def check_once(values: V, what: str) -> V:
    """`values`. Raises ValueError where one is given twice.

    Args:
        values: in any order.
        what: how the message calls one.
    """
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"the {what} {value!r} is given twice")
        seen.add(value)
    return values


def check_apart(names: N, what: str) -> N:
    """`names`. Raises ValueError where two differ in nothing but capitals: many disks take them for one file.

    Args:
        names: each once.
        what: how the message calls one.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise ValueError(f"the {what}s {other!r} and {name!r} differ in capitals only: rename one")
    return names


def _expand(text: str) -> str:
    try:
        return str(user_path(text)) if text else text
    except ConfigError as error:
        raise ValueError(str(error)) from error  # so that the message begins with file and key


def _single(value: float) -> float:
    """`value`, which a network can compute with. Raises ValueError."""
    try:
        rounded = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError as error:
        raise ValueError(f"must fit into single precision (at most 3.4e38), found {value}") from error
    if value != 0 and rounded == 0:
        raise ValueError(f"must not vanish in single precision (at least 1.4e-45), found {value}")
    return value


def _quantile(value: float) -> float:
    rounded = struct.unpack("<f", struct.pack("<f", value))[0]
    if rounded <= TAU_ABOVE:
        raise ValueError(f"must exceed {TAU_ABOVE} in single precision too, found {value}")
    return value


NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?$"

MODEL_PATTERN = NAME_PATTERN[:-1] + r"(:[A-Za-z_][A-Za-z0-9_]*)?$"
"""A name, or `module:name`."""

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=80), BeforeValidator(number_as_text)]
"""A name that becomes part of a path, a wildcard and an MLflow tag: letters, digits, '_', '.' and '-', no '.' last."""

Line = Annotated[str, Field(max_length=2000), BeforeValidator(number_as_text), AfterValidator(as_line)]
"""A text for people, one line; it may stand in tables, pages and logs."""

Advice = Annotated[Line, AfterValidator(check_no_secret)]
"""A line that may name addresses."""

Address = Annotated[str, Field(max_length=2000), AfterValidator(check_printable), AfterValidator(check_no_secret)]
"""Where something is fetched from."""

UserPath = Annotated[
    str,
    Field(max_length=4000),
    BeforeValidator(number_as_text),
    AfterValidator(check_no_secret),  # first: a path has no "//", which begins an address's user and password
    AfterValidator(_expand),
    AfterValidator(check_printable),
]
"""A path in which `~` and variables are replaced; relative ones are relative to the project directory."""

Count = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
# The following are numbers that a network computes with: finite and not lost in single precision.
Share = Annotated[float, Field(ge=0, le=1), AfterValidator(_single)]
Spread = Annotated[float, Field(gt=0, le=1), AfterValidator(_single)]
"""Of pixel values in [0, 1], or 1 for none."""
Positive = Annotated[float, Field(gt=0), AfterValidator(_single)]
NonNegative = Annotated[float, Field(ge=0), AfterValidator(_single)]
Fraction = Annotated[float, Field(ge=0, lt=1), AfterValidator(_single)]
Quantile = Annotated[float, Field(gt=TAU_ABOVE, le=TAU_MOST), AfterValidator(_quantile)]
"""tau."""
