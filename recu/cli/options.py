"""Options that several subcommands share, and what they mean together."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from recu.base.errors import ConfigError, Interrupted, OutputError, ResultError, unknown_name
from recu.base.files import read_json
from recu.base.place import place_of
from recu.experiment.fit import devices_of
from recu.experiment.networks import Family
from recu.experiment.params import load_config, load_datasets, load_defaults, validate_model
from recu.experiment.paths import find_params, user_path
from recu.experiment.released import Released, parse_planned
from recu.experiment.resolving import Experiment, Planned, parse_experiment
from recu.experiment.running import Kernels, Running
from recu.experiment.schema import Dataset, Hyperparameters, WorkflowConfig
from recu.experiment.values import MOST_PROCESSES

if TYPE_CHECKING:
    from recu.data import Prepared
    from recu.training.processes import Processes
    from recu.verify.grounds import Places

OF_A_FILE = ("model", "family", "variant", "stage", "binariser", "dataset")
"""Options that say what a checkpoint may not say itself."""
_OF_A_NETWORK = ("batch_size_test", "loader")
"""Hyper-parameters that `recu evaluate` takes too, besides the stage."""
_OTHERWISE = ("init_from", "teacher")
"""Hyper-parameters for which a command line names files in place of methods."""
_SHORT = {"batch_size": ("-b",), "batch_size_test": ("-bt",), "print_freq": ("-p",)}

_SECONDS_PER_DAY = 86400.0
_SLURM_END = "SLURM_JOB_END_TIME"

NOT_GIVEN = argparse.SUPPRESS
"""Default of every hyper-parameter's option, whose value then comes from params/defaults.yaml."""

_DIRS = {
    "data_dir": "prepared data",
    "results_dir": "published results",
    "runs_dir": "state of trainings",
    "reports_dir": "rendered tables",
}

_BESIDE_EXPERIMENT = (
    *(each.name for each in fields(Running)),
    *_DIRS,
    *("experiment", "params_dir", "manifest", "type", "teacher_weights", "batch_size_test"),
)
"""Options that have an effect beside `--experiment`: where and how it runs, which changes no result."""
_NOT_OF_A_PACKED_FILE = (*_OF_A_NETWORK, "kernels", "threads", "type", "stall_minutes", "end_time", "changed_code")
"""Options that say how PyTorch computes, besides those that `check_packed` speaks of."""


def given_options(arguments: argparse.Namespace) -> list[str]:
    """Names of the options that say something else than their defaults."""
    ours = ("words", "default_of")
    return [name for name, value in vars(arguments).items() if name not in ours and value != arguments.default_of(name)]


def refuse_ignored(arguments: argparse.Namespace, names: Iterable[str], where: str) -> None:
    """Raise ConfigError for options that stand on the command line and have no effect in the mode that was chosen.

    Args:
        arguments: all options.
        names: those that have no effect there, whether the command has them or not.
        where: the mode, e.g. "without --experiment".
    """
    named = set(names)
    ignored = [name for name in given_options(arguments) if name in named]
    has, it = ("has", "it") if len(ignored) == 1 else ("have", "them")
    if ignored:
        raise ConfigError(f"{_listed(ignored)} {has} no effect {where}; leave {it} out")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"--{name}" for name in names)


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Where files are and what computes; nothing here changes a result."""
    group = parser.add_argument_group("place")
    add_params_option(group)
    add_dirs(group, "data_dir", "results_dir", "runs_dir")
    group.add_argument(
        "--manifest",
        type=user_path,
        metavar="FILE.json",
        help="of the data that is meant, with --experiment: other data is refused",
    )
    add_device_options(group)
    add_numbers(
        group,
        processes="that share the job, one a device (default: as many as --gpus names, or one)",
        stall_minutes="how long several processes wait for one of them (default: %(default)s)",
        workers="its loader processes (default: %(default)s)",
        threads="its CPU threads (default: torch's choice)",
    )
    group.add_argument("--type", default="", help="tensor type, as the authors': one with 'cuda' in it, or a CPU type")


def add_params_option(parser: argparse._ActionsContainer) -> None:
    """Where params/ is: the working directory's own, or where it has none, the program's."""
    parser.add_argument("--params_dir", type=user_path, default=find_params(), help="default: %(default)s")


def add_dirs(parser: argparse._ActionsContainer, *names: str) -> None:
    """Options for some of a project's folders, which lie in the working directory if nothing else is said."""
    for name in names:
        usual = Path(name.removesuffix("_dir"))
        parser.add_argument(f"--{name}", type=user_path, default=usual, help=f"{_DIRS[name]} (default: %(default)s)")


def add_device_options(parser: argparse._ActionsContainer, gpus: str = Running.gpus) -> None:
    """What computes, and by which form of the layers."""
    parser.add_argument(
        "--gpus",
        "--gpu",
        default=gpus,
        help="device numbers, as 0 or 0,1 for two that share the job, or cpu (default:"
        f" {gpus or 'a GPU if there is one, else the CPU'})",
    )
    parser.add_argument(
        "--kernels",
        choices=get_args(Kernels),
        default=Running.kernels,
        help="fast forms of layers: wherever they fit, or none (default: %(default)s)",
    )


def add_numbers(parser: argparse._ActionsContainer, **said: str) -> None:
    """An option for each named number of `Running`, with its default and what is said of it."""
    for name, text in said.items():
        usual = getattr(Running, name)
        flags = (*_SHORT.get(name, ()), f"--{name}")
        parser.add_argument(*flags, type=type(usual), default=usual, metavar="N", help=text)


def opening(arguments: argparse.Namespace, *more: str) -> dict[str, Any]:
    """Keywords with which `recu.stages.predict.load` opens the file that a command names: what was said of the file,
    its places, and the options called `more`."""
    said = [name for name in OF_A_FILE if name in arguments]
    return {name: getattr(arguments, name) for name in (*said, "params_dir", "results_dir", "changed_code", *more)}


def add_identity_options(group: argparse._ActionsContainer) -> None:
    """Which network, on which data: `OF_A_FILE`."""
    group.add_argument("-a", "--model", default=NOT_GIVEN, help="e.g. resnet20_1w1a")
    group.add_argument(
        "--family", default=NOT_GIVEN, help="cifar, imagenet, reactnet or birealnet (default: the dataset's)"
    )
    group.add_argument("--variant", default=NOT_GIVEN, help="2021-03 for the form first published")
    group.add_argument("--dataset", default=NOT_GIVEN, help="a name in params/datasets.yaml, e.g. cifar10")
    for name in ("stage", "binariser"):
        _add_hyperparameter(group, name)


def add_changed_code_option(group: argparse._ActionsContainer) -> None:
    """What `recu.stages.predict.load` is told of one's own code."""
    group.add_argument(
        "--changed_code",
        action="store_true",
        help="take a network or binariser of one's own as its code is now, although it was trained as other code",
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Which network, on which data, read how."""
    group = parser.add_argument_group("network and data")
    add_identity_options(group)
    group.add_argument(
        "--data_path",
        default="",
        help="local archive or folder of the dataset (default: what is prepared, or a download)",
    )
    for name in _OF_A_NETWORK:
        _add_hyperparameter(group, name)
    group.add_argument(
        "--use_dali", action="store_const", dest="loader", const="dali", default=NOT_GIVEN, help="as --loader dali"
    )


def add_output_options(parser: argparse._ActionsContainer, what: str) -> None:
    """A JSON file to write; `what` says what of."""
    parser.add_argument("--output", type=user_path, metavar="FILE.json", help=what)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --output")


def check_output(arguments: argparse.Namespace) -> None:
    """Raise OutputError where what `add_output_options` gives could not be written, or must not be replaced."""
    if arguments.output is None:
        return
    from recu.stages.train import check_writable_file

    if arguments.output.exists() and not arguments.overwrite:
        raise OutputError(f"{arguments.output} exists: choose another --output, or add --overwrite")
    check_writable_file(arguments.output)


def check_packed(arguments: argparse.Namespace, *given: str) -> None:
    """Raise ConfigError for options that a packed file has no use for: it says what it is, and runs on the CPU.

    Args:
        arguments: with those of `add_device_options`.
        given: names of options that stand on the command line and say what a checkpoint may not say itself.
    """
    if given:
        raise ConfigError(f"a packed file says what it is: leave {_listed(given)} out")
    if arguments.gpus not in ("", "cpu"):
        raise ConfigError(f"--gpus is {arguments.gpus}: packed files run on the CPU; leave it out")
    if getattr(arguments, "processes", 0) > 1:
        raise ConfigError(f"--processes is {arguments.processes}: a packed file runs in one process; leave it out")
    refuse_ignored(arguments, _NOT_OF_A_PACKED_FILE, "with a packed file, which runs without PyTorch")


def add_project_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Where a project's folders lie, all or those named, in place of what its params/config.yaml says."""
    add_params_option(parser)
    for name in names or _DIRS:
        parser.add_argument(f"--{name}", type=user_path, help=f"{_DIRS[name]} (default: that of params/config.yaml)")


def project_config(arguments: argparse.Namespace) -> WorkflowConfig:
    """params/config.yaml with what `add_project_options` says instead. Raises ConfigError."""
    given = {name: str(value) for name in _DIRS if (value := getattr(arguments, name, None)) is not None}
    return load_config(arguments.params_dir).model_copy(update=given)


def places_of(arguments: argparse.Namespace, config: WorkflowConfig) -> Places:
    """Where everything is, by what `project_config` gives."""
    from recu.verify.grounds import Places

    folders = {name: Path(getattr(config, name)) for name in _DIRS}
    return Places(params_dir=arguments.params_dir, **folders, teacher_weights=config.teacher_weights)


def add_recipe_options(group: argparse._ArgumentGroup) -> None:
    """An option for each other hyper-parameter that means on a command line what it means in params/."""
    for name in Hyperparameters.model_fields:
        if name not in (*OF_A_FILE, *_OF_A_NETWORK, *_OTHERWISE):
            _add_hyperparameter(group, name)


def _add_hyperparameter(group: argparse._ActionsContainer, name: str) -> None:
    """The option of a hyper-parameter, read and explained as its field in the schema says."""
    field = Hyperparameters.model_fields[name]
    kind = next((each for each in get_args(field.annotation) if get_origin(each) is Literal), field.annotation)
    reading: dict[str, Any] = {"type": kind if isinstance(kind, type) else str}
    if get_origin(kind) is Literal:
        words = [str(choice) for choice in get_args(kind)]
        reading = {"type": int if words[0].isdigit() else str.lower, "metavar": f"{{{','.join(words)}}}"}
    elif kind is bool:
        reading = {"action": argparse.BooleanOptionalAction}
    elif get_origin(kind) is tuple:
        reading = {"type": int, "nargs": "+", "metavar": "N"}
    said = " ".join((field.description or "").replace("`", "").replace("%", "%%").split())
    group.add_argument(*_SHORT.get(name, ()), f"--{name}", default=NOT_GIVEN, help=said, **reading)


def add_end_time(parser: argparse._ActionsContainer, before: str) -> None:
    """When the job's scheduler ends it; `before` says what is done first."""
    parser.add_argument(
        "--end_time",
        type=float,
        metavar="SECONDS",
        help=f"Unix time at which a scheduler ends this process: {before} (default: Slurm's SLURM_JOB_END_TIME, or 0"
        " for never)",
    )


def check_count(name: str, value: int, most: int, *, least: int = 1) -> None:
    """Raise ConfigError where the value of --NAME is no number from `least` to `most`."""
    if not least <= value <= most:
        raise ConfigError(f"--{name} is {value}, expected {least} to {most}")


def dataset_of(arguments: argparse.Namespace, name: str) -> Dataset:
    """The dataset's entry. Raises ConfigError; an unknown name is answered with the nearest one."""
    datasets = load_datasets(arguments.params_dir)
    if name not in datasets:
        raise unknown_name("dataset", name, datasets)
    return datasets[name]


def planned_dataset(arguments: argparse.Namespace, planned: Planned, option: str = "--experiment") -> Dataset:
    """The entry of the dataset of what an option gives. Raises ConfigError if it has changed since that was written."""
    dataset = dataset_of(arguments, planned.dataset)
    if dataset.identity() != planned.data:
        raise ConfigError(
            f"{option}: dataset {planned.dataset} has other settings in params/datasets.yaml than the experiment"
        )
    return dataset


def prepared_data(arguments: argparse.Namespace, name: str, dataset: Dataset) -> Prepared:
    """A workflow job's data: what is prepared in `data_dir`, if it is what `--manifest` names.

    Raises:
        DataError: it is not there, has other settings, or is other data.
        ResultError: the manifest cannot be read.
    """
    from recu.data import open_prepared

    expected = None
    if arguments.manifest is not None:
        named = read_json(arguments.manifest)
        expected = named.get("fingerprint") if isinstance(named, dict) else None
        if not isinstance(expected, str):
            raise ResultError(
                f"{arguments.manifest} names no fingerprint of data: run `snakemake --cores all --forcerun prepare`"
            )
    return open_prepared(arguments.data_dir / name, dataset, expected=expected)


def data_source(arguments: argparse.Namespace) -> Path | None:
    """`--data_path` as prepare takes it."""
    return user_path(arguments.data_path) if arguments.data_path else None


def hyperparameters_of(arguments: argparse.Namespace, family: Family, **more: Any) -> Hyperparameters:
    """The family's recipe in params/defaults.yaml with what the command line says instead.

    Args:
        arguments: options under their hyper-parameters' names, absent where not given.
        family: of the network.
        more: values that stand above both.

    Raises:
        ConfigError: naming the option and what was expected.
    """
    values = load_defaults(arguments.params_dir).recipe(family) | given_hyperparameters(arguments) | more
    return validate_model(values, Hyperparameters, "command line")


def given_hyperparameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """The hyper-parameters that stand on the command line."""
    return {name: value for name, value in vars(arguments).items() if name in Hyperparameters.model_fields}


def experiment_of(arguments: argparse.Namespace) -> Experiment:
    """The experiment of `--experiment`, with `--batch_size_test`. Raises ConfigError, also for options without effect
    there."""
    neutral = _neutral(arguments)
    return _with_neutral(parse_experiment(arguments.experiment), neutral)


def planned_of(arguments: argparse.Namespace) -> Experiment | Released:
    """As `experiment_of`; it may be a released file, too."""
    neutral = _neutral(arguments)
    planned = parse_planned(arguments.experiment)
    if isinstance(planned, Experiment):
        return _with_neutral(planned, neutral)
    return validate_model(planned.model_dump(mode="json") | neutral, Released, "command line")


def _with_neutral(experiment: Experiment, neutral: dict[str, Any]) -> Experiment:
    recipe = experiment.hyperparameters.model_dump(mode="json") | neutral
    return experiment.model_copy(update={"hyperparameters": validate_model(recipe, Hyperparameters, "command line")})


def _neutral(arguments: argparse.Namespace) -> dict[str, Any]:
    """The hyper-parameters that stand beside `--experiment` and may, since they change no result."""
    fixed = [name for name in given_options(arguments) if name not in _BESIDE_EXPERIMENT]
    if not {"output", "overwrite"}.isdisjoint(fixed):
        raise ConfigError("--output goes with --evaluate FILE; what an experiment gives goes into --results_dir")
    if fixed:
        raise ConfigError(f"--experiment fixes every parameter: leave out {_listed(fixed)}")
    return given_hyperparameters(arguments)


def gpus_of(arguments: argparse.Namespace) -> str:
    """The device: `--gpus`, else what `--type` names."""
    if arguments.gpus or not arguments.type:
        return arguments.gpus
    kind = arguments.type.lower()
    if not kind.startswith("torch.") or "tensor" not in kind:
        raise ConfigError(f"--type {arguments.type!r}: expected a tensor type such as torch.cuda.FloatTensor")
    return "0" if "cuda" in kind else "cpu"


def running_of(arguments: argparse.Namespace) -> Running:
    """How to run, from the options that change no result."""
    tracking_uri = arguments.tracking_uri
    if tracking_uri is None:
        tracking_uri = load_config(arguments.params_dir).tracking_uri
    for name in ("print_freq", "save_minutes", "stall_minutes"):
        if not getattr(arguments, name, 1) > 0:  # so that "nan" is refused too
            raise ConfigError(f"--{name} is {getattr(arguments, name)}, expected a number above 0")
    end_time = _end_time(getattr(arguments, "end_time", None))
    for name in ("workers", "threads", "processes"):
        check_count(name, getattr(arguments, name), MOST_PROCESSES, least=0)
    given = {each.name: getattr(arguments, each.name) for each in fields(Running) if each.name in arguments}
    return Running(**given | {"gpus": gpus_of(arguments), "tracking_uri": tracking_uri, "end_time": end_time})


def _end_time(given: float | None) -> float:
    """When the job ends: `--end_time`, else as Slurm says, which may have set nothing or an empty variable.

    Raises:
        Interrupted: its time is over.
        ConfigError: that is no time that can be meant.
    """
    if given is not None:
        name, text = "--end_time", f"{given:.15g}"
    else:
        name, text = f"{_SLURM_END} in the environment", os.environ.get(_SLURM_END, "").strip()
    if not text:
        return Running.end_time
    try:
        end_time = float(text)
    except ValueError:
        end_time = math.nan
    over_s = time.time() - end_time if end_time else 0.0
    if not end_time >= 0 or over_s > _SECONDS_PER_DAY:
        raise ConfigError(
            f"{name} is {text}, expected the job's end in seconds of Unix time, e.g. $(date -d '+55 minutes' +%s), or"
            " 0 for never"
        )
    if over_s > 0:
        raise Interrupted(
            f"the time of this job is over ({name}, {over_s:.0f} s ago), nothing was begun: run the same command again"
            " with more of it"
        )
    return end_time


def _quiet_pytorch() -> None:
    """Before it is imported: let it keep to itself what several processes would otherwise be told of its insides."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def together(arguments: argparse.Namespace, work: Callable[[Processes | None], None]) -> None:
    """Do a job's work, in as many processes as are asked for or as a launcher has started.

    Args:
        arguments: with those of `add_place_options`.
        work: what the first process does; it gives the others theirs. None says that there are no others.

    Raises:
        RecuError: what `work` raises; several processes that cannot be or do not find each other.
    """
    running, place = running_of(arguments), place_of(os.environ)
    count = devices_of(running.gpus, running.processes)
    if place.count == 1 and count == 1:
        work(None)
    elif place.count == 1:
        _quiet_pytorch()
        from recu.training.launcher import launch

        launch(arguments.words, gpus=running.gpus, count=count)
    else:
        _quiet_pytorch()
        from recu.training.processes import joined, speak_of_little

        if running.processes not in (0, place.count):
            raise ConfigError(f"--processes is {running.processes}, and the launcher has started {place.count}")
        with joined(place, gpus=running.gpus, patience_s=60 * running.stall_minutes) as processes:
            if processes.first:
                work(processes)
            else:
                speak_of_little()
                processes.assist()
