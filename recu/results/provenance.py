"""What a result rests on besides its parameters and data: code, environment and device.

Free of torch: versions come from the installed packages' metadata, nothing heavy is imported.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from recu import __version__
from recu.base.errors import Interrupted
from recu.base.files import canonical_json, hash_text
from recu.experiment import paths
from recu.experiment.own import CodeFile, own_hash
from recu.results.records import Provenance

_PACKAGES = ("torch", "torchvision", "numpy", "numba", "pillow", "mlflow", "snakemake")
_GIT_TIMEOUT_S = 10


def collect(device: str, own: Iterable[CodeFile] = ()) -> Provenance:
    """Everything about this process that a result should name.

    Args:
        device: description of what computes, e.g. "NVIDIA A100-SXM4-40GB" or "cpu (2 threads)".
        own: files of users' code that take part (`recu.experiment.resolving.own_sources`).

    Raises:
        Interrupted: the code has changed since this process began, so that no hash says what computes.
    """
    commit, dirty = git_state(paths.PROJECT_DIR)
    return Provenance(
        device=device,
        platform=f"{platform.system()} {platform.machine()}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        git_commit=commit,
        git_dirty=dirty,
        packages=package_versions(),
        code_hash=with_own(_code(), own),
        environment_hash=environment_hash(),
        slurm_job=os.environ.get("SLURM_JOB_ID"),
    )


def git_state(project: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout at `project`, and whether anything git does not ignore differs from it.

    (None, None) where `project` is not itself the top of a git checkout, so that a copy inside somebody
    else's repository is not attributed to that repository's commit. An unborn branch gives (None, True).
    """
    top = _git(project, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != project.resolve():
        return None, None
    commit = _git(project, "rev-parse", "--verify", "--quiet", "HEAD")
    # Said outright, since a user's configuration may leave out new files, or changes inside submodules.
    status = _git(project, "status", "--porcelain", "--untracked-files=normal", "--ignore-submodules=none")
    return commit, None if status is None else status != ""


def package_versions() -> dict[str, str | None]:
    """Versions of Python, this package and the packages that results depend on."""
    return {"python": platform.python_version(), "recu": __version__} | {name: _version(name) for name in _PACKAGES}


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _code() -> str:
    if code_now() != code_at_start():
        raise Interrupted(
            f"{paths.PROJECT_DIR / 'recu'} has changed since this job began, which has imported a part of it as it was:"
            " run the same command again"
        )
    return code_at_start()


@functools.cache
def code_at_start() -> str:
    """The code's hash when it was first asked for; a job asks before it imports what computes."""
    return code_now()


def code_now() -> str:
    """The hash of this package's code as it lies there."""
    return code_hash(paths.PROJECT_DIR / "recu")


def what_computes() -> str:
    """16 hexadecimal digits that differ whenever the code of networks and their fast forms does, or what it runs on:
    how fast they were before says nothing of how fast they are now."""
    parts = ("binarisers", "kernels", "models", "nn", "runtime")
    versions, on = package_versions(), ("python", "recu", "torch", "numpy", "numba")
    hashes = [code_hash(paths.PROJECT_DIR / "recu" / part) for part in parts]
    return hash_text(canonical_json([hashes, [versions[name] for name in on]]))


def with_own(code: str, sources: Iterable[CodeFile]) -> str:
    """A code hash that sees files of users' code too; unchanged where there are none."""
    own = own_hash(sources)
    return code if own is None else hashlib.sha256(f"{code} {own}".encode()).hexdigest()


def code_hash(package: Path) -> str:
    """SHA-256 over the names and contents of every Python file below `package`, which is all that computes results.

    Hidden files, such as an editor's locks and copies, are no modules.
    """
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix()):
        if any(part.startswith(".") for part in file.relative_to(package).parts):
            continue
        content = file.read_bytes()
        # Lengths keep "a" + "bc" and "ab" + "c" apart.
        name = file.relative_to(package).as_posix().encode()
        digest.update(b"%d:%b%d:%b" % (len(name), name, len(content), content))
    return digest.hexdigest()


@functools.cache
def environment_hash() -> str:
    """16 hexadecimal digits over the Python version and every installed distribution's name and version."""
    # Each access to a distribution's metadata reads its file again.
    described = (distribution.metadata for distribution in importlib.metadata.distributions())
    installed = {f"{_normalised(name)}=={metadata['Version']}" for metadata in described if (name := metadata["Name"])}
    return hash_text(canonical_json([platform.python_version(), sorted(installed)]))


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def is_tracked(path: Path) -> bool:
    """Whether git tracks the file, or any file in the folder, at `path`."""
    return bool(_git(path.parent, "ls-files", "--", path.name))


def _git(project: Path, *arguments: str) -> str | None:
    """Output of one git command, or None where git or the repository cannot answer."""
    # Parallel jobs must not fight over the index lock only to say whether the tree is clean. Variables
    # such as GIT_DIR, set in hooks, would point at another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            ["git", "-C", str(project), *arguments],
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
