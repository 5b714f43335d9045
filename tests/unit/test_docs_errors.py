"""docs/errors.md and the error classes say the same."""

import re

from recu.base import errors
from recu.base.errors import RecuError
from recu.cli import main
from recu.experiment.paths import PROJECT_DIR

WITHOUT_CLASS = {0, 1, main._KEYBOARD}


def documented() -> list[tuple[int, str | None]]:
    """Exit code and class of every line of the page's table."""
    text = (PROJECT_DIR / "docs/errors.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (\d+) \| (?:`(\w+)`)? *\|", text, re.MULTILINE)
    return [(int(code), name or None) for code, name in lines]


def classes(base: type[RecuError] = RecuError) -> list[type[RecuError]]:
    return [base, *(found for child in base.__subclasses__() for found in classes(child))]


def test_every_class_is_documented_with_its_code_and_no_other():
    ours = {(found.exit_code, found.__name__) for found in classes() if found.__module__ == errors.__name__}
    assert {(code, name) for code, name in documented() if name} == ours


def test_the_codes_without_a_class_are_documented_too():
    assert {code for code, name in documented() if name is None} == WITHOUT_CLASS


def test_no_class_elsewhere_brings_a_code_of_its_own():
    assert {found.exit_code for found in classes()} <= {code for code, _ in documented()}


def test_nothing_is_documented_twice():
    assert len(documented()) == len(set(documented()))
