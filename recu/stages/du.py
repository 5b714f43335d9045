"""What lies on disk below results/, runs/, mlartifacts/ and data/, by experiment, and what needs it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from recu.base.addresses import sqlite_file
from recu.base.files import read_object
from recu.experiment import params, paths
from recu.experiment.released import Released, load_planned
from recu.experiment.resolving import Experiment
from recu.experiment.schema import WorkflowConfig

_STAGES = ("train", "evaluate")
_STATE = re.compile(r"[0-9a-f]{16}(?:[-.].*)?")
"""Name of a state's folder: the hash of its parameters, and what was added where it was moved aside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Everything that one experiment, data set or run has in one place."""

    place: str
    name: str
    """Below the place."""
    path: Path
    bytes: int
    """A file of several names counts where it is met first."""
    needed_by: tuple[str, ...]


@dataclass(frozen=True)
class Disk:
    """A project's folders, and what params/ asks for."""

    params_dir: Path
    config: WorkflowConfig

    @cached_property
    def experiments(self) -> dict[str, Experiment | Released]:
        """What every suite trains or measures, by id. Raises ConfigError."""
        suites = tuple(params.all_suites(self.params_dir))
        return load_planned(self.params_dir, suites, self.results, self.config.teacher_weights)

    @property
    def results(self) -> Path:
        """What rules produce."""
        return Path(self.config.results_dir)

    @property
    def runs(self) -> Path:
        """States of the workflow's trainings."""
        return Path(self.config.runs_dir)

    @property
    def artifacts(self) -> Path | None:
        """Those of a SQLite store; None where the store is another kind, or there is none."""
        from recu.tracking import resolve_tracking_uri
        from recu.tracking.place import ARTIFACTS

        store = sqlite_file(resolve_tracking_uri(self.config.tracking_uri) or "")
        return None if store is None else store.parent / ARTIFACTS

    @cached_property
    def named(self) -> dict[Path, str]:
        """Files and folders that params/ names, links resolved, and what they are there. Raises ConfigError."""
        planned = self.experiments.values()
        found = {each.path: f"suite {each.suite}" for each in planned if isinstance(each, Released)}
        found |= {source: f"the source of {name}" for name, source in self.config.sources.items()}
        found |= {self.config.teacher_weights: "teacher_weights"} if self.config.teacher_weights else {}
        return {Path(os.path.realpath(path)): what for path, what in found.items()}

    def named_among(self, *files: Path) -> tuple[str, ...]:
        """What params/ needs of these files, and of what lies below these folders."""
        real = [Path(os.path.realpath(file)) for file in files]
        return tuple(
            sorted({what for path, what in self.named.items() if any(path.is_relative_to(each) for each in real)})
        )

    def states(self) -> Iterator[tuple[str, Path]]:
        """Experiment id and folder of every state below runs/, those that were moved aside too."""
        for folder, _, files in os.walk(self.runs):
            path = Path(folder)
            if files and _STATE.fullmatch(path.name):
                yield path.parent.relative_to(self.runs).as_posix(), path

    def needs_state(self, identifier: str, spec_hash: str) -> bool:
        """Whether params/ has the experiment with these parameters, or its published result was made with them."""
        found = self.experiments.get(identifier)
        return (found is not None and found.spec_hash == spec_hash) or self.published(identifier) == spec_hash

    def published(self, identifier: str, stage: str = "train") -> str | None:
        """The hash of the parameters that an experiment's result was made with; None where there is no result."""
        return read_object(self.results / stage / identifier / paths.METRICS).get("spec_hash")


def entries(disk: Disk) -> list[Entry]:
    """Everything there is, place by place, the largest first.

    Raises:
        ConfigError: a file under params/ is wrong.
    """
    suites = {name: set[str]() for name in params.load_datasets(disk.params_dir)}
    for experiment in disk.experiments.values():
        suites[experiment.dataset].add(f"suite {experiment.suite}")
    runs = _runs_of(disk)
    places = [
        _Place("results", disk.results, _result_of, partial(_result_needed_by, disk)),
        _Place("runs", disk.runs, lambda parts: "/".join(parts[:-1]), partial(_state_needed_by, disk)),
        _Place("mlartifacts", disk.artifacts, lambda parts: "/".join(parts[:2]), lambda _: ("recu ui",)),
        _Place(
            "data", Path(disk.config.data_dir), lambda parts: parts[0], lambda name: tuple(sorted(suites.get(name, ())))
        ),
    ]
    seen: set[tuple[int, int]] = set()
    found = [entry for place in places if place.root is not None for entry in _entries(place, place.root, seen)]
    return [
        replace(
            entry,
            name=runs.get(entry.path.name, entry.name),
            needed_by=(*entry.needed_by, *disk.named_among(entry.path)),
        )
        for entry in found
    ]


@dataclass(frozen=True)
class _Place:
    label: str
    root: Path | None
    name_of: Callable[[tuple[str, ...]], str]
    """From the parts of a file's path below the root to the name of its entry."""
    needed_by: Callable[[str], tuple[str, ...]]


def _entries(place: _Place, root: Path, seen: set[tuple[int, int]]) -> list[Entry]:
    sizes: dict[str, int] = {}
    for folder, _, files in os.walk(root):
        for file in files:
            path = Path(folder, file)
            found = look_at(path)
            if found is None or ".lock" in file or (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            parts = path.relative_to(root).parts
            name = place.name_of(parts) if len(parts) > 1 else parts[0]
            sizes[name] = sizes.get(name, 0) + found.st_size
    return [
        Entry(place=place.label, name=name, path=root / name, bytes=size, needed_by=place.needed_by(name))
        for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    ]


def look_at(file: Path) -> os.stat_result | None:
    """What the system says of a file, a link for itself; None where a job that runs has removed it meanwhile."""
    try:
        return file.lstat()
    except OSError:
        return None


def _result_of(parts: tuple[str, ...]) -> str:
    return "/".join(parts[:-1]) if parts[0] in _STAGES else parts[0]


def _result_needed_by(disk: Disk, name: str) -> tuple[str, ...]:
    stage, _, identifier = name.partition("/")
    if stage not in _STAGES:
        metrics = (disk.results / name / paths.METRICS).exists()
        return (f"recu train --save {name}",) if metrics else ("the workflow",)
    experiment = disk.experiments.get(identifier)
    if experiment is None or disk.published(identifier, stage) != experiment.spec_hash:
        return ()
    children = [each.id for each in disk.experiments.values() if experiment.origin in each.parents]
    return (f"suite {experiment.suite}", *(f"start of {child}" for child in children if stage == "train"))


def _state_needed_by(disk: Disk, name: str) -> tuple[str, ...]:
    identifier, _, spec_hash = name.rpartition("/")
    if spec_hash == "evaluate":  # an evaluation's record, in the state folder of what it measured
        return ("recu sync",) if disk.needs_state(*identifier.rpartition("/")[::2]) else ()
    if not disk.needs_state(identifier, spec_hash):
        return ()
    finished = disk.published(identifier) == spec_hash or (disk.runs / name / paths.METRICS).exists()
    return (f"{'publishing' if finished else 'continuing'} {identifier}{' again' if finished else ''}",)


def _runs_of(disk: Disk) -> dict[str, str]:
    """By run in the tracking store, the result that it mirrors."""
    found = {}
    for stage in _STAGES:
        for file in (disk.results / stage).rglob(paths.METRICS):
            run = read_object(file).get("mlflow_run_id")
            found[str(run)] = file.parent.relative_to(disk.results).as_posix()
    return found
