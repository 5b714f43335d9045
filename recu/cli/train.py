"""`recu train`: an experiment of the workflow (--experiment), or a command line as the authors' program takes it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, get_args

from recu.cli import options
from recu.config import Dataset, Family
from recu.errors import ConfigError, Interrupted, unknown_name
from recu.experiments import Experiment, Origin, network_name, parse_experiment
from recu.files import hash_file
from recu.fit import check_compile, check_dataset
from recu.params import load_config, load_defaults, validate_model
from recu.paths import CHECKPOINT, config_file, user_path
from recu.registry import check_network
from recu.values import LARGEST_SEED, Name

if TYPE_CHECKING:
    from recu.stages.networks import Teacher, Weights
    from recu.stages.train import Running

SUITE = "command-line"
"""Suite of experiments that stand in no file; also the name of their MLflow experiment."""

_LARGEST_DRAWN_SEED = 2**31 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand; those of the authors' program have its names."""
    parser.add_argument(
        "--experiment", metavar="JSON", help="an experiment of the workflow, in place of everything that defines one"
    )
    parser.add_argument("-e", "--evaluate", type=user_path, metavar="FILE", help="only evaluate this checkpoint")
    parser.add_argument(
        "--output", type=user_path, metavar="FILE.json", help="with --evaluate: write the measurement here"
    )
    parser.add_argument("--overwrite", action="store_true", help="with --output: replace an existing file")
    options.add_network_options(parser)
    _add_recipe_options(parser)
    _add_start_options(parser)
    options.add_place_options(parser)
    _add_display_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train, or evaluate with --evaluate."""
    if arguments.evaluate is not None:
        from recu.cli import evaluate

        evaluate.run(arguments)
    elif arguments.experiment is not None:
        _train_experiment(arguments)
    else:
        _train_command_line(arguments)


def _add_recipe_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recipe (defaults: the family's in params/defaults.yaml)")
    absent: dict[str, Any] = {"default": options.NOT_GIVEN}
    group.add_argument("--epochs", type=int, **absent)
    group.add_argument("-b", "--batch_size", type=int, **absent, help="training images per step")
    group.add_argument("--lr", type=float, **absent, help="initial learning rate")
    group.add_argument("--lr_type", **absent, help="cos, step, linear or linear_start")
    group.add_argument(
        "--lr_decay_step", type=int, nargs="+", **absent, metavar="EPOCH", help="epochs at which step decays"
    )
    group.add_argument(
        "--warm_up", action=argparse.BooleanOptionalAction, **absent, help="raise the rate over 5 epochs"
    )
    group.add_argument("--optimizer", **absent, help="sgd or adam")
    group.add_argument("--momentum", type=float, **absent)
    group.add_argument("--weight_decay", type=float, **absent)
    group.add_argument("--weight_decay_groups", **absent, help="all, imagenet or birealnet")
    group.add_argument("--tau_min", type=float, **absent)
    group.add_argument("--tau_max", type=float, **absent)
    group.add_argument(
        "--skip_unreadable", action="store_true", **absent, help="leave out unreadable training images and count them"
    )
    group.add_argument("--augmentation", **absent, help="in place of the dataset's (see params/datasets.yaml)")
    group.add_argument("--precision", **absent, help="fp32 or bf16")
    group.add_argument("--compile", **absent, help="kernels or cuda-graphs, on a GPU (torch.compile)")
    group.add_argument(
        "--seed", type=int, default=1, help="0 draws one at random and records it (default: %(default)s)"
    )
    group.add_argument("--method", default="vanilla", help="name for the record (default: %(default)s)")


def _add_start_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("start")
    group.add_argument("--save", help="name of the folder in --results_dir (default: made from the other options)")
    group.add_argument("--resume", type=user_path, metavar="FILE", help="checkpoint to continue")
    group.add_argument(
        "--start_epoch", type=int, default=0, help="first epoch of a new training (default: %(default)s)"
    )
    group.add_argument(
        "--init_from",
        type=user_path,
        default=options.NOT_GIVEN,
        metavar="FILE",
        help="checkpoint that gives the initial weights",
    )
    group.add_argument("--stage1", type=user_path, metavar="FILE", help="checkpoint of stage 1 to start stage 2 from")
    group.add_argument(
        "--teacher", default=options.NOT_GIVEN, help="a torchvision network, or a checkpoint of this program"
    )
    group.add_argument("--teacher_weights", type=user_path, metavar="FILE", help="weights of the torchvision network")


def _add_display_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("display and saving")
    group.add_argument(
        "-p", "--print_freq", type=int, default=100, metavar="N", help="steps a line (default: %(default)s)"
    )
    group.add_argument(
        "--time_estimate", type=int, nargs="?", const=1, default=1, help="0: no finish estimate (default: %(default)s)"
    )
    group.add_argument(
        "--save_minutes", type=float, default=10.0, help="longest time between two checkpoints (default: %(default)s)"
    )
    group.add_argument("--tracking_uri", help="MLflow store; empty for none (default: that of params/config.yaml)")


def _train_experiment(arguments: argparse.Namespace) -> None:
    from recu.data import open_prepared
    from recu.stages.train import train

    options.refuse_with_experiment(arguments)
    experiment = parse_experiment(arguments.experiment)
    dataset = experiment_dataset(arguments, experiment)
    train(
        experiment,
        dataset=dataset,
        prepared=open_prepared(arguments.data_dir / experiment.dataset, dataset),
        results_dir=arguments.results_dir,
        runs_dir=arguments.runs_dir,
        teacher_weights=arguments.teacher_weights,
        running=running_of(arguments),
    )


def experiment_dataset(arguments: argparse.Namespace, experiment: Experiment) -> Dataset:
    """The entry of an experiment's dataset. Raises ConfigError if it has changed since the experiment was written."""
    dataset = options.dataset_of(arguments, experiment.dataset)
    if dataset.identity() != experiment.data:
        raise ConfigError(
            f"--experiment: dataset {experiment.dataset} has other settings in params/datasets.yaml than the experiment"
        )
    return dataset


def running_of(arguments: argparse.Namespace) -> Running:
    """How to run, from the options that change no result."""
    from recu.stages.train import Running

    tracking_uri = arguments.tracking_uri
    if tracking_uri is None:
        tracking_uri = load_config(config_file(arguments.params_dir)).tracking_uri
    for name in ("print_freq", "save_minutes"):
        if not getattr(arguments, name, 1) > 0:  # so that "nan" is refused too
            raise ConfigError(f"--{name} is {getattr(arguments, name)}, expected a number above 0")
    for name in ("workers", "threads"):
        options.check_processes(arguments, name)
    return Running(
        gpus=options.gpus_of(arguments),
        workers=arguments.workers,
        threads=arguments.threads,
        tracking_uri=tracking_uri,
        print_freq=getattr(arguments, "print_freq", 100),
        time_estimate=bool(getattr(arguments, "time_estimate", 1)),
        save_every_seconds=60.0 * getattr(arguments, "save_minutes", 10.0),
    )


def _train_command_line(arguments: argparse.Namespace) -> None:
    from recu.data import prepare_beside
    from recu.engine.device import check_gpus
    from recu.stages.train import check_new, check_writable, train_in_folder

    name, model = options.required(arguments, "dataset"), options.required(arguments, "model")
    dataset = options.dataset_of(arguments, name)
    teacher = _teacher(arguments)
    initial, origin = _initial(arguments)
    experiment = _experiment(arguments, name, model, dataset, origin, teacher)
    check_network(
        model,
        family=experiment.family,
        variant=experiment.variant,
        stage=experiment.hyperparameters.stage,
        image_size=dataset.image_size,
    )
    running = running_of(arguments)
    check_dataset(experiment.hyperparameters, dataset)
    check_compile(experiment.hyperparameters.compile, running.gpus)
    check_gpus(running.gpus)
    folder = arguments.results_dir / (arguments.save or _default_save(experiment))
    check_writable(folder)
    if arguments.resume is None:
        check_new(folder)
    # After everything that can be wrong in an instant, since preparing may take minutes.
    prepared = prepare_beside(
        name, dataset, data_dir=arguments.data_dir, source=options.data_source(arguments), workers=arguments.workers
    )
    try:
        train_in_folder(
            experiment,
            dataset=dataset,
            prepared=prepared,
            folder=folder,
            running=running,
            resume=arguments.resume,
            start_epoch=arguments.start_epoch,
            initial=initial,
            teacher=teacher,
        )
    except Interrupted as stop:
        raise Interrupted(f"{stop}, with --resume {folder / CHECKPOINT}") from stop


def _experiment(
    arguments: argparse.Namespace,
    name: str,
    model: str,
    dataset: Dataset,
    origin: Origin | None,
    teacher: Teacher | None,
) -> Experiment:
    family = getattr(arguments, "family", dataset.family)
    if family not in get_args(Family):
        raise unknown_name("family", family, get_args(Family))
    taught_by = None if teacher is None else teacher.origin
    # Here the two stand for a file, not for a method of a suite; the experiment's origins say which.
    fixed = {"init_from": None, "teacher": None if taught_by is None else taught_by.id}
    return Experiment(
        suite=SUITE,
        dataset=name,
        family=family,
        variant=getattr(arguments, "variant", None),
        model=model,
        method=validate_model(json.dumps(arguments.method), Name, "--method"),
        seed=_seed(arguments),
        hyperparameters=options.hyperparameters_of(arguments, family, **fixed),
        data=dataset.identity(),
        init_from=origin,
        teacher=taught_by,
        recipe_version=load_defaults(arguments.params_dir).recipe_version,
    )


def _seed(arguments: argparse.Namespace) -> int:
    """The seed; 0 means one drawn at random, or that of the checkpoint being continued."""
    import logging
    import secrets

    if not 0 <= arguments.seed <= LARGEST_SEED:
        raise ConfigError(f"--seed is {arguments.seed}, expected 0 to {LARGEST_SEED}")
    if arguments.seed:
        return arguments.seed
    if arguments.resume is not None:
        from recu.engine.checkpoint import RESUME_KEY, read_checkpoint

        ours = read_checkpoint(arguments.resume).get(RESUME_KEY)
        if isinstance(ours, dict) and isinstance(ours.get("seed"), int):
            return ours["seed"]
    seed = 1 + secrets.randbelow(_LARGEST_DRAWN_SEED)
    logging.getLogger(__name__).info("--seed 0: seed %d was drawn; --seed %d repeats this training", seed, seed)
    return seed


def _initial(arguments: argparse.Namespace) -> tuple[Weights | None, Origin | None]:
    """Initial weights from --stage1 or --init_from, and how the experiment names them."""
    from recu.stages.networks import Weights, missing_from_stage

    init_from = getattr(arguments, "init_from", None)
    if arguments.stage1 is not None and init_from is not None:
        raise ConfigError("--stage1 and --init_from both give initial weights: choose one")
    file = arguments.stage1 or init_from
    if file is None:
        return None, None
    try:
        digest = hash_file(file)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    stage = 1 if arguments.stage1 is not None else 2
    parent = {"id": file.name, "spec_hash": digest[:16], "checkpoint_sha256": digest}
    weights = Weights(checkpoint=file, allow_missing=missing_from_stage(stage, 2), parent=parent)
    return weights, Origin(id=file.name, spec_hash=digest[:16])


def _teacher(arguments: argparse.Namespace) -> Teacher | None:
    from recu.stages.networks import Teacher

    name = getattr(arguments, "teacher", None)
    if name is None:
        if arguments.teacher_weights is not None:
            raise ConfigError("--teacher_weights needs --teacher NAME: the torchvision network they belong to")
        return None
    return Teacher(name=name, weights=arguments.teacher_weights)


def _default_save(experiment: Experiment) -> str:
    network = network_name(experiment.family, experiment.variant, experiment.model)
    return f"{experiment.dataset}-{network}-{experiment.method}-seed{experiment.seed}"
