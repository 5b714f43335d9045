"""Every path of the project, defined once.

Relative paths are relative to the working directory, which for the workflow is the project directory.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from recu.base.errors import ConfigError

PROJECT_DIR = Path(__file__).resolve().parents[2]
"""The checkout this package runs from; of an installed wheel, the folder that it is installed in."""

_PACKAGED = PROJECT_DIR / "recu" / "params"

PARAMS_DIR = _PACKAGED if _PACKAGED.is_dir() else PROJECT_DIR / "params"
"""The checkout's; in an installed wheel the copy that it brings (setup.py)."""

EXPERIMENT_ID = "{suite}/{dataset}/{labelled_network}/{method}/seed{seed}"
"""Of an experiment: its place in every folder."""

CHECKPOINT = "checkpoint.pth.tar"
"""State after the latest epoch, for resuming; in the authors' form plus what resuming needs."""
BEST_CHECKPOINT = "model_best.pth.tar"
"""The same of the epoch with the highest test top-1."""
PACKED = "network.recu"
"""The same network with one bit a binary weight (docs/packed.md)."""
METRICS = "metrics.json"
"""Written last by every stage: its presence means that the stage finished."""
MANIFEST = "manifest.json"
HISTORY = "history.jsonl"
DIAGNOSTICS = "diagnostics.jsonl"
"""A line an epoch, as `recu.results.records.EpochWeights`."""
LOG = "train.log"
EXPERIMENT = "experiment.json"
RUN = "run.json"
"""What a job runs and how it ended, for the mirror in MLflow."""


_BESIDE = ("previous", "next", "damaged", "epoch-start")
"""Words in the names of what is kept beside a checkpoint for continuing."""
_VARIABLE = re.compile(r"\$(?:(?P<plain>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[^{}]*)\})")


def user_path(text: str | Path) -> Path:
    """A path as a person wrote it in an option or a file, with `~`, `~user`, `$NAME` and `${NAME}` replaced.

    A shell replaces them only where they stand free: not in `--source=~/A`, not between quotes, not in a YAML file.
    A name with "$" that exists as it is written stays: the project's own path may hold one.

    Raises:
        ConfigError: a variable is not set, or a home folder is not known.
    """
    expanded = _with_variables(str(text))
    if not expanded.startswith("~"):
        return Path(expanded)
    try:
        return Path(expanded).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{text}: the home folder is not known ({error}); write the whole path") from error


def _with_variables(text: str) -> str:
    def value_of(found: re.Match[str]) -> str:
        name = found["plain"] or found["braced"]
        as_written = text[: found.end()] + text[found.end() :].split("/")[0]
        if os.path.lexists(as_written):
            return found[0]
        if name in os.environ:
            return os.environ[name]
        raise ConfigError(f"{text}: the variable {name or found[0]} is not set; set it or write the whole path")

    return _VARIABLE.sub(value_of, text)


def find_params(otherwise: Path = PARAMS_DIR) -> Path:
    """The folder params/: the working directory's own, or where it has none, `otherwise`."""
    own = Path("params")
    return own if params_file(own, "config").is_file() else otherwise


def params_file(
    params_dir: Path, name: Literal["config", "defaults", "datasets", "published", "rates", "claims"]
) -> Path:
    """One of the files of which there is one; see `recu.experiment.params`."""
    return params_dir / f"{name}.yaml"


def suite_file(params_dir: Path, suite: str) -> Path:
    """The rows of one suite."""
    return params_dir / "suites" / f"{suite}.yaml"


def manifest_file(results_dir: Path, dataset: str) -> Path:
    """The prepare stage's declared output: a copy of the manifest beside the prepared data."""
    return results_dir / "prepare" / dataset / MANIFEST


def train_folder(results_dir: Path, experiment_id: str) -> Path:
    """Where a finished training, or a released file, is published: its best checkpoint and metrics."""
    return results_dir / "train" / experiment_id


def evaluate_folder(results_dir: Path, experiment_id: str) -> Path:
    """Where an evaluation publishes its metrics."""
    return results_dir / "evaluate" / experiment_id


def export_folder(results_dir: Path, experiment_id: str) -> Path:
    """Where the packed file of a published checkpoint lies, and what it gives."""
    return results_dir / "export" / experiment_id


def speed_folder(results_dir: Path, experiment_id: str) -> Path:
    """Where it is said how fast that packed file is."""
    return results_dir / "speed" / experiment_id


def rows_file(results_dir: Path, suite: str) -> Path:
    """The collected result rows of one suite."""
    return report_folder(results_dir, suite) / "rows.json"


def figures_folder(reports_dir: Path, suite: str) -> Path:
    """The figures of one suite."""
    return reports_dir / "figures" / suite


def runs_pages(reports_dir: Path, suite: str) -> Path:
    """A page for each run of one suite, by its id."""
    return reports_dir / "runs" / suite


def report_folder(results_dir: Path, suite: str) -> Path:
    """What lies between the results of one suite and its table."""
    return results_dir / "report" / suite


def beside(checkpoint: Path, word: str) -> Path:
    """What is kept beside a checkpoint: `checkpoint.WORD.pth.tar`."""
    stem, _, suffix = checkpoint.name.partition(".")
    return checkpoint.with_name(f"{stem}.{word}.{suffix}")


def state_files(checkpoint: Path) -> tuple[Path, ...]:
    """All files that continuing a training may read, the checkpoint itself last."""
    return (*(beside(checkpoint, word) for word in _BESIDE), checkpoint)


def state_folder(runs_dir: Path, experiment_id: str, spec_hash: str) -> Path:
    """Resumable state of one training; another set of parameters has another folder, so it never continues this one."""
    return runs_dir / experiment_id / spec_hash
