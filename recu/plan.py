"""What the planner needs beyond the experiments themselves; pure and free of torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from recu import paths
from recu.config import Dataset, Method, ReleasedSuite, Suite
from recu.experiments import TORCHVISION_WEIGHTS, Experiment
from recu.released import Released
from recu.suite_facts import DatasetFacts, MethodFacts, ReleasedFacts, SuiteFacts

TABLE_FORMATS = ("md", "csv", "html", "svg")
"""What the report of a suite that trains consists of: the table in three forms and its training curves."""

RELEASED_TABLE_FORMATS = ("md", "csv", "html")
"""The same of a suite of released files, which has no curves."""


def table_files(reports_dir: Path, suite: str, formats: Iterable[str] = TABLE_FORMATS) -> list[str]:
    """The files that a suite's report consists of."""
    return [str(reports_dir / f"{suite}.{suffix}") for suffix in formats]


def threads_per_training(cores: int, experiments: dict[str, Experiment]) -> int:
    """Share the cores among the trainings that can run side by side: those that wait for no other.

    One thread each is the most efficient split when there are at least as many trainings as cores.
    """
    parallel = sum(not experiment.parents for experiment in experiments.values())
    return max(1, cores // max(1, parallel))


def suite_facts(
    name: str,
    suite: Suite,
    experiments: dict[str, Experiment],
    datasets: dict[str, Dataset],
    methods: dict[str, Method],
) -> SuiteFacts:
    """What a suite's table depends on besides results and published numbers."""
    return SuiteFacts(
        name=name,
        title=suite.title,
        description=suite.description,
        experiments=tuple(experiment.origin for experiment in experiments.values()),
        datasets=_dataset_facts({experiment.dataset for experiment in experiments.values()}, datasets),
        methods={
            key: MethodFacts(
                description=methods[key].description,
                published_as=methods[key].published_as,
                reconstruction=methods[key].reconstruction,
            )
            for key in suite.methods
        },
    )


def released_facts(
    name: str, suite: ReleasedSuite, released: Mapping[str, Released], datasets: dict[str, Dataset]
) -> ReleasedFacts:
    """What the table of a suite of released files depends on besides measurements and published numbers."""
    return ReleasedFacts(
        name=name,
        title=suite.title,
        description=suite.description,
        files=tuple(found.origin for found in released.values()),
        datasets=_dataset_facts({found.dataset for found in released.values()}, datasets),
    )


def _dataset_facts(used: Iterable[str], datasets: dict[str, Dataset]) -> dict[str, DatasetFacts]:
    return {
        key: DatasetFacts(title=datasets[key].title, published_as=datasets[key].published_as) for key in sorted(used)
    }


def alias(job: Experiment | Released) -> str:
    """A readable target name, e.g. `demo-digits-cifar.resnet20_1w1a-vanilla-seed1`."""
    return job.id.replace("/", "-")


def missing_files(released: Mapping[str, Released]) -> dict[str, str]:
    """Released files that are not there and were never measured.

    Returns:
        By path, one line that says where to get it.
    """
    return {found.path: found.obtain for found in released.values() if found.obtain is not None}


def missing_data(
    used: Iterable[str], datasets: dict[str, Dataset], data_dir: Path, sources: dict[str, str]
) -> dict[str, str]:
    """Datasets that are neither prepared, nor given as a local source, nor part of a dependency.

    Args:
        used: names of the datasets that are needed.
        datasets: all of params/datasets.yaml.
        data_dir: prepared data.
        sources: local sources by name.

    Returns:
        By dataset, one line that says where its files come from.
    """
    missing = {}
    for name in sorted(set(used)):
        dataset = datasets[name]
        if dataset.kind == "digits" or name in sources or (data_dir / name / paths.MANIFEST).is_file():
            continue
        urls = " and ".join(archive.url for archive in dataset.archives if archive.url)
        origin = f"it will be downloaded from {urls}" if urls else dataset.obtain
        missing[name] = f"{origin} (or name a local copy: sources: {{{name}: PATH}} in params/config.yaml)"
    return missing


def missing_teachers(experiments: Iterable[Experiment], weights: str) -> dict[str, str]:
    """Teachers with torchvision's published weights for which no local file is there.

    Args:
        experiments: what is to be trained.
        weights: local file with the weights; empty for none.

    Returns:
        By torchvision's name, one line that says where its weights come from.
    """
    if weights and Path(weights).is_file():
        return {}
    where = (
        f"teacher_weights in params/config.yaml names {weights}, which does not exist"
        if weights
        else f"torchvision downloads its weights ({TORCHVISION_WEIGHTS}) unless they are in its cache (or name a local"
        " copy: teacher_weights: FILE in params/config.yaml)"
    )
    names = {experiment.pretrained_teacher for experiment in experiments}
    return {name: where for name in sorted(name for name in names if name is not None)}


def as_options(**values: object) -> str:
    """Command-line options for the text of a rule's command: quoted, and braces doubled for Snakemake's formatting."""
    return _escape_braces(as_words(**values))


def as_words(**values: object) -> str:
    """Command-line options as the value of a rule's parameter: quoted for the shell; Snakemake formats no value."""
    return shlex.join(word for name, value in values.items() for word in (f"--{name}", str(value)))


def shell_prefix(python: str, checkout: str) -> str:
    """What goes before every rule's command: strict bash, and `recu` run by the given Python from the checkout."""
    command = f"PYTHONPATH={shlex.quote(checkout)} {shlex.quote(python)} -m recu"
    return _escape_braces(f'set -euo pipefail; recu() {{ {command} "$@"; }}; ')


def _escape_braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
