"""Machine code of compiled loops, kept from process to process: never that of another source, and never worth an error.

numba's own cache trusts names and times, and ends with an error where a file is damaged or a folder cannot be written.
Here a file begins with a hash of what it is for and of what it holds. The folder is named after the hash of all that
machine code depends on: the sources of this package, the versions of numba and LLVM, and the processor. So what was
compiled from another source is never looked at; what a power cut left empty, a full disk cut off or somebody moved is
dropped and compiled again; and where nothing can be kept, each process compiles for itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import platform
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite import binding
from numba.core import caching, compiler
from numba.core.serialize import dumps

_log = logging.getLogger(__name__)
_PACKAGE = Path(__file__).parent
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_FOLDER = re.compile(r"recu-[0-9a-f]{16}")
_HASH_BYTES = hashlib.sha256().digest_size


class MachineCode(caching.NullCache):
    """What numba asks for the compiled forms of one function, and gives those it has compiled.

    Args:
        function: the loop in Python.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}"
        # Now, while the source is the one that was imported.
        self._source = source_hash()

    @property
    def cache_path(self) -> str | None:
        """The first folder that is looked into."""
        return next((str(folder) for folder in _folders(self._source)), None)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The form for arguments of the types `sig`, or None where it has to be compiled."""
        target_context.refresh()
        for folder in _folders(self._source):
            file = folder / self._file_name(sig)
            content = _read(file)
            if content is None:
                continue
            try:
                return compiler.CompileResult._rebuild(target_context, *pickle.loads(self._checked(content, sig)))
            except Exception as error:  # whatever pickle and LLVM make of it
                _log.info("%s is dropped and compiled again: %s", file, error)
                with suppress(OSError):
                    file.unlink()
        _say_that_it_compiles()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a form that was compiled, if there is a place for it."""
        if data.lifted or data.library.has_dynamic_globals:
            return
        content = dumps(data._reduce())
        content = self._digest(content, sig) + content
        problem: OSError | None = None
        for folder in _folders(self._source):
            try:
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                if _is_trusted(folder):
                    _replace(folder / self._file_name(sig), content)
                    return
            except OSError as error:
                problem = error
        _say_once(f"({problem.strerror})" if problem and problem.strerror else "(no folder of this user's own)")

    def _file_name(self, sig: Any) -> str:
        # numba's suffix, so that who looks for its files finds these.
        return f"{self._name}-{hashlib.sha256(str(sig).encode()).hexdigest()[:16]}.nbc"

    def _checked(self, content: bytes, sig: Any) -> bytes:
        kept, code = content[:_HASH_BYTES], content[_HASH_BYTES:]
        if kept != self._digest(code, sig):
            raise ValueError("it is damaged, or the file of another function")
        return code

    def _digest(self, code: bytes, sig: Any) -> bytes:
        return hashlib.sha256(f"{self._source}\0{self._name}\0{sig}\0".encode() + code).digest()


@cache
def source_hash() -> str:
    """16 hexadecimal digits over all that machine code of this package depends on."""
    digest = hashlib.sha256()
    features = binding.get_host_cpu_features().flatten()
    versions = (numba.__version__, llvmlite.__version__, platform.python_version(), platform.machine())
    for part in (*versions, binding.get_host_cpu_name(), features):
        digest.update(f"{part}\0".encode())
    for file in sorted(_PACKAGE.glob("*.py")):
        digest.update(f"{file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _folders(source: str) -> Iterator[Path]:
    """Where machine code may be kept, the best place first."""
    for parent in _parents():
        folder = parent / f"recu-{source}"
        # Unlike Path.is_dir, this gives an answer where the parents cannot be looked into.
        if not os.path.isdir(folder) or _is_trusted(folder):  # noqa: PTH112
            yield folder


def old_folders() -> list[Path]:
    """Folders of machine code of other sources, other versions or another processor, which this one never looks at."""
    own, found = f"recu-{source_hash()}", []
    for parent in _parents():
        with suppress(OSError):
            found += [each for each in parent.iterdir() if each.name != own and _FOLDER.fullmatch(each.name)]
    return sorted(folder for folder in found if folder.is_dir() and _is_trusted(folder))


def _parents() -> Iterator[Path]:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        yield Path(chosen).absolute()
        return
    yield _PACKAGE / "__pycache__"
    # Path's own expanduser raises an error where there is no home.
    home = Path(os.path.expanduser("~"))  # noqa: PTH111
    caches = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    if caches.is_absolute() and any(os.path.isdir(folder) for folder in (caches, home)):  # noqa: PTH112
        yield caches / "recu"


def _is_trusted(folder: Path) -> bool:
    """Whether only this user, or whom the package's source belongs to, can have written what is in a folder."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    trusted = found.st_uid in _trusted_users() and not found.st_mode & _WRITABLE_BY_OTHERS
    return trusted and stat.S_ISDIR(found.st_mode)


def _trusted_users() -> tuple[int, int]:
    return os.geteuid(), _PACKAGE.stat().st_uid


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes() if file.is_file() else None
    except OSError:
        return None


def _replace(file: Path, content: bytes) -> None:
    """Write a file so that no reader, and no other writer, ever sees half of it."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        temporary.chmod(0o644)
        temporary.replace(file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


@cache
def _say_that_it_compiles() -> None:
    _log.info("compiling loops for this processor, the first time only: up to half a minute")


@cache
def _say_once(reason: str) -> None:
    _log.warning(
        "compiled loops cannot be kept %s, so each process compiles them anew, for up to half a minute;"
        " NUMBA_CACHE_DIR names a folder for them",
        reason,
    )
