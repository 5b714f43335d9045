"""What system and environment do to the program: settled before it starts, put into words where they make it fail.

Imports no package beyond Python's own, since the variables are read when PyTorch and numba are imported.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

from recu.base.errors import RecuError

_NUMBA = "NUMBA_"
_KEPT = ("NUMBA_CACHE_DIR",)

_READ_AT_IMPORT = ("TORCH", "PYTORCH_", "CUDA_", "OMP_", "MKL_", "KMP_", "LD_")
"""Beginnings of names of variables that PyTorch, or what it loads, looks at."""

_ALLOCATORS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
_USUAL_ALLOCATOR = re.compile(r"\w+:[\w.]+(,\w+:[\w.]+)*")
"""What PyTorch can read for sure; what it cannot ends the process."""

_LONGEST_REASON = 200
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""How PyTorch words it, on a CPU and on a GPU."""


def settle_environment(environment: MutableMapping[str, str]) -> list[str]:
    """Take out of the environment what would change the compiled loops, and with them numbers or whether they run.

    numba reads some eighty variables: of optimisation, debugging, threads it does not have here. The loops were tested
    as they are compiled without any, so all but the folder of its cache are ignored. That compilation is turned off
    stays: who wants that is told so where the loops are (`recu.kernels.compiled`).

    A user whom the system does not know (a container's) gets a HOME, where several packages would end with an error; it
    is the one that containers give: nothing can be written there.

    Args:
        environment: that of the process, changed in place before numba is imported.

    Returns:
        A line for each variable that is ignored.
    """
    if os.path.expanduser("~") == "~":  # noqa: PTH111
        environment["HOME"] = "/"
    given = sorted(name for name in environment if name.startswith(_NUMBA) and name not in _KEPT)
    ignored = [name for name in given if not (name == "NUMBA_DISABLE_JIT" and _is_true(environment[name]))]
    return [
        f"note: {name}={environment.pop(name)} is ignored: loops are compiled as they were tested" for name in ignored
    ]


def require_importable(package: str) -> None:
    """Try an import in a process of its own, where the system may well end the process that does it.

    That is so where the address space is limited, and where a variable of PyTorch's is of a form it may not read: it
    then aborts, which no program can catch. Anywhere else this does nothing.

    Raises:
        RecuError: it cannot be imported.
    """
    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    odd = any(not _USUAL_ALLOCATOR.fullmatch(value) for value in map(os.environ.get, _ALLOCATORS) if value)
    if not limited and not odd:
        return
    # Here, since `recu --help` has no use for it.
    import subprocess

    try:
        trial = subprocess.run(
            [sys.executable, "-c", f"import {package}"], capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise RecuError(f"cannot import {package} ({error.strerror}): {_advice()}") from error
    if trial.returncode:
        lines = [line for line in trial.stderr.splitlines() if line.strip()] or [f"exit code {trial.returncode}"]
        # Of a process that was ended the first line says why, of an error in Python the last one.
        reason = lines[0] if trial.returncode < 0 else lines[-1]
        raise RecuError(f"cannot import {package} ({_shortened(reason)}): {_advice()}")


@contextmanager
def trouble_in_words() -> Iterator[None]:
    """Within the block, a package that cannot be imported and memory that is not there become an error of one line.

    Raises:
        RecuError: in the place of what the package or the system raised; every other error passes.
    """
    try:
        yield
    except RecuError:
        raise
    except Exception as error:
        package = _package_not_imported(error)
        if package is not None:
            raise RecuError(f"cannot import {package} ({_first_line(error)}): {_advice()}") from error
        if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
            raise RecuError(
                f"out of memory ({_first_line(error)}): lower batch_size or --workers, let the process use more"
                " (ulimit -v, --mem of the cluster's job), or end what else uses it; the same command continues"
            ) from error
        raise


def _is_true(number: str) -> bool:
    return number.strip().isdecimal() and int(number) != 0


def _package_not_imported(error: Exception) -> str | None:
    """Which package was being imported when an error was raised; None where none was."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and package not in ("recu", "__main__"):
            return package
    missing = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    return missing if missing not in ("", "recu") else None


def _advice() -> str:
    given = sorted(name for name in os.environ if name.startswith(_READ_AT_IMPORT))
    unset = f"correct or unset what it reads ({', '.join(given)}), " if given else ""
    return f"{unset}let the process use more memory (ulimit -v) where it may use little, or install again (make setup)"


def _first_line(error: Exception) -> str:
    return _shortened(next((line for line in str(error).splitlines() if line.strip()), type(error).__name__))


def _shortened(line: str) -> str:
    text = " ".join(line.split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
