"""`recu train`: train a network, or continue a training.

It is an experiment of the workflow (--experiment), or a command line as the authors' program takes it.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from recu.base.errors import ConfigError, unknown_name
from recu.base.files import hash_file, reading
from recu.cli import options
from recu.experiment.binarisers import USUAL
from recu.experiment.fit import (
    check_batch_size,
    check_device_suits,
    check_initial_binariser,
    check_initial_stage,
    check_start_epoch,
    fitted,
)
from recu.experiment.networks import Family, check_network
from recu.experiment.params import load_defaults, validate_model
from recu.experiment.paths import user_path
from recu.experiment.resolving import Experiment, Origin
from recu.experiment.running import Running
from recu.experiment.schema import Dataset
from recu.experiment.values import LARGEST_SEED, Name
from recu.results.provenance import code_at_start

if TYPE_CHECKING:
    from recu.stages.networks import Teacher, Weights
    from recu.stages.resume import Found
    from recu.training.checkpoint_identity import CheckpointIdentity
    from recu.training.processes import Processes

SUITE = "command-line"
"""Suite of experiments that stand in no file; also the name of their MLflow experiment."""

_AUTHORS_DEFAULTS = {"model": "resnet18_1w1a", "dataset": "cifar10"}
_SEED = 1
_LARGEST_DRAWN_SEED = 2**31 - 1

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand; those of the authors' program have its names."""
    parser.add_argument(
        "--experiment", metavar="JSON", help="an experiment of the workflow, in place of everything that defines one"
    )
    parser.add_argument("-e", "--evaluate", type=user_path, metavar="FILE", help="only evaluate this checkpoint")
    options.add_output_options(parser, "with --evaluate: write the measurement here")
    options.add_network_options(parser)
    _add_recipe_options(parser)
    _add_start_options(parser)
    options.add_place_options(parser)
    _add_display_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train, or evaluate with --evaluate."""
    code_at_start()
    if arguments.evaluate is not None:
        from recu.cli import evaluate

        evaluate.run(arguments)
        return
    if arguments.experiment is None:
        options.refuse_ignored(arguments, ("manifest", "runs_dir"), "without --experiment")
        options.refuse_ignored(arguments, ("output", "overwrite"), "without --evaluate FILE")
    train = _train_command_line if arguments.experiment is None else _train_experiment
    options.together(arguments, functools.partial(train, arguments))


def _add_recipe_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recipe (defaults: the family's in params/defaults.yaml)")
    options.add_recipe_options(group)
    group.add_argument(
        "--seed",
        type=int,
        help="0 draws one at random and records it (default: 1; of what --resume continues, its own)",
    )
    group.add_argument("--method", help="name for the record (default: vanilla, or the binariser if one is given)")


def _add_start_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("start")
    group.add_argument(
        "--save", help="name of the folder in --results_dir (default: DATASET-FAMILY.MODEL-METHOD-seedN)"
    )
    group.add_argument(
        "--resume",
        type=user_path,
        nargs="?",
        const=True,
        default=False,
        metavar="FILE",
        help="continue this checkpoint, or without FILE the one in RESULTS_DIR/SAVE, with other parameters too",
    )
    group.add_argument(
        "--start_epoch", type=int, default=-1, help="first epoch of a new training; -1: the very first (default)"
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
    options.add_numbers(
        group,
        print_freq="steps a line (default: %(default)s)",
        save_minutes="longest time between two checkpoints (default: %(default)s)",
    )
    group.add_argument(
        "--time_estimate", type=int, nargs="?", const=1, default=1, help="0: no finish estimate (default: %(default)s)"
    )
    options.add_end_time(group, "its state is saved before")
    group.add_argument(
        "--keep_resumable",
        action="store_true",
        help="keep the state of the finished training, for more epochs (6 to 10 times the weights, with Adam up to 15)",
    )
    group.add_argument(
        "--diagnostics",
        type=int,
        nargs="?",
        const=1,
        default=int(Running.diagnostics),
        choices=(0, 1),
        help="0: binary layers are not measured after each epoch, which changes no result (default: %(default)s)",
    )
    group.add_argument("--tracking_uri", help="MLflow store; empty for none (default: that of params/config.yaml)")


def _train_experiment(arguments: argparse.Namespace, processes: Processes | None) -> None:
    from recu.stages.train import train

    experiment = options.experiment_of(arguments)
    dataset = options.planned_dataset(arguments, experiment)
    train(
        experiment,
        dataset=dataset,
        prepared=options.prepared_data(arguments, experiment.dataset, dataset),
        results_dir=arguments.results_dir,
        runs_dir=arguments.runs_dir,
        teacher_weights=arguments.teacher_weights,
        running=options.running_of(arguments),
        processes=processes,
    )


def _train_command_line(arguments: argparse.Namespace, processes: Processes | None) -> None:
    from recu.data import prepare_beside
    from recu.stages.resume import check_may_continue, state_to_continue
    from recu.stages.train import check_writable, train_in_folder
    from recu.training.device import check_gpus

    start_epoch = _start_epoch(arguments)
    found = _found(arguments)
    name, model = _named(arguments, found, "dataset"), _named(arguments, found, "model")
    dataset = options.dataset_of(arguments, name)
    teacher = _teacher(arguments, name, dataset)
    initial, origin = _initial(arguments, found)
    experiment = _experiment(arguments, name, model, dataset, origin, teacher, found)
    check_network(
        model,
        family=experiment.family,
        variant=experiment.variant,
        stage=experiment.hyperparameters.stage,
        image_size=dataset.image_size,
        binariser=experiment.hyperparameters.binariser,
    )
    initial = _checked_initial(arguments, initial, experiment)
    running = options.running_of(arguments)
    check_device_suits(experiment.hyperparameters, running.gpus)
    check_gpus(running.gpus)
    check_start_epoch(start_epoch, experiment.hyperparameters.epochs)
    usual = f"{name}-{experiment.network}-{experiment.method}-seed{experiment.seed}"
    folder = arguments.results_dir / (arguments.save or usual)
    check_writable(folder)
    found = found or state_to_continue(folder, arguments.resume, repair=False)
    if found is not None:
        check_may_continue(found, experiment, asked=arguments.resume is not False, start_epoch=start_epoch)
    # After everything that can be wrong in an instant, since preparing may take minutes.
    prepared = prepare_beside(
        name, dataset, data_dir=arguments.data_dir, source=options.data_source(arguments), workers=arguments.workers
    )
    check_batch_size(experiment.hyperparameters.batch_size, prepared.manifest.splits["train"])
    train_in_folder(
        experiment,
        dataset=dataset,
        prepared=prepared,
        folder=folder,
        running=running,
        resume=arguments.resume,
        start_epoch=start_epoch,
        initial=initial,
        teacher=teacher,
        processes=processes,
    )


def _start_epoch(arguments: argparse.Namespace) -> int:
    """The first epoch of a new training, counted from 0; the authors' -1 stands for the very first."""
    if arguments.start_epoch < -1:
        raise ConfigError(f"--start_epoch is {arguments.start_epoch}, expected -1 (the first) or an epoch from 0 on")
    if arguments.start_epoch > 0 and isinstance(arguments.resume, Path):
        raise ConfigError("--start_epoch begins a new training, and --resume FILE continues where FILE stopped: choose")
    return max(arguments.start_epoch, 0)


def _found(arguments: argparse.Namespace) -> Found | None:
    """What is going to be continued, as far as the options say so before the experiment is known."""
    from recu.stages.resume import given_state, state_to_continue

    if arguments.save:
        return state_to_continue(arguments.results_dir / arguments.save, arguments.resume, repair=False)
    return given_state(arguments.resume) if isinstance(arguments.resume, Path) else None


def _resumed(arguments: argparse.Namespace, found: Found | None) -> CheckpointIdentity | None:
    """What the checkpoint says of itself that --resume continues; it stands for options left out."""
    return None if found is None or arguments.resume is False else found.identity


def _named(arguments: argparse.Namespace, found: Found | None, option: str) -> str:
    """The value of --model or --dataset: as given, else of the checkpoint to resume, else the authors' default."""
    given = getattr(arguments, option, None)
    if given:
        return given
    says = _resumed(arguments, found)
    if says is not None and found is not None:
        value, whose = getattr(says, option), f"that of {found.file}"
    else:
        value, whose = _AUTHORS_DEFAULTS[option], "the default of the authors' program"
    _log.info("--%s is left out: %s, %s", option, value, whose)
    return value


def _experiment(
    arguments: argparse.Namespace,
    name: str,
    model: str,
    dataset: Dataset,
    origin: Origin | None,
    teacher: Teacher | None,
    found: Found | None,
) -> Experiment:
    says = _resumed(arguments, found)
    named = getattr(arguments, "family", says.family if says else dataset.family)
    if named not in get_args(Family):
        raise unknown_name("family", named, get_args(Family))
    family = cast(Family, named)
    taught_by = None if teacher is None else teacher.origin
    # Here the two stand for a file, not for a method of a suite; the experiment's origins say which.
    fixed = {"init_from": None, "teacher": None if taught_by is None else taught_by.id}
    return Experiment(
        suite=SUITE,
        dataset=name,
        family=family,
        variant=getattr(arguments, "variant", says.variant if says else None),
        model=model,
        method=validate_model(json.dumps(_method(arguments)), Name, "--method"),
        seed=_seed(arguments, found),
        hyperparameters=fitted(options.hyperparameters_of(arguments, family, **fixed), dataset),
        data=dataset.identity(),
        init_from=origin,
        teacher=taught_by,
        recipe_version=load_defaults(arguments.params_dir).recipe_version,
    )


def _method(arguments: argparse.Namespace) -> str:
    binariser = getattr(arguments, "binariser", USUAL)
    return arguments.method or ("vanilla" if binariser == USUAL else binariser.replace(":", "."))


def _seed(arguments: argparse.Namespace, found: Found | None) -> int:
    """The seed; 0, or none with --resume, is that of the checkpoint to continue; else 0 is one drawn at random."""
    import secrets

    given = arguments.seed
    if given is not None and not 0 <= given <= LARGEST_SEED:
        raise ConfigError(f"--seed is {given}, expected 0 to {LARGEST_SEED}")
    if given:
        return given
    if (given == 0 or arguments.resume is not False) and found is not None and found.identity is not None:
        return found.identity.seed
    if given is None:
        return _SEED
    seed = 1 + secrets.randbelow(_LARGEST_DRAWN_SEED)
    _log.info("--seed 0: seed %d was drawn; --seed %d repeats this training", seed, seed)
    return seed


def _initial(arguments: argparse.Namespace, found: Found | None) -> tuple[Weights | None, Origin | None]:
    """Initial weights from --stage1 or --init_from, and how the experiment names them.

    What --resume continues keeps the origin it has; its weights are in the checkpoint.
    """
    from recu.results.records import Source
    from recu.stages.networks import Weights

    init_from = getattr(arguments, "init_from", None)
    if arguments.stage1 is not None and init_from is not None:
        raise ConfigError("--stage1 and --init_from both give initial weights: choose one")
    file = arguments.stage1 or init_from
    if file is None:
        return None, found.init_from if found is not None and _resumed(arguments, found) else None
    with reading(file, ConfigError):
        digest = hash_file(file)
    parent = Source(id=file.name, spec_hash=digest[:16], checkpoint_sha256=digest)
    return Weights(checkpoint=file, parent=parent), Origin(id=file.name, spec_hash=digest[:16])


def _checked_initial(arguments: argparse.Namespace, initial: Weights | None, experiment: Experiment) -> Weights | None:
    """Initial weights, with what those of an earlier stage may lack; refuse those of another network, where their file
    says what it is."""
    from recu.stages.networks import missing_from_stage
    from recu.training.checkpoint_identity import check_agrees, describe_checkpoint

    if initial is None:
        return None
    if arguments.stage1 is not None:
        initial = replace(initial, allow_missing=missing_from_stage(1, experiment))
    says = describe_checkpoint(initial.checkpoint)
    if says is None:
        return initial
    if arguments.stage1 is not None:
        check_agrees(says, initial.checkpoint, {"stage": 1}, by="--stage1", advice="give a file of stage 1")
    asked: dict[str, Any] = {"model": experiment.model, "family": experiment.family, "variant": experiment.variant}
    # Weights learnt on images normalised otherwise are a start that nobody means.
    asked |= {key: tuple(experiment.data[key]) for key in ("mean", "std")}
    asked["num_classes"] = experiment.data["num_classes"]
    advice = "give a file of the same network, trained on data with the same classes and normalisation"
    check_agrees(says, initial.checkpoint, asked, by="the training that starts from it", advice=advice)
    recipe, file = experiment.hyperparameters, str(initial.checkpoint)
    check_initial_stage(file, says.stage, recipe.stage)
    check_initial_binariser(file, says.stage, says.binariser, recipe.binariser)
    return initial


def _teacher(arguments: argparse.Namespace, name: str, dataset: Dataset) -> Teacher | None:
    from recu.stages.networks import Teacher

    chosen = getattr(arguments, "teacher", None)
    if chosen is None:
        if arguments.teacher_weights is not None:
            raise ConfigError("--teacher_weights needs --teacher NAME: the torchvision network they belong to")
        return None
    teacher = Teacher(name=chosen, weights=arguments.teacher_weights)
    teacher.check_fits(name, dataset)
    return teacher
