"""Text from elsewhere (titles, names, paths), shown as text wherever people read it and nowhere as markup."""

from __future__ import annotations

import re
import unicodedata

_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
"""Change the order in which text is shown, or show nothing."""

_MARKUP = re.compile(r"[\\`*\[\]{}|~$#]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown may take for its own anywhere in a line; an underscore inside a word it leaves alone."""
_LIST_OR_RULE = re.compile(r"^(\d*)([-+.)])(?=\s|$|-)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})

_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20'")


def visible(text: str) -> str:
    """`text` on one line, with control characters and marks of writing direction as escapes, e.g. `\\x1b`.

    What a terminal, an XML file or a reader's eye would take for something else than text cannot be in it.
    """
    return "".join(_escape(each) if _is_hidden(each) else each for each in " ".join(text.split()))


def encodable(text: str) -> str:
    """`text` as any file and terminal takes it: bytes of a file name that are no UTF-8 as escapes, e.g. `caf\\xe9`."""
    return _SURROGATE.sub(_byte_escape, text)


def markdown_text(text: str) -> str:
    """`text` as Markdown shows it unchanged inside a line or cell: no link, image, HTML, code, formula, cell end."""
    return _MARKUP.sub(r"\\\g<0>", visible(text)).translate(_ENTITIES)


def markdown_paragraph(text: str) -> str:
    """The same for a text that begins a line: no list, no rule."""
    return _LIST_OR_RULE.sub(lambda found: f"{found[1]}\\{found[2]}", markdown_text(text))


def csv_text(text: str) -> str:
    """`text` as a spreadsheet shows it unchanged: an apostrophe before what would begin a formula.

    As OWASP advises. Text that begins with an apostrophe gets one too, so that whoever removes one apostrophe from the
    beginning of each text cell has `visible(text)` again.
    """
    shown = visible(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def counted(number: int, noun: str) -> str:
    """A number and what is counted, e.g. "1 training" and "1,200 trainings"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _byte_escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    # Python reads a byte of a file name that is no UTF-8 as U+DC00 plus its value.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    # The last two code points of each plane are no characters, and XML refuses them.
    return category in ("Cc", "Cs") or character in _DIRECTION or ord(character) & 0xFFFE == 0xFFFE


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
