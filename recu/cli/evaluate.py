"""`recu evaluate`: a checkpoint file (-e FILE), or one job of the workflow: the published training of an experiment
(--experiment) or a released file (--released).
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict

from recu.cli import options
from recu.cli.train import experiment_dataset, running_of
from recu.errors import ConfigError, OutputError
from recu.experiments import parse_experiment
from recu.files import atomic_write_json
from recu.paths import user_path
from recu.registry import check_network
from recu.released import parse_released

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand; those of the authors' program have its names."""
    parser.add_argument(
        "-e", "--evaluate", type=user_path, metavar="FILE", help="checkpoint of this program or the authors'"
    )
    parser.add_argument(
        "--experiment", metavar="JSON", help="an experiment of the workflow, whose training is evaluated"
    )
    parser.add_argument("--released", metavar="JSON", help="a released file of the workflow, which is measured")
    parser.add_argument("--output", type=user_path, metavar="FILE.json", help="write top1, top5, loss and n here")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --output")
    options.add_network_options(parser)
    options.add_place_options(parser)
    parser.add_argument("--tracking_uri", help="MLflow store, with --experiment or --released; empty for none")


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and print; `recu train --evaluate FILE` comes here too."""
    named = [name for name in ("evaluate", "experiment", "released") if getattr(arguments, name, None) is not None]
    if len(named) > 1:
        given = " and ".join(f"--{name}" for name in named)
        raise ConfigError(f"{given} {'all' if len(named) > 2 else 'both'} name what to evaluate: choose one")
    if arguments.experiment is not None:
        _evaluate_experiment(arguments)
    elif "released" in named:
        _evaluate_released(arguments)
    elif arguments.evaluate is not None:
        _evaluate_file(arguments)
    else:
        raise ConfigError("nothing to evaluate: give --evaluate FILE, --experiment JSON or --released JSON")


def _evaluate_experiment(arguments: argparse.Namespace) -> None:
    from recu.data import open_prepared
    from recu.stages.evaluate import evaluate

    options.refuse_with_experiment(arguments)
    if arguments.output is not None:
        raise ConfigError("--output goes with --evaluate FILE; an experiment's evaluation goes into --results_dir")
    experiment = parse_experiment(arguments.experiment)
    dataset = experiment_dataset(arguments, experiment)
    evaluate(
        experiment,
        dataset=dataset,
        prepared=open_prepared(arguments.data_dir / experiment.dataset, dataset),
        results_dir=arguments.results_dir,
        runs_dir=arguments.runs_dir,
        running=running_of(arguments),
    )


def _evaluate_released(arguments: argparse.Namespace) -> None:
    from recu.data import open_prepared
    from recu.stages.released import evaluate_released

    options.refuse_with_experiment(arguments, "--released")
    if arguments.output is None:
        raise ConfigError("--released needs --output FILE.json")
    released = parse_released(arguments.released)
    dataset = options.dataset_of(arguments, released.dataset)
    if dataset.identity() != released.data:
        raise ConfigError(
            f"--released: dataset {released.dataset} has other settings in params/datasets.yaml than the file's entry"
        )
    _check_output(arguments)
    evaluate_released(
        released,
        dataset=dataset,
        prepared=open_prepared(arguments.data_dir / released.dataset, dataset),
        runs_dir=arguments.runs_dir,
        output=arguments.output,
        running=running_of(arguments),
    )


def _check_output(arguments: argparse.Namespace) -> None:
    from recu.stages.train import check_writable_file

    if arguments.output.exists() and not arguments.overwrite:
        raise OutputError(f"{arguments.output} exists: remove it, choose another --output, or add --overwrite")
    check_writable_file(arguments.output)


def _evaluate_file(arguments: argparse.Namespace) -> None:
    from recu.engine.device import check_gpus
    from recu.stages.evaluate import describe_evaluation, evaluate_file
    from recu.stages.prepare import prepare

    name, model = options.required(arguments, "dataset"), options.required(arguments, "model")
    dataset = options.dataset_of(arguments, name)
    family = getattr(arguments, "family", dataset.family)
    variant = getattr(arguments, "variant", None)
    recipe = options.hyperparameters_of(arguments, family)
    check_network(model, family=family, variant=variant, stage=recipe.stage, image_size=dataset.image_size)
    running = running_of(arguments)
    check_gpus(running.gpus)
    if arguments.output is not None:
        _check_output(arguments)
    prepared = prepare(
        name, dataset, data_dir=arguments.data_dir, source=options.data_source(arguments), workers=arguments.workers
    )
    evaluation, report = evaluate_file(
        arguments.evaluate,
        model=model,
        family=family,
        variant=variant,
        stage=recipe.stage,
        dataset=dataset,
        prepared=prepared,
        batch_size_test=recipe.batch_size_test,
        loader=recipe.loader,
        running=running,
    )
    print(f"{arguments.evaluate}: {report}")
    print(f"{dataset.title}: {describe_evaluation(evaluation)}")
    if arguments.output is not None:
        values = asdict(evaluation)
        atomic_write_json(arguments.output, {key: values[key] for key in ("top1", "top5", "loss", "n")})
