"""Imports go one way, and nowhere in a circle: the order of the parts is that of docs/architecture.md."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import recu
from tests.architecture import LEVELS

PACKAGE = Path(recu.__file__).parent


def name_of(file: Path) -> str:
    return ".".join(("recu", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


FILES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imported_modules(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from recu.experiment import paths` names a module, `from recu.experiment.paths import CHECKPOINT` none.
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (named & FILES.keys()) or {node.module}
    return {name for name in names if name.split(".")[0] == "recu"}


def test_every_part_has_its_level() -> None:
    assert {part_of(module) for module in FILES} == {"", *LEVELS}


@pytest.mark.parametrize("module", [module for module in FILES if part_of(module)])
def test_no_upward_or_sideways_import(module: str) -> None:
    own = part_of(module)
    for other in imported_modules(FILES[module]):
        if part_of(other) not in ("", own):
            assert LEVELS[part_of(other)] < LEVELS[own], f"{module} imports {other}"


def test_no_circle() -> None:
    TopologicalSorter({module: imported_modules(file) - {module} for module, file in FILES.items()}).prepare()


@pytest.mark.parametrize(
    "module",
    [
        "recu",
        "recu.experiment.plan",
        "recu.experiment.resolving",
        "recu.experiment.json_schema",
        "recu.cli.main",
        "recu.tracking",
    ],
)
def test_planning_and_help_load_no_heavy_library(module: str) -> None:
    heavy = "{'torch', 'numba', 'mlflow', 'pandas', 'sklearn', 'matplotlib'}"
    code = f"import sys, {module}; found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
