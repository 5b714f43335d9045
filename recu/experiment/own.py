"""What users bring along without touching the package: `module:name`, a file beside params/ or in the working
directory, an installed module, or the name of an entry point of an installed package.

This module is free of torch; what it imports for a user takes what that needs.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from recu.base.errors import ConfigError, unknown_name
from recu.base.files import canonical_json, hash_file
from recu.experiment.paths import PROJECT_DIR, find_params

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
    """With its folders, below the one that holds params/ or the working directory, or from an installed package's name
    on."""
    path: Path


@dataclass(frozen=True)
class Own:
    """One thing that a user brought."""

    value: Any
    """What the name stands for in its module."""
    sources: tuple[CodeFile, ...]
    """Every file of code behind it that is no part of another installed package."""


_PACKAGE = PROJECT_DIR / "recu"


@dataclass
class _InUse:
    params: Path | None = None
    """Absolute; None for what `recu.experiment.paths.find_params` finds."""
    searched: dict[Path, None] = field(default_factory=dict)
    """Folders that this process has imported from."""


_in_use = _InUse()


def look_beside(params_dir: Path | None) -> None:
    """Look for files of users' code beside this folder params/ from now on, in this process.

    Args:
        params_dir: the one in use; None for the working directory's own or, where it has none, the package's.
    """
    _in_use.params = None if params_dir is None else _absolute(params_dir)


def looks_beside() -> Path | None:
    """What `look_beside` was told last, for another process to be told too."""
    return _in_use.params


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
        ConfigError: there is no such thing, its module cannot be imported, or a file of it is another one beside
            params/ than in the working directory.
    """
    if is_own(name):
        return _loaded(kind, name, _folders())
    found = [point for point in _entry_points(kind) if point.name == name]
    if not found:
        raise unknown_name(kind, name, [*known, *entry_names(kind)])
    if len({point.value for point in found}) > 1:
        raise ConfigError(
            f"{kind} {name!r} is an entry point of several installed packages"
            f" ({' and '.join(sorted(point.value for point in found))}): name one as module:name"
        )
    return _loaded(kind, found[0].value, _folders())


def own_hash(sources: Iterable[CodeFile]) -> str | None:
    """SHA-256 over names and contents of files of users' code; None where there are none."""
    files = sorted({(file.name, hash_file(file.path)) for file in sources})
    return hashlib.sha256(canonical_json(files).encode()).hexdigest() if files else None


def entry_names(kind: Kind) -> tuple[str, ...]:
    """The names that installed packages bring."""
    return tuple(sorted({point.name for point in _entry_points(kind)}))


def _folders() -> tuple[Path, ...]:
    """Where users' files may lie: beside params/, then in the working directory; one folder where they are the same."""
    beside = _absolute(_in_use.params or find_params()).parent
    # An installed wheel's params/ lie in the package.
    places = (Path.cwd(),) if beside.resolve() == _PACKAGE else (beside, Path.cwd())
    return tuple({place.resolve(): place for place in reversed(places)}.values())[::-1]


def _absolute(path: Path) -> Path:
    """With links as they are: what lies beside a link is meant, not what lies beside its target."""
    return Path(os.path.normpath(Path.cwd() / path))


def _let_import_from(folders: Iterable[Path]) -> None:
    """Let modules in these folders be imported, after all others."""
    _in_use.searched.update(dict.fromkeys(folders))
    sys.path.extend(place for place in map(str, folders) if place not in sys.path)
    importlib.invalidate_caches()


def _entry_points(kind: Kind) -> Iterable[EntryPoint]:
    import importlib.metadata

    return importlib.metadata.entry_points(group=GROUPS[kind])


@functools.cache
def _loaded(kind: Kind, place: str, folders: tuple[Path, ...]) -> Own:
    module_name, _, name = place.partition(":")
    what = f"{kind} {place!r}"
    if not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(f"{what}: expected module:name, e.g. small:Small for the class Small in small.py")
    beside = _file_of(module_name, folders, what)
    _let_import_from(folders)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's code does
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "") in _parents(module_name)
        if missing and beside is None:
            raise ConfigError(
                f"{what}: there is no {module_name.replace('.', '/')}.py in {_in_words(folders)}, and no module"
                f" {module_name} is installed"
            ) from error
        shown = " ".join(str(error).split())
        raise ConfigError(f"{what}: importing {module_name} failed: {type(error).__name__}: {shown}") from error
    if beside is not None:
        _check_imported(module_name, beside, what)
    elif any(_is_in(module, folder) for folder in _in_use.searched):
        raise ConfigError(
            f"{what}: {module_name} is {module.__file__} in this process, which is not in {_in_words(folders)}: put"
            " the file there, or begin a new process"
        )
    if not hasattr(module, name):
        defined = [each for each in vars(module) if not each.startswith("_")]
        raise ConfigError(f"{what}: {unknown_name(f'name in {module_name}', name, defined)}")
    sources = _of_package(module) if beside is None else _beside(module_name, folders, what)
    return Own(getattr(module, name), tuple(sorted(sources)))


def _is_in(module: ModuleType, folder: Path) -> bool:
    """Whether a module is a user's file in a folder."""
    file = _file_of(module.__name__, (folder,), "")
    return file is not None and module.__file__ is not None and file.path.resolve() == Path(module.__file__).resolve()


def _in_words(folders: tuple[Path, ...]) -> str:
    beside = "".join(f"{folder}, beside params/, or in " for folder in folders[:-1])
    return f"{beside}{folders[-1]}, the working directory"


def _check_imported(module_name: str, expected: CodeFile, what: str) -> None:
    """That a module that Python has imported is this file. Raises ConfigError."""
    if module_name in sys.modules:
        file = sys.modules[module_name].__file__
        if file is None or Path(file).resolve() != expected.path.resolve():
            raise ConfigError(
                f"{what}: {expected.path} is not what Python imports as {module_name}, which is {file or 'built in'}:"
                " give the file another name"
            )


def _parents(module_name: str) -> set[str]:
    parts = module_name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts) + 1)}


def _file_of(module_name: str, folders: tuple[Path, ...], what: str) -> CodeFile | None:
    """The file of a module of users' code; None where no folder has it. Raises ConfigError where two folders do."""
    found = []
    for folder in folders:
        base = folder.joinpath(*module_name.split("."))
        files = (base.with_suffix(".py"), base / "__init__.py")
        found += [CodeFile(file.relative_to(folder).as_posix(), file) for file in files if file.is_file()][:1]
    if len({each.path.resolve() for each in found}) > 1:
        raise ConfigError(
            f"{what}: module {module_name} is both {found[0].path}, beside params/, and {found[1].path}, in the working"
            " directory: rename one of them, or call the program in another folder"
        )
    return found[0] if found else None


def _beside(module_name: str, folders: tuple[Path, ...], what: str) -> set[CodeFile]:
    """A module's file and all of users' code that it imports, directly or not, its packages' among them."""
    found, waiting = set[CodeFile](), _parents(module_name)
    seen = set[str]()
    while waiting:
        seen.add(name := waiting.pop())
        # The package's own code is no user's, also where params/ lie in its checkout.
        current = None if name.partition(".")[0] == "recu" else _file_of(name, folders, what)
        if current is not None and current not in found:
            _check_imported(name, current, what)
            found.add(current)
            waiting |= _imported_by(current) - seen
    return found


def _imported_by(file: CodeFile) -> set[str]:
    """Names of all modules that a file may import, with those of their packages; attributes of them are among these."""
    names = list[str]()
    for node in ast.walk(ast.parse(file.path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = PurePosixPath(file.name).parent.parts[: None if node.level < 2 else 1 - node.level]
            start = ".".join((*(package if node.level else ()), *((node.module,) if node.module else ())))
            names += [start, *(f"{start}.{alias.name}" if start else alias.name for alias in node.names)]
    return {part for name in names if name for part in _parents(name)}


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
