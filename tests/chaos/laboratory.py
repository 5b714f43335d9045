"""A project whose every stage takes a second, undisturbed results of it, and comparisons with them."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image

from recu.base.errors import RecuError
from recu.base.files import canonical_json, hash_file, read_json
from recu.cli.main import main
from recu.data import Prepared, read_manifest
from recu.data.opening import check_contents
from recu.experiment import params, paths, plan
from recu.experiment.resolving import Experiment, load_experiments, parse_experiment
from recu.experiment.source_state import LOCAL_NAME
from recu.results.seal import read_sealed_json
from recu.stages.trained import read_finished, read_trained
from recu.training.checkpoint import RESUME_KEY, read_checkpoint
from tests.chaos import forking
from tests.history import comparable, read_history

DATASET = """
tiny:
  title: "Tiny"
  kind: imagefolder
  family: cifar
  num_classes: 3
  image_size: 8
  mean: [0.5, 0.5, 0.5]
  std: [0.25, 0.25, 0.25]
  augmentation: crop_flip
"""
SUITE = """
title: Chaos
description: One network in two epochs.
dataset: tiny
seeds: [1]
hyperparameters: {batch_size: 8, warm_up: false}
methods:
  vanilla: {epochs: 2}
rows:
  - model: resnet20_1w1a
"""
SAVE_EVERY_STEP = "0.0001"
"""Minutes: no step is as short, so a checkpoint follows each of them."""

_LITTER = (".part", ".preparing", ".old")
_OF_THE_MOMENT = ("provenance", "segments", "settings", "mlflow_run_id", "content_sha256", "train_seconds")


@dataclass(frozen=True)
class Place:
    """The folders of one try."""

    folder: Path
    data: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def reports(self) -> Path:
        return self.folder / "reports"


@dataclass
class Laboratory:
    """Everything a fault needs, below one folder."""

    folder: Path
    stages: dict[str, Stage] = field(default_factory=dict)
    _tries: int = 0

    @property
    def params(self) -> Path:
        return self.folder / "params"

    @property
    def archive(self) -> Path:
        return self.folder / "tiny.tar.gz"

    @property
    def data(self) -> Path:
        """Prepared data that faults only read."""
        return self.folder / "data"

    @property
    def reference(self) -> Place:
        """Where the undisturbed results are."""
        return Place(self.folder / "reference", self.data)

    @cached_property
    def experiment(self) -> Experiment:
        """The one that everything is about."""
        (experiment,) = load_experiments(self.params, ("chaos",)).values()
        return experiment

    def other_experiment(self, **recipe: Any) -> Experiment:
        """The same with other hyper-parameters."""
        content = self.experiment.model_dump(mode="json")
        return parse_experiment(canonical_json(content | {"hyperparameters": content["hyperparameters"] | recipe}))

    @cached_property
    def facts(self) -> str:
        """The suite as the workflow gives it to `recu report`."""
        suite = params.load_suite(self.params, "chaos")
        methods = params.load_defaults(self.params).methods
        datasets = params.load_datasets(self.params)
        found = plan.suite_facts("chaos", suite, {self.experiment.id: self.experiment}, datasets, methods)
        return canonical_json(found.model_dump(mode="json"))

    def state(self, place: Place) -> Path:
        """Folder of the training's resumable state."""
        return paths.state_folder(place.runs, self.experiment.id, self.experiment.spec_hash)

    def fresh(self, *, data: Path | None = None, results: bool = False) -> Place:
        """A new place, on request with the undisturbed training and evaluation in it."""
        self._tries += 1
        place = Place(self.folder / f"try{self._tries}", data or self.data)
        place.folder.mkdir()
        if results:
            shutil.copytree(self.reference.results, place.results)
        return place

    def drop(self, place: Place) -> None:
        """Remove a place that is not needed any more."""
        shutil.rmtree(place.folder, ignore_errors=True)

    def train_command(
        self, place: Place, experiment: Experiment | None = None, *, keep: bool = True, **more: str
    ) -> list[str]:
        """`recu train`, with a checkpoint after every step unless told otherwise; the last one stays to be compared."""
        options = {"save_minutes": SAVE_EVERY_STEP} | more
        return [*self._job("train", place, experiment, options), *(["--keep_resumable"] if keep else [])]

    def evaluate_command(self, place: Place, **more: str) -> list[str]:
        """`recu evaluate`."""
        return self._job("evaluate", place, None, more)

    def prepare_command(self, place: Place, source: Path | None = None) -> list[str]:
        """`recu prepare` from the archive."""
        copy = paths.manifest_file(place.results, "tiny")
        where = ["--data_dir", str(place.data), "--params_dir", str(self.params), "--output", str(copy)]
        return ["prepare", "tiny", "--source", str(source or self.archive), "--workers", "0", *where]

    def collect_command(self, place: Place) -> list[str]:
        """`recu report collect`."""
        rows = paths.rows_file(place.results, "chaos")
        common = ["--suite", self.facts, "--results_dir", str(place.results)]
        return ["report", "collect", *common, "--output", str(rows)]

    def render_command(self, place: Place) -> list[str]:
        """`recu report render`."""
        rows = paths.rows_file(place.results, "chaos")
        common = ["--suite", self.facts, "--rows", str(rows), "--params_dir", str(self.params)]
        return ["report", "render", *common, "--output_dir", str(place.reports)]

    def _job(self, verb: str, place: Place, experiment: Experiment | None, more: dict[str, str]) -> list[str]:
        options = {
            "experiment": (experiment or self.experiment).canonical,
            "params_dir": self.params,
            "data_dir": place.data,
            "results_dir": place.results,
            "runs_dir": place.runs,
            "gpus": "cpu",
            "workers": "0",
            "threads": "1",
            "tracking_uri": "",
        } | more
        return [verb, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]

    def difference(self, stage: str, place: Place) -> str | None:
        """How the results of a stage differ from the undisturbed ones; None where they do not, to the last bit."""
        try:
            found, wanted = (self.stages[stage].results(where) for where in (place, self.reference))
        except (RecuError, OSError, KeyError) as error:
            return f"no result: {error}"
        different = [name for name in wanted if found.get(name) != wanted[name]]
        return f"other results than undisturbed: {', '.join(different)}" if different else None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One verb: its commands, what it leaves, and what must hold at any moment."""

    name: str
    commands: Callable[[Place], list[list[str]]]
    fresh: Callable[[], Place]
    results: Callable[[Place], dict[str, Any]]
    """By name, what must be equal to the last bit."""
    half_done: Callable[[Place], str | None]
    """Whether something incomplete could be taken for complete."""
    seconds: float = 1.0
    """How long it takes undisturbed."""

    def action(self, place: Place) -> Callable[[], int]:
        """Run the stage's commands, as `recu` does; the first exit code that is not 0."""
        return commands(*self.commands(place))


def commands(*lines: list[str]) -> Callable[[], int]:
    """An action for `forking.run` that calls `recu` with each of the command lines."""

    def action() -> int:
        return next((code for line in lines if (code := main(line))), 0)

    return action


def build(folder: Path) -> Laboratory:
    """Set everything up and make the undisturbed results."""
    lab = Laboratory(folder)
    _write_project(lab)
    lab.reference.folder.mkdir()
    for stage in _stages(lab):
        ended = forking.run(stage.action(lab.reference))
        if ended.code != 0:
            raise RuntimeError(f"the undisturbed {stage.name} failed: {ended.output}")
        lab.stages[stage.name] = Stage(**(vars(stage) | {"seconds": ended.seconds}))
    lab.stages["free"] = _freeing(lab)
    return lab


def _freeing(lab: Laboratory) -> Stage:
    """Publish the finished training and remove its state; undisturbed, the reference keeps its own."""

    def fresh() -> Place:
        place = lab.fresh()
        shutil.copytree(lab.reference.runs, place.runs)
        return place

    return Stage(
        name="free",
        commands=lambda place: [lab.train_command(place, keep=False)],
        fresh=fresh,
        results=lambda place: published_results(lab.experiment, results=place.results),
        half_done=lambda place: _half_trained(lab, place) or _half_freed(lab, place),
    )


def litter(folder: Path) -> list[str]:
    """Temporary files and folders that nobody will ever need again."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.name.endswith(_LITTER))


def _stages(lab: Laboratory) -> list[Stage]:
    def fresh_data() -> Place:
        place = lab.fresh()
        return Place(place.folder, place.folder / "data")

    def fresh_evaluate() -> Place:
        place = lab.fresh(results=True)
        shutil.rmtree(place.results / "evaluate")
        shutil.rmtree(place.results / "report", ignore_errors=True)
        return place

    def fresh_report() -> Place:
        place = lab.fresh(results=True)
        shutil.rmtree(place.results / "report")
        return place

    return [
        Stage(
            name="prepare",
            commands=lambda place: [lab.prepare_command(place)],
            fresh=fresh_data,
            results=_prepared,
            half_done=_half_prepared,
        ),
        Stage(
            name="train",
            commands=lambda place: [lab.train_command(place)],
            fresh=lab.fresh,
            results=lambda place: trained_results(lab.experiment, results=place.results, runs=place.runs),
            half_done=lambda place: _half_trained(lab, place),
        ),
        Stage(
            name="evaluate",
            commands=lambda place: [lab.evaluate_command(place)],
            fresh=fresh_evaluate,
            results=lambda place: _evaluated(lab, place),
            half_done=lambda place: _half_evaluated(lab, place),
        ),
        Stage(
            name="report",
            commands=lambda place: [lab.collect_command(place), lab.render_command(place)],
            fresh=fresh_report,
            results=_reported,
            half_done=lambda place: _half_reported(lab, place),
        ),
    ]


def _prepared(place: Place) -> dict[str, Any]:
    folder = place.data / "tiny"
    # local.json tells how this copy's files look, which differs from place to place.
    found = {file.name: hash_file(file) for file in folder.iterdir() if file.name not in (paths.MANIFEST, LOCAL_NAME)}
    return found | {"manifest": read_manifest(folder), "copy": read_json(paths.manifest_file(place.results, "tiny"))}


def _half_prepared(place: Place) -> str | None:
    if not (place.data / "tiny" / paths.MANIFEST).exists():
        return None
    try:
        check_contents(Prepared(place.data / "tiny", read_manifest(place.data / "tiny")))
    except RecuError as error:
        return f"prepared data is there and incomplete: {error}"
    return None


def published_results(experiment: Experiment, *, results: Path) -> dict[str, Any]:
    """What must be equal to the last bit of two published trainings of an experiment."""
    trained = read_trained(results, experiment.id, experiment.spec_hash)
    metrics = {name: value for name, value in trained.record.as_plain().items() if name not in _OF_THE_MOMENT}
    metrics["history"] = [comparable(row) for row in metrics["history"]]
    return {"metrics": metrics, "published checkpoint": hash_file(trained.checkpoint)}


def trained_results(experiment: Experiment, *, results: Path, runs: Path) -> dict[str, Any]:
    """What must be equal to the last bit of two trainings of an experiment that keep their state.

    Args:
        experiment: the one trained.
        results: where it is published.
        runs: where its state lies.
    """
    folder = paths.state_folder(runs, experiment.id, experiment.spec_hash)
    state = read_checkpoint(folder / paths.CHECKPOINT)
    history = read_history(folder / paths.HISTORY)
    return published_results(experiment, results=results) | {
        "weights": _digest(state["state_dict"]),
        "optimiser": _digest(state["optimizer"]),
        "random states": _digest(state[RESUME_KEY]["random"]),
        "best checkpoint in the state": _digest(state[RESUME_KEY]["best_checkpoint"]),
        "history": [comparable(row) for row in history],
    }


def _half_freed(lab: Laboratory, place: Place) -> str | None:
    try:
        left = read_finished(lab.state(place))
    except RecuError as error:
        return f"what publishes the training again is incomplete: {error}"
    gone = left is None and not (lab.state(place) / paths.CHECKPOINT).exists()
    return "the state is gone, and nothing publishes the training again" if gone else None


def _half_trained(lab: Laboratory, place: Place) -> str | None:
    folder = paths.train_folder(place.results, lab.experiment.id)
    if not (folder / paths.METRICS).exists():
        return None
    try:
        epochs = len(read_trained(place.results, lab.experiment.id, lab.experiment.spec_hash).record.history)
    except RecuError as error:
        return f"a training is published and incomplete: {error}"
    return None if epochs == lab.experiment.hyperparameters.epochs else f"published after {epochs} epochs"


def _evaluated(lab: Laboratory, place: Place) -> dict[str, Any]:
    metrics = read_sealed_json(paths.evaluate_folder(place.results, lab.experiment.id) / paths.METRICS, again="")
    return {name: value for name, value in metrics.items() if name not in _OF_THE_MOMENT}


def _half_evaluated(lab: Laboratory, place: Place) -> str | None:
    file = paths.evaluate_folder(place.results, lab.experiment.id) / paths.METRICS
    return lab.difference("evaluate", place) if file.exists() else None


def _reported(place: Place) -> dict[str, Any]:
    rows = paths.rows_file(place.results, "chaos")
    return {file.name: hash_file(file) for file in (rows, *sorted(place.reports.rglob("*"))) if file.is_file()}


def _half_reported(lab: Laboratory, place: Place) -> str | None:
    files = [paths.rows_file(place.results, "chaos"), *place.reports.rglob("[!.]*")]
    wanted = _reported(lab.reference) if lab.reference.reports.exists() else {}
    parts = [file.name for file in files if file.is_file() and hash_file(file) != wanted.get(file.name)]
    return f"incomplete: {', '.join(parts)}" if parts else None


def _digest(value: Any) -> str:
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    elif isinstance(value, dict):
        for key in value:
            digest.update(repr(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, (list, tuple)):
        digest.update(b"[")
        for inner in value:
            _feed(digest, inner)
    else:
        digest.update(repr(value).encode())


def _write_project(lab: Laboratory) -> None:
    shutil.copytree(paths.PARAMS_DIR, lab.params)
    (lab.params / "suites" / "chaos.yaml").write_text(SUITE)
    with (lab.params / "datasets.yaml").open("a") as stream:
        stream.write(DATASET)
    generator = numpy.random.default_rng(0)
    images = lab.folder / "images"
    for split, count in (("train", 7), ("test", 4)):
        for label in range(3):
            folder = images / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 90, (8, 8, 3)) + numpy.array([50 * label, 140 - 50 * label, 60])
                Image.fromarray(pixels.astype(numpy.uint8)).save(folder / f"{number}.png")
    with tarfile.open(lab.archive, "w:gz") as archive:
        archive.add(images, ".")
