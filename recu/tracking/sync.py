"""Finds the folders of runs, so that `recu sync` can mirror each of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from recu.base.errors import ResultError
from recu.base.files import read_object
from recu.experiment import paths
from recu.tracking.wanted import Folders, read_noted

_EVALUATE = "evaluate"


def find_runs(runs_dir: Path, results_dirs: Iterable[Path]) -> list[Folders]:
    """Every run below these folders, once; links are not followed. Parents come before what starts from them.

    Args:
        runs_dir: where jobs keep their state.
        results_dirs: where results are published, and may lie beside their state.
    """
    results_dirs = _once(results_dirs)
    # A run beside its results may be met again by another path: one is relative, or one folder holds the other.
    states = _once(file.parent for folder in (runs_dir, *results_dirs) for file in _walk(folder, paths.RUN))
    found = {state: Folders(state, _results_of(state, results_dirs)) for state in states}
    for results_dir in results_dirs:
        for file in _walk(results_dir / "train", paths.METRICS):
            content = read_object(file)  # what cannot be read is reported when it is mirrored
            if "released" in content:  # nobody here trained it
                continue
            # Of an earlier version, or its state is gone.
            spec_hash = Path(str(content.get("spec_hash", "unknown"))).name
            state = paths.state_folder(runs_dir, str(file.parent.relative_to(results_dir / "train")), spec_hash)
            found.setdefault(state, Folders(state, file.parent))
    return sorted(found.values(), key=_order)


def find_outboxes(runs_dir: Path) -> list[Path]:
    """Files of an earlier version for what its jobs could not send."""
    return list(_walk(runs_dir, "tracking-outbox*.jsonl"))


def _once(folders: Iterable[Path]) -> list[Path]:
    """Each folder by the path that names it first."""
    found: dict[str, Path] = {}
    for folder in folders:
        found.setdefault(os.path.realpath(folder), folder)
    return list(found.values())


def _walk(folder: Path, pattern: str) -> Iterator[Path]:
    yield from (file for file in sorted(folder.rglob(pattern)) if file.is_file() and not file.is_symlink())


def _results_of(state: Path, results_dirs: list[Path]) -> Path:
    """Where the job of a state published: its folder says the run's name, and nothing in a file leads elsewhere."""
    try:
        noted = read_noted(state)
    except ResultError:  # it is reported when it is mirrored
        return state
    if noted is None:  # removed since it was found
        return state
    description = noted.description
    evaluates = description.stage == _EVALUATE
    tail = (*description.experiment_id.split("/"), description.spec_hash, *([_EVALUATE] if evaluates else []))
    if state.absolute().parts[-len(tail) :] != tail:
        return state
    folder_of = paths.evaluate_folder if evaluates else paths.train_folder
    for results_dir in results_dirs:
        folder = folder_of(results_dir, description.experiment_id)
        expected = Path(os.path.realpath(results_dir), folder.relative_to(results_dir))
        if (folder / paths.METRICS).exists() and os.path.realpath(folder) == str(expected):
            return folder
    return state


def _order(folders: Folders) -> tuple[bool, float]:
    """Trainings by when they ended, then evaluations: each run's parent has ended before."""
    file = next((file for file in (folders.results / paths.METRICS, folders.state / paths.RUN) if file.exists()), None)
    return folders.state.name == _EVALUATE, 0.0 if file is None else file.stat().st_mtime
