"""From params/ to released files: one `Released` is one training that somebody else ran."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from recu.base.errors import ConfigError, ResultError, unknown_name
from recu.base.files import hash_file, read_json
from recu.experiment import paths
from recu.experiment.binarisers import USUAL
from recu.experiment.fit import settled_loader
from recu.experiment.loaders import LoaderName
from recu.experiment.networks import check_network, find_network
from recu.experiment.params import load_datasets, load_defaults, load_suites, validate_model
from recu.experiment.resolving import Experiment, Planned, load_experiments, parse_experiment
from recu.experiment.schema import Dataset, Defaults, ReleasedFile, ReleasedSuite


class Released(Planned):
    """One released file, fully resolved: equal ones give equal results."""

    name: str
    path: str
    sha256: str | None
    """Of the file's content; None while it cannot be read."""
    obtain: str | None
    """Where to get the file; only while it is missing, so that rewording it publishes nothing again."""
    stage: int | None
    """None where the file is to say; see `recu.stages.subject`."""
    binariser: str | None = None
    """Likewise: of our own files; of others it is then the usual one."""
    claimed_top1: float
    """Percent."""
    claimed_on: str | None
    """Dataset of the claim; None where it is the published one of `dataset`."""
    loader: LoaderName
    batch_size_test: Annotated[int, Field(ge=1)] = 128
    """In no hash, since it changes no result."""

    @property
    def id(self) -> str:
        """Its place in every folder: `SUITE/NAME`."""
        return f"{self.suite}/{self.name}"

    @property
    def hashed(self) -> dict[str, Any]:
        """What its hash sees: the file's content, not its looks."""
        return self.model_dump(mode="json", exclude={"batch_size_test"})

    @property
    def network(self) -> str:
        """Family and model; the file's tensors tell the variant."""
        return f"{self.family}.{self.model}"

    @property
    def measured_with(self) -> tuple[int, str]:
        """Images a step and loader of its evaluation."""
        return self.batch_size_test, self.loader

    @property
    def parents(self) -> tuple[()]:
        """No training of ours comes before it."""
        return ()

    @property
    def entry(self) -> str:
        """Where it stands, in words."""
        return f"the entry {self.name} in params/suites/{self.suite}.yaml"


def parse_released(text: str) -> Released:
    """The inverse of `Released.canonical`. Raises ConfigError."""
    return validate_model(text, Released, "--released")


def parse_planned(text: str) -> Experiment | Released:
    """The inverse of `Planned.canonical`, neutral settings aside. Raises ConfigError."""
    return parse_released(text) if '"claimed_top1"' in text else parse_experiment(text)


def load_released(params_dir: Path, suites: tuple[str, ...], results_dir: Path) -> dict[str, Released]:
    """All released files of the given suites by id, in table order; a suite that trains has none.

    Args:
        params_dir: holds the suites.
        suites: their names.
        results_dir: where files are published, which may be gone since.

    Raises:
        ConfigError: naming the file and the key that is wrong.
    """
    defaults = load_defaults(params_dir)
    datasets = load_datasets(params_dir)
    return {
        found.id: found
        for name, suite in load_suites(params_dir, suites).items()
        if isinstance(suite, ReleasedSuite)
        for found in resolve_files(name, suite, defaults, datasets, results_dir)
    }


def load_planned(
    params_dir: Path, suites: tuple[str, ...], results_dir: Path, teacher_weights: str
) -> dict[str, Experiment | Released]:
    """Everything that the given suites ask for, by id; as `load_experiments` and `load_released`."""
    return {
        **load_experiments(params_dir, suites, teacher_weights),
        **load_released(params_dir, suites, results_dir),
    }


def resolve_files(
    name: str, suite: ReleasedSuite, defaults: Defaults, datasets: dict[str, Dataset], results_dir: Path
) -> list[Released]:
    """Every file of one suite, as it is on the disk now.

    Raises:
        ConfigError: a name that is not defined.
    """
    try:
        return [_resolve(name, suite, file, defaults, datasets, results_dir) for file in suite.files]
    except ConfigError as error:
        raise ConfigError(f"params/suites/{name}.yaml: {error}") from error


def file_state(file: str | Path) -> str | None:
    """How a file looks, which tells it from another in its place; None where there is none."""
    try:
        status = Path(file).stat()
    except OSError:
        return None
    # The time of the latest change of attributes too: checkpoints of one network have one size, and a copy or an
    # archive can give them one time.
    return f"{status.st_size} bytes, modified {status.st_mtime_ns} ns, changed {status.st_ctime_ns} ns"


def _resolve(
    suite_name: str,
    suite: ReleasedSuite,
    file: ReleasedFile,
    defaults: Defaults,
    datasets: dict[str, Dataset],
    results_dir: Path,
) -> Released:
    dataset_name = file.dataset or suite.dataset
    for name in (dataset_name, file.claimed_on or dataset_name):
        if name not in datasets:
            raise unknown_name(f"dataset of {file.name}", name, datasets)
    dataset, recipe = datasets[dataset_name], defaults.hyperparameters
    family = file.family or dataset.family
    stage = find_network(file.model, family=family).stages[-1] if file.stage is None else file.stage
    check_network(
        file.model,
        family=family,
        variant=None,
        stage=stage,
        image_size=dataset.image_size,
        binariser=file.binariser or USUAL,
    )
    sha256 = _sha256(file.path, paths.train_folder(results_dir, f"{suite_name}/{file.name}"))
    return Released(
        suite=suite_name,
        name=file.name,
        path=file.path,
        sha256=sha256,
        obtain=file.obtain if sha256 is None and file_state(file.path) is None else None,
        model=file.model,
        family=family,
        stage=file.stage,
        binariser=file.binariser,
        dataset=dataset_name,
        data=dataset.identity(),
        method=file.method,
        claimed_top1=file.claimed_top1,
        claimed_on=file.claimed_on,
        loader=settled_loader(recipe.loader, dataset),
        batch_size_test=file.batch_size_test or recipe.batch_size_test,
        recipe_version=defaults.recipe_version,
    )


def _sha256(path: str, results: Path) -> str | None:
    """Of a file, or of what was published from there where it is gone since or looks the same; None: not readable."""
    now = file_state(path)
    try:
        published = read_json(results / paths.METRICS)
        if published["released"]["path"] == path and now in (None, published["file_state"]):
            return str(published["checkpoint_sha256"])
    except (ResultError, KeyError, TypeError):
        pass  # hashed below; whoever reads the record says what is wrong with it
    try:
        return hash_file(Path(path))
    except OSError:
        return None
