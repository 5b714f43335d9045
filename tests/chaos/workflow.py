"""SIGKILL under a real Snakemake: to the job, to Snakemake, to both; then the same command again, to the same bits."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from recu.experiment import paths
from recu.experiment.paths import PROJECT_DIR
from recu.experiment.resolving import Experiment, load_experiments
from tests.chaos import forking
from tests.chaos.laboratory import trained_results
from tests.chaos.ledger import Ledger
from tests.workflow.conftest import Project, environment, make_project

VICTIMS = ("job", "Snakemake", "both")
_EPOCHS = 8
_PATIENCE_S = 300
_LOCKED = "Directory cannot be locked"


def kills_under_snakemake(folder: Path, ledger: Ledger, times: int, rng: random.Random) -> None:
    """Kill each of the victims `times` times, at a random epoch, and compare with a workflow that was left alone."""
    folder.mkdir()
    template = _make(folder / "template")
    undisturbed = Project(Path(shutil.copytree(template.folder, folder / "undisturbed")))
    problem = _finish(undisturbed, *_targets(undisturbed))
    if problem is not None:
        raise RuntimeError(f"the undisturbed workflow failed: {problem}")
    wanted = _results(undisturbed)
    for number in range(times):
        for victim in VICTIMS:
            project = Project(Path(shutil.copytree(template.folder, folder / f"{victim}{number}")))
            ledger.add(f"SIGKILL under snakemake: {victim}", _try(project, victim, rng.randrange(1, _EPOCHS), wanted))
            shutil.rmtree(project.folder)


def _make(folder: Path) -> Project:
    folder.mkdir()
    project = make_project(folder)
    project.edit("suites/smallest.yaml", "vanilla: {epochs: 2}", f"vanilla: {{epochs: {_EPOCHS}}}")
    project.edit("config.yaml", "tracking_uri: sqlite:///mlflow.db", 'tracking_uri: ""')
    project.edit("config.yaml", "keep_resumable: false", "keep_resumable: true")
    problem = _finish(project, "results/prepare/tiny/manifest.json", "results/tracking/smallest.ready")
    if problem is not None:
        raise RuntimeError(f"nothing could be prepared: {problem}")
    return project


def _try(project: Project, victim: str, epochs: int, wanted: dict[str, object]) -> str | None:
    with (project.folder / "snakemake.log").open("wb") as log:
        process = subprocess.Popen(
            [*_COMMAND, *_targets(project), *_ONE_CORE],
            cwd=project.folder,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _wait_for_epochs(project, epochs, process)
        if victim == "both":
            os.killpg(process.pid, signal.SIGKILL)
        elif victim == "Snakemake":
            process.kill()
        else:
            (job,) = _jobs(process.pid)
            os.kill(job, signal.SIGKILL)
        # Snakemake itself runs a killed job again; where it was killed, the job may still be training now.
        process.wait(_PATIENCE_S)
    problem = _finish(project, *_targets(project))
    if problem is not None:
        return f"after {epochs} epochs: {problem}"
    found = _results(project)
    different = [name for name in wanted if found.get(name) != wanted[name]]
    return f"after {epochs} epochs: other results than undisturbed: {', '.join(different)}" if different else None


_ONE_CORE = ("--cores", "1")
_COMMAND = (sys.executable, "-m", "snakemake", "-s", str(PROJECT_DIR / "Snakefile"))


def _finish(project: Project, *targets: str) -> str | None:
    """The same command, unlocked first where Snakemake asks for it (docs/workflow.md); what is wrong, or None."""
    command = (*targets, *_ONE_CORE)
    answer = project.snakemake(*command, timeout=_PATIENCE_S)
    if _LOCKED in answer.stdout + answer.stderr:
        project.snakemake("--unlock")
        answer = project.snakemake(*command, timeout=_PATIENCE_S)
    return None if answer.returncode == 0 else (answer.stdout + answer.stderr)[-1500:]


def _targets(project: Project) -> tuple[str, ...]:
    return tuple(str(paths.train_folder(Path("results"), each.id) / paths.METRICS) for each in _experiments(project))


def _experiments(project: Project) -> list[Experiment]:
    return list(load_experiments(project.folder / "params", ("smallest",)).values())


def _results(project: Project) -> dict[str, object]:
    """Of the training that was killed and of the one that starts from it."""
    return {
        f"{name} of {experiment.method}": value
        for experiment in _experiments(project)
        for name, value in trained_results(
            experiment, results=project.folder / "results", runs=project.folder / "runs"
        ).items()
    }


def _jobs(process: int) -> Iterator[int]:
    """The trainings that a process has started, whatever shells stand between."""
    for child in forking.children_of(process):
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if words[1:4] == [b"-m", b"recu", b"train"]:
            yield child
        else:
            yield from _jobs(child)


def _wait_for_epochs(project: Project, epochs: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        for history in project.folder.glob("runs/**/history.jsonl"):
            if len(history.read_text().splitlines()) >= epochs:
                return
        time.sleep(0.05)
    raise RuntimeError(f"no training reached {epochs} epochs: {(project.folder / 'snakemake.log').read_text()[-1500:]}")
