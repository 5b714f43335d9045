"""What users bring along without touching the package: `module:name`, a file beside params/ or an installed module, or
the name of an entry point of an installed package.

This module is free of torch; what it imports for a user takes what that needs.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from recu.base.errors import ConfigError, unknown_name
from recu.base.files import canonical_json, hash_file

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Kind = Literal["binariser", "network", "dataset kind", "augmentation", "learning-rate schedule"]
GROUPS = MappingProxyType(
    {
        "binariser": "recu.binarisers",
        "network": "recu.networks",
        "dataset kind": "recu.dataset_kinds",
        "augmentation": "recu.augmentations",
        "learning-rate schedule": "recu.schedules",
    }
)
"""Of entry points, by kind."""


class CodeFile(NamedTuple):
    """One file of a user's code."""

    name: str
    """With its folders, below the one that holds params/, or of an installed package from its name on."""
    path: Path


@dataclass(frozen=True)
class Own:
    """One thing that a user brought."""

    value: Any
    """What the name stands for in its module."""
    sources: tuple[CodeFile, ...]
    """Every file of code behind it that is no part of another installed package."""


def is_own(name: str) -> bool:
    """Whether a name can only be a user's: `module:name`."""
    return ":" in name


def find_own(kind: Kind, name: str, known: Iterable[str]) -> Own:
    """What a name stands for that is in no table of the package.

    Args:
        kind: of thing.
        name: as params/ or an option has it.
        known: the names of the package's table, for the message.

    Raises:
        ConfigError: there is no such thing, or its module cannot be imported.
    """
    if is_own(name):
        return _loaded(kind, name, str(Path.cwd()))
    found = [point for point in _entry_points(kind) if point.name == name]
    if not found:
        raise unknown_name(kind, name, [*known, *entry_names(kind)])
    if len({point.value for point in found}) > 1:
        raise ConfigError(
            f"{kind} {name!r} is an entry point of several installed packages"
            f" ({' and '.join(sorted(point.value for point in found))}): name one as module:name"
        )
    return _loaded(kind, found[0].value, str(Path.cwd()))


def own_hash(sources: Iterable[CodeFile]) -> str | None:
    """SHA-256 over names and contents of files of users' code; None where there are none."""
    files = sorted({(file.name, hash_file(file.path)) for file in sources})
    return hashlib.sha256(canonical_json(files).encode()).hexdigest() if files else None


def entry_names(kind: Kind) -> tuple[str, ...]:
    """The names that installed packages bring."""
    return tuple(sorted({point.name for point in _entry_points(kind)}))


def let_import_from_here() -> None:
    """Let modules in the working directory be imported, after all others."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)


def _entry_points(kind: Kind) -> Iterable[EntryPoint]:
    import importlib.metadata

    return importlib.metadata.entry_points(group=GROUPS[kind])


@functools.cache
def _loaded(kind: Kind, place: str, folder: str) -> Own:
    module_name, _, name = place.partition(":")
    what = f"{kind} {place!r}"
    if not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(f"{what}: expected module:name, e.g. small:Small for the class Small in small.py")
    beside = _file_of(module_name, Path(folder))
    let_import_from_here()
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's code does
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "") in _parents(module_name)
        if missing and beside is None:
            raise ConfigError(
                f"{what}: there is no {module_name.replace('.', '/')}.py in {folder}, the working directory, and no"
                f" module {module_name} is installed"
            ) from error
        shown = " ".join(str(error).split())
        raise ConfigError(f"{what}: importing {module_name} failed: {type(error).__name__}: {shown}") from error
    file = Path(module.__file__) if module.__file__ else None
    if beside is not None and (file is None or file.resolve() != beside.resolve()):
        raise ConfigError(
            f"{what}: {beside} is not what Python imports as {module_name}, which is {file or 'built in'}: give the"
            " file another name"
        )
    if not hasattr(module, name):
        defined = [each for each in vars(module) if not each.startswith("_")]
        raise ConfigError(f"{what}: {unknown_name(f'name in {module_name}', name, defined)}")
    sources = _beside(module_name, Path(folder)) if beside is not None else _of_package(module)
    return Own(getattr(module, name), tuple(sorted(sources)))


def _parents(module_name: str) -> set[str]:
    parts = module_name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts) + 1)}


def _file_of(module_name: str, folder: Path) -> Path | None:
    base = folder.joinpath(*module_name.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


def _beside(module_name: str, folder: Path) -> set[CodeFile]:
    """A module's file and all those in the same project that it imports, directly or not, its packages' among them."""
    files = [_file_of(name, folder) for name in _parents(module_name)]
    found, waiting = set(), [file for file in files if file is not None]
    while waiting:
        if (current := waiting.pop()) in found:
            continue
        found.add(current)
        for node in ast.walk(ast.parse(current.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                package = current.parent.relative_to(folder).parts[: None if node.level < 2 else 1 - node.level]
                start = ".".join((*(package if node.level else ()), *((node.module,) if node.module else ())))
                names = [start, *(f"{start}.{alias.name}" if start else alias.name for alias in node.names)]
            every = {part for name in names if name for part in _parents(name)}
            waiting += [other for name in every if (other := _file_of(name, folder)) is not None]
    return {CodeFile(each.relative_to(folder).as_posix(), each) for each in found}


def _of_package(module: ModuleType) -> set[CodeFile]:
    """Every file of code of the installed package that a module belongs to."""
    top = sys.modules[module.__name__.partition(".")[0]]
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    files = {
        CodeFile(file.relative_to(folder.parent).as_posix(), file)
        for folder in folders
        for file in folder.rglob("*.py")
    }
    alone = Path(module.__file__ or "")
    return files or ({CodeFile(alone.name, alone)} if module.__file__ else set())
