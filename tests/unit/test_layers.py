"""Imports go one way: cli -> stages -> {engine, report} -> {models, data, tracking} -> nn -> base."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import recu

PACKAGE = Path(recu.__file__).parent
LEVELS = {"cli": 5, "stages": 4, "engine": 3, "report": 3, "models": 2, "data": 2, "tracking": 2, "nn": 1}
BASE = 0
TOP = 6  # __main__ starts the command line


def part_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def level(part: str) -> int:
    return TOP if part == "__main__" else LEVELS.get(part, BASE)


def imported_modules(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from recu import paths` names a module; `from recu.paths import CHECKPOINT` does not.
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "recu" else {node.module}
    return {name for name in names if name.split(".")[0] == "recu"}


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_upward_or_sideways_import(file: Path) -> None:
    own = part_of(".".join(("recu", *file.relative_to(PACKAGE).with_suffix("").parts)))
    for module in imported_modules(file):
        other = part_of(module)
        if other != own:
            allowed = level(other) < level(own) or level(other) == level(own) == BASE
            assert allowed, f"{file} imports {module}"


@pytest.mark.parametrize("module", ["recu.plan", "recu.experiments", "recu.schemas", "recu.cli.main", "recu.tracking"])
def test_planning_and_help_load_no_heavy_library(module: str) -> None:
    heavy = "{'torch', 'numba', 'mlflow', 'pandas', 'sklearn', 'matplotlib'}"
    code = f"import sys, {module}; found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
