"""From params/ to experiments: one `Experiment` is one training with everything that defines its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recu.config import (
    Dataset,
    Defaults,
    Family,
    HyperparameterOverrides,
    Hyperparameters,
    Model,
    ReleasedSuite,
    Row,
    Suite,
)
from recu.errors import ConfigError, unknown_name
from recu.files import canonical_json, hash_text
from recu.params import load_datasets, load_defaults, load_suites, validate_model
from recu.registry import check_network

TORCHVISION = "torchvision:"
"""Begins the name of a teacher that torchvision publishes."""

TORCHVISION_WEIGHTS = "IMAGENET1K_V1"
"""Which of torchvision's published weights a teacher named so has."""


class Origin(Model):
    """An experiment by name and content, for whatever rests on it."""

    id: str
    spec_hash: str


class Experiment(Model):
    """One training, fully resolved: equal experiments give equal results."""

    suite: str
    dataset: str
    family: Family
    variant: str | None
    model: str
    method: str
    seed: int
    hyperparameters: Hyperparameters
    data: dict[str, Any]
    """`Dataset.identity()` of the dataset."""
    init_from: Origin | None
    """The experiment whose best checkpoint gives the initial weights; another parent hash makes another of ours."""
    teacher: Origin | None
    """The experiment whose best checkpoint teaches this one."""
    recipe_version: int

    @property
    def network(self) -> str:
        """Family, variant and model in one name, e.g. `cifar.resnet20_1w1a` or `cifar-2021-03.resnet20_1w1a`."""
        return network_name(self.family, self.variant, self.model)

    @property
    def id(self) -> str:
        """Its place in every folder: `SUITE/DATASET/NETWORK/METHOD/seedSEED`."""
        return f"{self.suite}/{self.dataset}/{self.network}/{self.method}/seed{self.seed}"

    @property
    def canonical(self) -> str:
        """The experiment as one line of JSON, the same for equal experiments."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def spec_hash(self) -> str:
        """16 hexadecimal digits that differ whenever any parameter differs."""
        return hash_text(self.canonical)

    @property
    def parents(self) -> tuple[Origin, ...]:
        """The experiments that must be trained before this one."""
        teacher = None if self.pretrained_teacher else self.teacher
        return tuple(origin for origin in (self.init_from, teacher) if origin is not None)

    @property
    def pretrained_teacher(self) -> str | None:
        """Name of the torchvision network whose published weights teach this one; None for another teacher or none."""
        teacher = self.hyperparameters.teacher or ""
        return teacher.removeprefix(TORCHVISION) if teacher.startswith(TORCHVISION) else None

    @property
    def origin(self) -> Origin:
        """This experiment as others refer to it."""
        return Origin(id=self.id, spec_hash=self.spec_hash)


def network_name(family: str, variant: str | None, model: str) -> str:
    """`family.model`, with `-variant` after the family where there is one."""
    return f"{family}{f'-{variant}' if variant else ''}.{model}"


def parse_experiment(text: str) -> Experiment:
    """The inverse of `Experiment.canonical`. Raises ConfigError."""
    return validate_model(text, Experiment, "--experiment")


def load_experiments(params_dir: Path, suites: tuple[str, ...]) -> dict[str, Experiment]:
    """All experiments of the given suites by id, parents before children; a suite of released files has none.

    Raises:
        ConfigError: naming the file and the key that is wrong.
    """
    defaults = load_defaults(params_dir)
    datasets = load_datasets(params_dir)
    found: dict[str, Experiment] = {}
    for name, suite in load_suites(params_dir, suites).items():
        if not isinstance(suite, ReleasedSuite):
            found |= resolve_suite(name, suite, defaults, datasets)
    return found


def resolve_suite(name: str, suite: Suite, defaults: Defaults, datasets: dict[str, Dataset]) -> dict[str, Experiment]:
    """Every row x method x seed of one suite, by id, parents before children.

    Raises:
        ConfigError: a name that is not defined, a row given twice, or a value out of range.
    """
    where = f"params/suites/{name}.yaml"
    experiments: dict[str, Experiment] = {}
    for row in suite.rows:
        for seed in suite.seeds:
            resolver = _RowResolver(name, where, suite, row, seed, defaults, datasets)
            for experiment in resolver.experiments(experiments):
                if experiment.id in experiments:
                    raise ConfigError(f"{where}: rows: {experiment.network} on {experiment.dataset} is given twice")
                experiments[experiment.id] = experiment
    return experiments


class _RowResolver:
    """Resolves the methods of one row and seed."""

    def __init__(
        self,
        suite_name: str,
        where: str,
        suite: Suite,
        row: Row,
        seed: int,
        defaults: Defaults,
        datasets: dict[str, Dataset],
    ) -> None:
        self.suite_name, self.where, self.suite, self.row, self.seed = suite_name, where, suite, row, seed
        self.defaults = defaults
        self.dataset_name = row.dataset or suite.dataset
        if self.dataset_name not in datasets:
            raise self._error(unknown_name("dataset", self.dataset_name, datasets))
        self.dataset = datasets[self.dataset_name]
        self.family = row.family or self.dataset.family
        for method in (*suite.methods, *row.methods):
            if method not in defaults.methods:
                raise self._error(unknown_name("method", method, defaults.methods))
        for method in (*row.methods, *(row.only or ())):
            if method not in suite.methods:
                raise self._error(unknown_name(f"method in row {row.model}", method, suite.methods))

    def experiments(self, known: dict[str, Experiment]) -> list[Experiment]:
        """The row's experiments, parents before children; `known` are those of earlier rows (teachers)."""
        resolved: dict[str, Experiment] = {}
        pending = [method for method in self.suite.methods if self.row.only is None or method in self.row.only]
        names = list(pending)
        while pending:
            ready = [m for m in pending if self._hyperparameters(m).init_from not in pending]
            if not ready:
                raise ConfigError(f"{self.where}: methods {', '.join(pending)} start from one another in a circle")
            for method in ready:
                resolved[method] = self._experiment(method, resolved, known, names)
                pending.remove(method)
        return list(resolved.values())

    def _experiment(
        self, method: str, resolved: dict[str, Experiment], known: dict[str, Experiment], names: list[str]
    ) -> Experiment:
        hyperparameters = self._hyperparameters(method)
        try:
            check_network(
                self.row.model,
                family=self.family,
                variant=self.row.variant,
                stage=hyperparameters.stage,
                image_size=self.dataset.image_size,
            )
        except ConfigError as error:
            raise self._error(error) from error
        parent = hyperparameters.init_from
        if parent is not None and parent not in resolved:
            raise self._error(unknown_name(f"method that {method} starts from (init_from)", parent, names))
        return Experiment(
            suite=self.suite_name,
            dataset=self.dataset_name,
            family=self.family,
            variant=self.row.variant,
            model=self.row.model,
            method=method,
            seed=self.seed,
            hyperparameters=hyperparameters,
            data=self.dataset.identity(),
            init_from=None if parent is None else resolved[parent].origin,
            teacher=self._teacher(hyperparameters.teacher, known),
            recipe_version=self.defaults.recipe_version,
        )

    def _teacher(self, teacher: str | None, known: dict[str, Experiment]) -> Origin | None:
        if teacher is None:
            return None
        if teacher.startswith(TORCHVISION):
            return Origin(id=teacher, spec_hash=hash_text(TORCHVISION_WEIGHTS))
        teacher_id = f"{self.suite_name}/{self.dataset_name}/{teacher}/seed{self.seed}"
        if teacher_id not in known:
            taught = [identifier.split("/", 2)[2].rsplit("/", 1)[0] for identifier in known]
            raise self._error(unknown_name("teacher (an earlier row's NETWORK/METHOD)", teacher, taught))
        return known[teacher_id].origin

    def _hyperparameters(self, method: str) -> Hyperparameters:
        layers = (
            self.defaults.methods[method].hyperparameters,
            self.suite.hyperparameters,
            self.suite.methods[method],
            self.row.hyperparameters,
            self.row.methods.get(method, HyperparameterOverrides()),
        )
        merged = self.defaults.recipe(self.family)
        for layer in layers:
            merged |= layer.model_dump(mode="json", exclude_unset=True)
        return validate_model(merged, Hyperparameters, f"{self.where}: {self.row.model}, {method}")

    def _error(self, error: ConfigError) -> ConfigError:
        return ConfigError(f"{self.where}: {error}")
