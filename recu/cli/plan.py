"""`recu plan`: the experiments of suites, where each stands, and which data is missing."""

from __future__ import annotations

import argparse
from pathlib import Path

from recu.base.files import read_json
from recu.cli import options
from recu.experiment import params, plan
from recu.experiment.paths import (
    METRICS,
    config_file,
    released_folder,
    state_folder,
    train_folder,
)
from recu.experiment.released import Released
from recu.experiment.resolving import Experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "suites", nargs="*", help="names of files in params/suites/ (default: those of params/config.yaml)"
    )
    options.add_params_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print one line an experiment, then what is missing and where to get it."""
    from tabulate import tabulate

    config = params.load_config(config_file(arguments.params_dir))
    found = plan.load_plan(arguments.params_dir, config, tuple(arguments.suites) or None)
    results_dir, runs_dir = Path(config.results_dir), Path(config.runs_dir)
    rows: list[tuple[str, object, str]] = [
        (experiment.id, experiment.hyperparameters.epochs, _state(experiment, results_dir, runs_dir))
        for experiment in found.experiments.values()
    ]
    rows += [(file.id, "-", _released_state(file, results_dir)) for file in found.released.values()]
    print(tabulate(rows, headers=("experiment", "epochs", "state")))
    for note in found.notes():
        print(note)


def _state(experiment: Experiment, results_dir: Path, runs_dir: Path) -> str:
    metrics = train_folder(results_dir, experiment.id) / METRICS
    if metrics.is_file():
        current = _has_hash(metrics, experiment.spec_hash)
        return "trained" if current else "trained with other parameters"
    state = state_folder(runs_dir, experiment.id, experiment.spec_hash)
    return "begun" if state.is_dir() else "to do"


def _released_state(released: Released, results_dir: Path) -> str:
    metrics = released_folder(results_dir, released.id) / METRICS
    if metrics.is_file():
        current = _has_hash(metrics, released.spec_hash)
        return "measured" if current else "measured with other parameters, or another file"
    return "file missing" if released.file_state is None else "to do"


def _has_hash(metrics: Path, spec_hash: str) -> bool:
    content = read_json(metrics)
    return isinstance(content, dict) and content.get("spec_hash") == spec_hash
