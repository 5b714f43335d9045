"""`recu evaluate`: measure a checkpoint on a test split.

It is a file (-e FILE), or what the workflow published: a training, ours or a released one (--experiment).
"""

from __future__ import annotations

import argparse
import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, cast

from recu.base.errors import ConfigError
from recu.base.files import atomic_write_json
from recu.base.text import visible
from recu.cli import options
from recu.experiment.params import load_datasets
from recu.experiment.paths import user_path
from recu.results.provenance import code_at_start

if TYPE_CHECKING:
    from recu.data import Prepared
    from recu.experiment.networks import Family
    from recu.experiment.schema import Dataset
    from recu.training.checkpoint_identity import CheckpointIdentity
    from recu.training.processes import Processes

_NOT_OF_A_FILE = (
    "manifest",
    "runs_dir",
    "method",
    "init_from",
    "stage1",
    "teacher",
    "teacher_weights",
    "keep_resumable",
)
"""Options that have no effect on the evaluation of a file. Those of the authors' program may stand beside `-e`, as they
do there: their command lines are taken as they are."""

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand; those of the authors' program have its names."""
    parser.add_argument(
        "-e",
        "--evaluate",
        type=user_path,
        metavar="FILE",
        help="checkpoint of this program or the authors', or a packed file",
    )
    parser.add_argument(
        "--experiment", metavar="JSON", help="an experiment or released file of the workflow, as it was published"
    )
    options.add_output_options(parser, "write the measurement and what it rests on here")
    options.add_network_options(parser)
    options.add_place_options(parser)
    options.add_end_time(parser, "it stops before, and nothing of it is kept")
    parser.add_argument("--tracking_uri", help="MLflow store, with --experiment; empty for none")


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and print; `recu train --evaluate FILE` comes here too."""
    from recu.stages.packed import is_packed

    code_at_start()
    if arguments.evaluate is not None and arguments.experiment is not None:
        raise ConfigError("--evaluate and --experiment both name what to evaluate: choose one")
    if arguments.evaluate is not None:
        # An empty address says what holds: nothing is sent to MLflow.
        more = ("tracking_uri",) if arguments.tracking_uri else ()
        options.refuse_ignored(arguments, (*_NOT_OF_A_FILE, *more), "with --evaluate FILE")
    if arguments.experiment is not None:
        options.together(arguments, functools.partial(_evaluate_experiment, arguments))
    elif arguments.evaluate is not None and is_packed(arguments.evaluate):
        _evaluate_packed(arguments)
    elif arguments.evaluate is not None:
        options.together(arguments, functools.partial(_evaluate_file, arguments))
    else:
        raise ConfigError("nothing to evaluate: give --evaluate FILE or --experiment JSON")


def _evaluate_experiment(arguments: argparse.Namespace, processes: Processes | None) -> None:
    from recu.stages.evaluate import evaluate

    planned = options.planned_of(arguments)
    dataset = options.planned_dataset(arguments, planned)
    evaluate(
        planned,
        dataset=dataset,
        prepared=options.prepared_data(arguments, planned.dataset, dataset),
        results_dir=arguments.results_dir,
        runs_dir=arguments.runs_dir,
        running=options.running_of(arguments),
        processes=processes,
    )


def _evaluate_packed(arguments: argparse.Namespace) -> None:
    """What `_evaluate_file` does of a checkpoint, without PyTorch."""
    from recu.stages.packed import evaluate_packed, load_packed

    options.check_packed(arguments, *(name for name in options.OF_A_FILE if name != "dataset" and name in arguments))
    options.check_output(arguments)
    packed = load_packed(arguments.evaluate)
    name = getattr(arguments, "dataset", packed.header["dataset"])
    dataset = options.dataset_of(arguments, name)
    prepared = _test_images(arguments, name, dataset)
    found = evaluate_packed(packed, prepared)
    network = visible(packed.header["network"])
    print(f"{packed.path} (SHA-256 {packed.sha256[:12]}), {network}, packed, without PyTorch")
    print(
        f"{dataset.title} (data {found['data_fingerprint'][:12]}): top-1 {found['top1']:.2f} %, top-5"
        f" {found['top5']:.2f} %, loss {found['loss']:.4f} on {found['n']} images"
    )
    if arguments.output is not None:
        atomic_write_json(arguments.output, found)


def _evaluate_file(arguments: argparse.Namespace, processes: Processes | None) -> None:
    from recu.stages.evaluate import Measuring, describe_evaluation, evaluate_file
    from recu.stages.subject import recognise
    from recu.training.checkpoint import open_checkpoint
    from recu.training.checkpoint_identity import identity_of
    from recu.training.device import check_gpus

    running = options.running_of(arguments)
    check_gpus(running.gpus)
    options.check_output(arguments)
    asked = {key: getattr(arguments, key) for key in options.OF_A_FILE if key in arguments and key != "dataset"}
    file = open_checkpoint(arguments.evaluate)
    name = _dataset_name(arguments, file.path, identity_of(file.content, file.path))
    dataset = options.dataset_of(arguments, name)
    subject = recognise(file, asked, name, dataset)
    if subject.identity is None:
        _log.info(
            "%s does not say on which images it was trained: mean %s, std %s and the order of classes are those of"
            " dataset %s here",
            file.path,
            dataset.mean,
            dataset.std,
            name,
        )
    family = cast("Family", subject.family)  # as `recognise` has checked
    recipe = options.hyperparameters_of(arguments, family, stage=subject.stage, binariser=subject.binariser)
    prepared = _test_images(arguments, name, dataset)
    how = Measuring(name, dataset, prepared, recipe.batch_size_test, recipe.loader, running)
    measured, report = evaluate_file(subject, how, processes)
    said_by = "the options say" if subject.identity is None and "model" in asked else "it says itself"
    print(
        f"{file.path} (SHA-256 {file.sha256[:12]}), {subject.network} of stage {subject.stage} as {said_by}: {report}"
    )
    print(f"{dataset.title} (data {measured.data_fingerprint[:12]}): {describe_evaluation(measured)}")
    if arguments.output is not None:
        atomic_write_json(arguments.output, measured.as_plain() | {"load": report.as_json()})


def _test_images(arguments: argparse.Namespace, name: str, dataset: Dataset) -> Prepared:
    """The data, prepared if its test images are not yet."""
    from recu.data import prepare_beside

    return prepare_beside(
        name,
        dataset,
        data_dir=arguments.data_dir,
        source=options.data_source(arguments),
        workers=arguments.workers,
        needed=("test",),
    )


def _dataset_name(arguments: argparse.Namespace, file: Path, identity: CheckpointIdentity | None) -> str:
    """Of the dataset to measure on: the one named, else the file's own. Raises ConfigError."""
    if "dataset" in arguments:
        return arguments.dataset
    if identity is None:
        raise ConfigError(f"--dataset is missing: {file} does not say what it was trained on")
    if identity.dataset not in load_datasets(arguments.params_dir):
        raise ConfigError(
            f"{file} was trained on {identity.dataset}, which is no dataset in params/datasets.yaml: add it there, or"
            " name another one with --dataset"
        )
    return identity.dataset
