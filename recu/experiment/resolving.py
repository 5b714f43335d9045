"""From params/ to experiments: one `Experiment` is one training with everything that defines its result."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import SerializerFunctionWrapHandler, model_serializer

from recu.base.errors import ConfigError, unknown_name
from recu.base.files import canonical_json, hash_file, hash_text
from recu.experiment import fit, paths
from recu.experiment.augmentations import Augmentation
from recu.experiment.binarisers import package_binarisers
from recu.experiment.dataset_kinds import KINDS
from recu.experiment.networks import Family, available_models, check_network
from recu.experiment.own import CodeFile, Kind, find_own
from recu.experiment.params import load_datasets, load_defaults, load_suites, validate_model
from recu.experiment.schedules import LearningRateType
from recu.experiment.schema import (
    Dataset,
    Defaults,
    HyperparameterOverrides,
    Hyperparameters,
    Model,
    ReleasedSuite,
    Row,
    Suite,
)
from recu.experiment.sweep import swept
from recu.experiment.values import check_apart

TORCHVISION = "torchvision:"
"""Begins the name of a teacher that torchvision publishes."""

TORCHVISION_WEIGHTS = "IMAGENET1K_V1"
"""Which of torchvision's published weights a teacher named so has."""


def later_defaults(kind: type[Hyperparameters]) -> dict[str, Any]:
    """Hyper-parameters that came after the first results, with the defaults at which they change none."""
    fields = {name: field.default for name, field in kind.model_fields.items() if not field.is_required()}
    del fields["compile"]  # it stood in every hash from the first one on
    return fields


_LATER = later_defaults(Hyperparameters)
_LATER_FIELDS = ("row", "binariser")
"""Of what is planned; they came after the first results and are not written where they are None."""


class Origin(Model):
    """An experiment by name and content, for whatever rests on it."""

    id: str
    spec_hash: str


class Planned(Model):
    """What is to be evaluated, fully resolved: a training, or a released file that stands for one."""

    suite: str
    dataset: str
    family: Family
    model: str
    method: str
    data: dict[str, Any]
    """`Dataset.identity()` of the dataset."""
    recipe_version: int

    @model_serializer(mode="wrap")
    def _without_later(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = whole(self)
        return {name: value for name, value in plain.items() if name not in _LATER_FIELDS or value is not None}

    @property
    @abstractmethod
    def id(self) -> str:
        """Its place in every folder; begins with the suite."""

    @property
    @abstractmethod
    def hashed(self) -> dict[str, Any]:
        """What its hash sees. JSON-compatible."""

    @property
    def canonical(self) -> str:
        """What its hash sees, as one line of JSON, the same for equal ones."""
        return canonical_json(self.hashed)

    @property
    def spec_hash(self) -> str:
        """16 hexadecimal digits that differ whenever a parameter differs that can change the result."""
        return hash_text(self.canonical)

    @property
    def origin(self) -> Origin:
        """How others refer to it."""
        return Origin(id=self.id, spec_hash=self.spec_hash)


class Experiment(Planned):
    """One training, fully resolved: equal experiments give equal results."""

    variant: str | None
    row: str | None = None
    """Name of its suite's row; None, and not written, where that has none."""
    seed: int
    hyperparameters: Hyperparameters
    init_from: Origin | None
    """The experiment whose best checkpoint gives the initial weights; another parent hash makes another of ours."""
    teacher: Origin | None
    """The experiment whose best checkpoint teaches this one."""

    @property
    def network(self) -> str:
        """Family, variant and model in one name, e.g. `cifar.resnet20_1w1a` or `cifar-2021-03.resnet20_1w1a`."""
        return network_name(self.family, self.variant, self.model)

    @property
    def labelled_network(self) -> str:
        """See `labelled`."""
        return labelled(self.network, self.row)

    @property
    def id(self) -> str:
        """Its place in every folder: `SUITE/DATASET/NETWORK[+ROW]/METHOD/seedSEED`."""
        names = {name: getattr(self, name) for name in ("suite", "dataset", "labelled_network", "method", "seed")}
        return paths.EXPERIMENT_ID.format(**names)

    @property
    def hashed(self) -> dict[str, Any]:
        """What its hash sees, see `as_hashed`."""
        return as_hashed(self.model_dump(mode="json"))

    @property
    def measured_with(self) -> tuple[int, str]:
        """Images a step and loader of its evaluation."""
        return self.hyperparameters.batch_size_test, self.hyperparameters.loader

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


def as_hashed(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """What the hash of an experiment sees of its content: all that can change its result. JSON-compatible.

    So that results stay valid, `batch_size_test` stands in it as the recipes had it when it still counted, and a
    hyper-parameter that came later is left out at its default.

    Args:
        experiment: its fields, JSON-compatible; possibly of an earlier version of this program.
    """
    recipe = {name: value for name, value in experiment["hyperparameters"].items() if _LATER.get(name, ...) != value}
    recipe["batch_size_test"] = 128 if experiment["family"] in ("cifar", "torchvision") else 256
    return {**experiment, "hyperparameters": recipe}


class TeacherWeights:
    """The weights of torchvision teachers: a local file, or those that torchvision publishes."""

    def __init__(self, file: str = "") -> None:
        self.file = file
        """Empty for those published."""

    @functools.cached_property
    def spec_hash(self) -> str:
        """What tells them from others: the file's content. Raises ConfigError if it cannot be read."""
        if not self.file:
            return hash_text(TORCHVISION_WEIGHTS)
        try:
            return hash_file(Path(self.file))[:16]
        except OSError as error:
            raise ConfigError(
                f"teacher: cannot read {self.file} (teacher_weights in params/config.yaml): {error.strerror}; name a"
                " file with its weights, or leave teacher_weights empty for those that torchvision publishes"
            ) from error


def network_name(family: str, variant: str | None, model: str) -> str:
    """`family.model`, with `-variant` after the family where there is one."""
    return f"{family}{f'-{variant}' if variant else ''}.{model.replace(':', '.')}"


def network_sources(model: str, binariser: str) -> tuple[CodeFile, ...]:
    """The files of users' code that a network is made of; none for one of this package alone."""
    return _sources(
        ("network", model, {entry.name for entry in available_models()}), ("binariser", binariser, package_binarisers())
    )


def own_sources(
    model: str, binariser: str, data: Mapping[str, Any], recipe: Hyperparameters | None = None
) -> tuple[CodeFile, ...]:
    """The files of users' code that a training or an evaluation runs; none for one of this package alone.

    Args:
        model: network.
        binariser: its.
        data: `Dataset.identity()` of its dataset.
        recipe: of a training.
    """
    named: list[_Named] = [
        ("dataset kind", data["kind"], KINDS),
        ("augmentation", data["augmentation"], get_args(Augmentation)),
    ]
    if recipe is not None:
        named += [
            ("learning-rate schedule", recipe.lr_type, get_args(LearningRateType)),
            ("augmentation", recipe.augmentation, get_args(Augmentation)),
        ]
    return (*network_sources(model, binariser), *_sources(*named))


_Named = tuple[Kind, str | None, Iterable[str]]
"""A kind of thing, the name of one, and the names that this package has."""


def _sources(*named: _Named) -> tuple[CodeFile, ...]:
    return tuple(
        file
        for kind, name, known in named
        if name is not None and name not in known
        for file in find_own(kind, name, known).sources
    )


def labelled(network: str, row: str | None) -> str:
    """A network's name and, behind a plus sign, that of its row in a suite, where the row has one."""
    return f"{network}+{row}" if row else network


def parse_experiment(text: str) -> Experiment:
    """The experiment that `Experiment.canonical` is of, its neutral settings aside. Raises ConfigError."""
    return validate_model(text, Experiment, "--experiment")


def load_experiments(params_dir: Path, suites: tuple[str, ...], teacher_weights: str = "") -> dict[str, Experiment]:
    """All experiments of the given suites by id, parents before children; a suite of released files has none.

    Args:
        params_dir: holds the suites.
        suites: their names.
        teacher_weights: local file with the weights of a torchvision teacher; empty for those torchvision publishes.

    Raises:
        ConfigError: naming the file and the key that is wrong.
    """
    defaults = load_defaults(params_dir)
    datasets = load_datasets(params_dir)
    weights = TeacherWeights(teacher_weights)
    found: dict[str, Experiment] = {}
    for name, suite in load_suites(params_dir, suites).items():
        if not isinstance(suite, ReleasedSuite):
            found |= resolve_suite(name, suite, defaults, datasets, weights)
    return found


def resolve_suite(
    name: str,
    suite: Suite,
    defaults: Defaults,
    datasets: dict[str, Dataset],
    teacher_weights: TeacherWeights | None = None,
) -> dict[str, Experiment]:
    """Every row x method x seed of one suite, by id, parents before children.

    Raises:
        ConfigError: a name that is not defined, a row given twice, a value out of range, or what a job would refuse
            (see `recu.experiment.fit`).
    """
    where = f"params/suites/{name}.yaml"
    weights = teacher_weights or TeacherWeights()
    experiments: dict[str, Experiment] = {}
    for row in (each for written in suite.rows for each in swept(written, where)):
        for seed in suite.seeds:
            resolver = _RowResolver(name, where, suite, row, seed, defaults, datasets, weights)
            for experiment in resolver.experiments(experiments):
                if experiment.id in experiments:
                    raise ConfigError(
                        f"{where}: rows: {experiment.labelled_network} on {experiment.dataset} is given twice: give one"
                        " of the rows a name"
                    )
                experiments[experiment.id] = experiment
    try:
        check_apart(experiments, "experiment")
    except ValueError as error:
        raise ConfigError(f"{where}: rows: {error}") from error
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
        teacher_weights: TeacherWeights,
    ) -> None:
        self.suite_name, self.where, self.suite, self.row, self.seed = suite_name, where, suite, row, seed
        self.defaults, self.teacher_weights = defaults, teacher_weights
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
                raise self._error(unknown_name(f"method in row {row.label}", method, suite.methods))
        for method in row.methods:
            if row.only is not None and method not in row.only:
                raise self._error(
                    ConfigError(
                        f"{row.label}, {method}: `methods` changes it, and `only` leaves it out: name it in `only` too,"
                        " or in neither"
                    )
                )

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
        parent = hyperparameters.init_from
        if parent is not None and parent not in resolved:
            missing = unknown_name(f"init_from of {method}:", parent, names)
            raise ConfigError(f"{self.where}: {missing}: it has to be a method of this row")
        try:
            check_network(
                self.row.model,
                family=self.family,
                variant=self.row.variant,
                stage=hyperparameters.stage,
                image_size=self.dataset.image_size,
                binariser=hyperparameters.binariser,
            )
            hyperparameters = fit.fitted(hyperparameters, self.dataset)
            if parent is not None:
                earlier = resolved[parent].hyperparameters
                fit.check_initial_stage(parent, earlier.stage, hyperparameters.stage)
                fit.check_initial_binariser(parent, earlier.stage, earlier.binariser, hyperparameters.binariser)
            teacher = self._teacher(hyperparameters.teacher, known)
        except ConfigError as error:
            raise self._error(ConfigError(f"{self.row.label}, {method}: {error}")) from error
        return Experiment(
            suite=self.suite_name,
            dataset=self.dataset_name,
            family=self.family,
            variant=self.row.variant,
            row=self.row.name,
            model=self.row.model,
            method=method,
            seed=self.seed,
            hyperparameters=hyperparameters,
            data=self.dataset.identity(),
            init_from=None if parent is None else resolved[parent].origin,
            teacher=teacher,
            recipe_version=self.defaults.recipe_version,
        )

    def _teacher(self, teacher: str | None, known: dict[str, Experiment]) -> Origin | None:
        if teacher is None:
            return None
        if teacher.startswith(TORCHVISION):
            name = teacher.removeprefix(TORCHVISION)
            fit.check_pretrained_teacher(name, self.dataset.num_classes, bool(self.teacher_weights.file))
            return Origin(id=teacher, spec_hash=self.teacher_weights.spec_hash)
        labelled_network, _, method = teacher.partition("/")
        teacher_id = paths.EXPERIMENT_ID.format(
            suite=self.suite_name,
            dataset=self.dataset_name,
            labelled_network=labelled_network,
            method=method,
            seed=self.seed,
        )
        if teacher_id not in known:
            kind = f"teacher (NETWORK/METHOD of an earlier row on {self.dataset_name}, or {TORCHVISION}NAME)"
            raise unknown_name(kind, teacher, self._teachers(known.values()))
        return known[teacher_id].origin

    def _teachers(self, known: Iterable[Experiment]) -> set[str]:
        fitting = (found for found in known if found.dataset == self.dataset_name and found.seed == self.seed)
        return {f"{found.labelled_network}/{found.method}" for found in fitting}

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
        return validate_model(merged, Hyperparameters, f"{self.where}: {self.row.label}, {method}")

    def _error(self, error: ConfigError) -> ConfigError:
        return ConfigError(f"{self.where}: {error}")
