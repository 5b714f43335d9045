"""The list of files in docs/architecture.md: made from the modules' docstrings by `python -m tests.architecture`."""

import ast
import textwrap
from pathlib import Path

from recu.experiment.paths import PROJECT_DIR

PAGE = PROJECT_DIR / "docs/architecture.md"
HEADING = "## Files\n"
LEVELS = {
    "base": 0,
    "experiment": 1,
    "binarisers": 2,
    "kernels": 3,
    "nn": 4,
    "runtime": 4,
    "models": 5,
    "data": 5,
    "results": 5,
    "training": 6,
    "export": 6,
    "report": 6,
    "verify": 6,
    "tracking": 6,
    "stages": 7,
    "cli": 8,
    "__main__": 9,
}
"""Of each part of the package: it imports from parts of a lower level only. `__init__` belongs to none."""


def page() -> str:
    """docs/architecture.md as it has to be: what is written there by hand, then every file with its line."""
    by_hand = PAGE.read_text(encoding="utf-8").partition(HEADING)[0]
    packages = (PROJECT_DIR / "recu", *(PROJECT_DIR / "recu" / part for part in LEVELS), PROJECT_DIR / "benchmarks")
    return by_hand + HEADING + "".join(_section(folder) for folder in packages if folder.is_dir())


def _section(folder: Path) -> str:
    files = sorted(folder.glob("*.py") if folder.name == "recu" else folder.rglob("*.py"))
    level = f", level {LEVELS[folder.name]}" if folder.name in LEVELS else ""
    lines = [_line(file, folder) for file in files if ast.parse(file.read_bytes()).body]
    return f"\n### {folder.relative_to(PROJECT_DIR)}/{level}\n\n" + "".join(lines)


def _line(file: Path, folder: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_bytes())) or f"{file} has no docstring"
    line = f"- `{file.relative_to(folder)}`: {' '.join(docstring.partition(chr(10) * 2)[0].split())}"
    return textwrap.fill(line, 118, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
