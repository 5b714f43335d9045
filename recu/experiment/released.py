"""From params/ to released files: one `Released` is one evaluation with everything that defines its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recu.base.errors import ConfigError, ResultError, unknown_name
from recu.base.files import canonical_json, hash_file, hash_text, read_json
from recu.experiment import paths
from recu.experiment.fit import choose_loader, storage_of
from recu.experiment.networks import check_network, find_network
from recu.experiment.params import load_datasets, load_defaults, load_suites, validate_model
from recu.experiment.resolving import Origin
from recu.experiment.schema import Dataset, Defaults, Family, Model, ReleasedFile, ReleasedSuite


class Released(Model):
    """One released file, fully resolved: equal ones give equal results."""

    suite: str
    name: str
    path: str
    file_state: str | None
    """Of the file, so that another file in its place is measured again; None while it is missing."""
    obtain: str | None
    """Where to get the file; only while it is missing, so that rewording it measures nothing again."""
    model: str
    family: Family
    stage: int | None
    """None where the file is to say; see `recu.stages.subject`."""
    dataset: str
    data: dict[str, Any]
    """`Dataset.identity()` of the dataset."""
    method: str
    claimed_top1: float
    """Percent."""
    claimed_on: str | None
    """Dataset of the claim; None where it is the published one of `dataset`."""
    batch_size_test: int
    loader: str
    recipe_version: int

    @property
    def id(self) -> str:
        """Its place in every folder: `SUITE/NAME`."""
        return f"{self.suite}/{self.name}"

    @property
    def canonical(self) -> str:
        """All of it as one line of JSON, the same for equal ones."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def spec_hash(self) -> str:
        """16 hexadecimal digits that differ whenever anything differs."""
        return hash_text(self.canonical)

    @property
    def origin(self) -> Origin:
        """How a table refers to it."""
        return Origin(id=self.id, spec_hash=self.spec_hash)


def parse_released(text: str) -> Released:
    """The inverse of `Released.canonical`. Raises ConfigError."""
    return validate_model(text, Released, "--released")


def load_released(params_dir: Path, suites: tuple[str, ...], results_dir: Path) -> dict[str, Released]:
    """All released files of the given suites by id, in table order; a suite that trains has none.

    Args:
        params_dir: holds the suites.
        suites: their names.
        results_dir: where earlier evaluations are published.

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
    dataset = datasets[dataset_name]
    family = file.family or dataset.family
    stage = find_network(file.model, family=family).stages[-1] if file.stage is None else file.stage
    check_network(file.model, family=family, variant=None, stage=stage, image_size=dataset.image_size)
    choose_loader(defaults.hyperparameters.loader, dataset, storage_of(dataset))
    state = _state(file.path, paths.released_folder(results_dir, f"{suite_name}/{file.name}"))
    return Released(
        suite=suite_name,
        name=file.name,
        path=file.path,
        file_state=state,
        obtain=file.obtain if state is None else None,
        model=file.model,
        family=family,
        stage=file.stage,
        dataset=dataset_name,
        data=dataset.identity(),
        method=file.method,
        claimed_top1=file.claimed_top1,
        claimed_on=file.claimed_on,
        batch_size_test=file.batch_size_test or defaults.hyperparameters.batch_size_test,
        loader=defaults.hyperparameters.loader,
        recipe_version=defaults.recipe_version,
    )


def _state(path: str, results: Path) -> str | None:
    """State of a file; as it was when it was measured where it is gone since, or is the same in another place."""
    now = file_state(path)
    try:
        measured = read_json(results / paths.METRICS)
        then = measured["released"]["file_state"]
        if measured["released"]["path"] != path or now == then:
            return now
        return then if now is None or hash_file(Path(path)) == measured["checkpoint_sha256"] else now
    except (OSError, ResultError, KeyError, TypeError):
        return now
