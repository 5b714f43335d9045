"""What the planner needs beyond the experiments themselves; pure and free of torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from recu.base.errors import ConfigError, unknown_name
from recu.base.files import atomic_write_text, canonical_json, hash_text, read_object
from recu.experiment import fit, paths
from recu.experiment.dataset_kinds import find_kind, own_code
from recu.experiment.params import load_datasets, load_defaults, load_published, load_suites, suite_names
from recu.experiment.released import Released, load_released
from recu.experiment.resolving import TORCHVISION_WEIGHTS, Experiment, Planned, load_experiments
from recu.experiment.schema import Dataset, Method, Published, ReleasedSuite, Suite, WorkflowConfig
from recu.experiment.source_state import source_facts
from recu.experiment.suite_facts import DatasetFacts, MethodFacts, SuiteFacts

TABLE_FORMATS = ("md", "csv", "json", "tex", "html")
"""The forms of a suite's table."""
FIGURES = ("curves", "published", "classes", "weights", "histograms")
"""Of a suite that trains; see `recu.report.pages.CAPTIONS`."""
FIGURE_FORMATS = ("svg", "png")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is to be done, checked as far as it can be without doing it."""

    config: WorkflowConfig
    suites: dict[str, Suite | ReleasedSuite]
    """The chosen ones."""
    datasets: dict[str, Dataset]
    """All of params/datasets.yaml."""
    methods: dict[str, Method]
    """All of params/defaults.yaml."""
    experiments: dict[str, Experiment]
    """By id, parents before children."""
    released: dict[str, Released]
    """By id, in table order."""
    published: Published
    """All of params/published.yaml."""

    @property
    def planned(self) -> dict[str, Experiment | Released]:
        """What is trained and what is only measured, by id."""
        return {**self.experiments, **self.released}

    @property
    def used_datasets(self) -> set[str]:
        """Names of the datasets that are needed."""
        return {found.dataset for found in self.planned.values()}

    @property
    def devices(self) -> int:
        """That share each training and evaluation. Raises ConfigError."""
        return fit.devices_of(self.config.gpus, self.config.gpus_per_training)

    @property
    def published_hash(self) -> str:
        """Differs whenever a published number does."""
        return hash_text(canonical_json(self.published.model_dump(mode="json")))

    def planned_of(self, suite: str) -> dict[str, Experiment | Released]:
        """What one suite trains or measures, by id."""
        return {identifier: found for identifier, found in self.planned.items() if found.suite == suite}

    def facts(self) -> dict[str, SuiteFacts]:
        """What each chosen suite's table depends on besides results and published numbers."""
        return {
            name: suite_facts(name, suite, self.planned_of(name), self.datasets, self.methods)
            for name, suite in self.suites.items()
        }

    def preparation(self, name: str) -> str:
        """All that decides what preparing a dataset gives, as one string.

        That is its entry, how its local source looks, and the user's code behind a kind of one's own.

        Raises:
            ConfigError: there is no such kind.
            DataError: the source cannot be read.
        """
        dataset, source = self.datasets[name], self.config.sources.get(name)
        folder = Path(self.config.data_dir) / name
        facts = None if source is None else source_facts(dataset, Path(source), folder)
        code = own_code(dataset.kind)
        described = {"dataset": dataset.model_dump(mode="json"), "source": facts}
        return canonical_json(described if code is None else described | {"code": code})

    @property
    def only_evaluated_on(self) -> set[str]:
        """Names of the datasets that nothing is trained on, so that their test images are enough."""
        trained_on = {experiment.dataset for experiment in self.experiments.values()}
        return {released.dataset for released in self.released.values()} - trained_on

    def notes(self) -> list[str]:
        """One line for each thing that is not here yet, saying where it comes from."""
        data = missing_data(self.used_datasets, self.datasets, Path(self.config.data_dir), self.config.sources)
        teachers = missing_teachers(self.experiments.values(), self.config.teacher_weights)
        return [
            *(f"dataset {name} is not here yet: {where}" for name, where in data.items()),
            *(f"teacher {name}: {where}" for name, where in teachers.items()),
            *(f"released file {path} is not here yet: {where}" for path, where in missing_files(self.released).items()),
        ]


def load_plan(params_dir: Path, config: WorkflowConfig, suites: tuple[str, ...] | None = None) -> Plan:
    """Everything that `config` asks for.

    Args:
        params_dir: holds the suites and tables.
        config: which suites, and where things lie.
        suites: in place of those of `config`.

    Raises:
        ConfigError: naming the file and the key that is wrong, for whatever a job would refuse and params/ tell.
    """
    names = suite_names(config) if suites is None else suites
    defaults, datasets = load_defaults(params_dir), load_datasets(params_dir)
    unknown = next((name for name in config.sources if name not in datasets), None)
    if unknown is not None:
        raise ConfigError(f"params/config.yaml (or --config): sources: {unknown_name('dataset', unknown, datasets)}")
    found = Plan(
        config=config,
        suites=load_suites(params_dir, names),
        datasets=datasets,
        methods=defaults.methods,
        experiments=load_experiments(params_dir, names, config.teacher_weights),
        released=load_released(params_dir, names, Path(config.results_dir)),
        published=load_published(params_dir),
    )
    for experiment in found.experiments.values():
        try:
            fit.check_device_suits(experiment.hyperparameters, config.gpus)
        except ConfigError as error:
            raise ConfigError(f"{experiment.id}: {error}") from error
    _check_batches(found)
    _check_published(found)
    return found


def _check_batches(plan: Plan) -> None:
    """Ask what depends on a dataset's size, of its entry or its prepared data, and on the number of devices."""
    devices, counts = plan.devices, {name: _prepared_images(plan, name) for name in plan.used_datasets}
    for experiment in plan.experiments.values():
        name, recipe = experiment.dataset, experiment.hyperparameters
        count = plan.datasets[name].train_images or counts[name]
        if count is None:
            continue
        try:
            fit.check_batch_size(recipe.batch_size, count, 1 if recipe.sync_batch_norm else devices)
        except ConfigError as error:
            where = f"params/suites/{experiment.suite}.yaml: {experiment.model}, {experiment.method}"
            counted = (
                f" (counted in {plan.config.data_dir}/{name}; has its source changed, run `recu prepare {name}` first)"
            )
            raise ConfigError(f"{where}: {error}{'' if counts[name] is None else counted}") from error


def _prepared_images(plan: Plan, name: str) -> int | None:
    """Training images of a dataset as it lies prepared with the present settings; None where that is not known."""
    dataset, manifest = plan.datasets[name], Path(plan.config.data_dir) / name / paths.MANIFEST
    if dataset.train_images is not None:
        return None
    content = read_object(manifest)  # where it cannot be read, preparing it again is the workflow's own first step
    splits = content.get("splits") if content.get("identity") == dataset.identity() else None
    count = splits.get("train") if isinstance(splits, dict) else None
    return count if isinstance(count, int) else None


def _check_published(plan: Plan) -> None:
    """Refuse names that no published result has: a misspelt one would silently be compared with nothing."""
    methods = {result.method for result in plan.published.results} | set(plan.methods)
    for name, method in plan.methods.items():
        if method.published_as is not None and method.published_as not in methods:
            where = f"params/defaults.yaml: methods.{name}.published_as"
            raise ConfigError(f"{where}: {unknown_name('published or own method', method.published_as, methods)}")
    for file in plan.released.values():
        if file.method not in methods:
            where = f"params/suites/{file.suite}.yaml: {file.name}: method"
            raise ConfigError(f"{where}: {unknown_name('published or own method', file.method, methods)}")
    known = {result.dataset for result in plan.published.results if result.dataset is not None}
    for name, dataset in plan.datasets.items():
        if dataset.published_as is not None and dataset.published_as not in known:
            where = f"params/datasets.yaml: {name}.published_as"
            raise ConfigError(
                f"{where}: {unknown_name('published dataset', dataset.published_as, known)}; null for none"
            )


def write_facts(folder: Path, facts: SuiteFacts) -> None:
    """Write what a suite's table depends on into `folder`, where `facts_file` says. Raises OutputError."""
    file = facts_file(folder, facts)
    if not file.is_file():
        atomic_write_text(file, _canonical(facts))


def facts_file(folder: Path, facts: SuiteFacts) -> Path:
    """The file for them, whose name changes with their content: a command's words could not hold a large suite's."""
    return folder / f"facts-{hash_text(_canonical(facts))}.json"


def _canonical(facts: SuiteFacts) -> str:
    return canonical_json(facts.model_dump(mode="json"))


def table_files(reports_dir: Path, name: str, suite: Suite | ReleasedSuite) -> list[str]:
    """The files that a suite's report consists of, but for the pages of its runs."""
    tables = [str(reports_dir / f"{name}.{form}") for form in TABLE_FORMATS]
    drawn = FIGURES if isinstance(suite, Suite) else ()
    folder = paths.figures_folder(reports_dir, name)
    return tables + [str(folder / f"{figure}.{form}") for figure in drawn for form in FIGURE_FORMATS]


def threads_per_training(cores: int, experiments: dict[str, Experiment]) -> int:
    """Share the cores among the trainings that can run side by side: those that wait for no other.

    One thread each is the most efficient split when there are at least as many trainings as cores.
    """
    parallel = sum(not experiment.parents for experiment in experiments.values())
    return max(1, cores // max(1, parallel))


def batch_sizes(experiments: Iterable[Experiment]) -> list[str]:
    """DATASET:N for each dataset and batch size of its trainings."""
    return sorted({f"{experiment.dataset}:{experiment.hyperparameters.batch_size}" for experiment in experiments})


def suite_facts(
    name: str,
    suite: Suite | ReleasedSuite,
    planned: Mapping[str, Planned],
    datasets: dict[str, Dataset],
    methods: dict[str, Method],
) -> SuiteFacts:
    """What a suite's table depends on besides results and published numbers."""
    return SuiteFacts(
        name=name,
        title=suite.title,
        description=suite.description,
        experiments=tuple(found.origin for found in planned.values()),
        datasets={
            key: DatasetFacts(title=datasets[key].title, published_as=datasets[key].published_as)
            for key in sorted({found.dataset for found in planned.values()})
        },
        methods={
            key: MethodFacts(**{name: getattr(methods[key], name) for name in MethodFacts.model_fields})
            for key in (suite.methods if isinstance(suite, Suite) else ())
        },
    )


def alias(planned: Planned) -> str:
    """A readable target name, e.g. `demo-digits-cifar.resnet20_1w1a-vanilla-seed1`."""
    return planned.id.replace("/", "-")


def missing_files(released: Mapping[str, Released]) -> dict[str, str]:
    """Released files that are not there and were never published.

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
        if find_kind(dataset.kind).shipped or name in sources or (data_dir / name / paths.MANIFEST).is_file():
            continue
        urls = " and ".join(archive.url for archive in dataset.archives if archive.url)
        local = f"name a local copy: sources: {{{name}: PATH}} in params/config.yaml"
        by_hand = "; ".join(filter(None, (dataset.obtain, local)))
        missing[name] = f"it will be downloaded from {urls} (or {local})" if urls else by_hand
    return missing


def missing_teachers(experiments: Iterable[Experiment], weights: str) -> dict[str, str]:
    """Teachers with torchvision's published weights for which no local file is given.

    Args:
        experiments: what is to be trained.
        weights: local file with the weights, which was read when the experiments were; empty for none.

    Returns:
        By torchvision's name, one line that says where its weights come from.
    """
    if weights:
        return {}
    where = (
        f"torchvision downloads its weights ({TORCHVISION_WEIGHTS}) unless they are in its cache (or name a local copy:"
        " teacher_weights: FILE in params/config.yaml)"
    )
    names = {experiment.pretrained_teacher for experiment in experiments}
    return {name: where for name in sorted(name for name in names if name is not None)}


def as_options(**values: object) -> str:
    """Command-line options for the text of a rule's command: quoted, and braces doubled for Snakemake's formatting."""
    return escape_braces(as_words(**values))


def as_words(**values: object) -> str:
    """Command-line options as the value of a rule's parameter: quoted for the shell; Snakemake formats no value."""
    return shlex.join(word for name, value in values.items() for word in (f"--{name}", str(value)))


def shell_prefix(python: str, checkout: Path, *, remote: bool = False) -> str:
    """What goes before every rule's command: `recu`, run by the given Python from the checkout, and `job` around it.

    Args:
        python: that runs `recu`.
        checkout: with `recu` and `workflow/job.sh`.
        remote: whether the command is a job of its own of a scheduler.
    """
    place = f"RECU_PYTHON={shlex.quote(python)} RECU_CHECKOUT={shlex.quote(str(checkout))}"
    place += f" RECU_REMOTE={'yes' if remote else ''}"
    return escape_braces(f"{place}; source {shlex.quote(str(checkout / 'workflow/job.sh'))}; ")


def escape_braces(text: str) -> str:
    """`text` as it has to be written where Snakemake formats it."""
    return text.replace("{", "{{").replace("}", "}}")
