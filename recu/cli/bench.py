"""`recu bench`: measure speed and memory against the plain reference in benchmarks/, or what suites take."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from dataclasses import fields
from types import ModuleType
from typing import TYPE_CHECKING

from recu.base.errors import ConfigError, unknown_name
from recu.base.files import atomic_write_json
from recu.cli import options
from recu.experiment import paths
from recu.experiment.params import load_config
from recu.experiment.paths import user_path
from recu.experiment.plan import load_plan, threads_per_training
from recu.experiment.rates import measured_file
from recu.experiment.values import MOST_PROCESSES

if TYPE_CHECKING:
    from recu.stages.export import Wanted

_MODELS = ("resnet20_1w1a", "resnet18_1w1a", "vgg_small_1w1a")
_CLOCKS = ("cpu", "wall")
_OPENVINO = paths.PROJECT_DIR / ".venv-openvino/bin/python"
_OF_ENGINES = ("images", "workers", "batch_size", "batch_size_test", "clock")
_OF_PEERS = ("small", "openvino", "checkpoint")
_IGNORED = {
    "": (*_OF_PEERS, "jobs"),
    "suite": (*_OF_ENGINES, *_OF_PEERS, "peers", "models", "repeats"),
    "peers": (*_OF_ENGINES, "threads", "gpus", "jobs"),
}
"""Options that would change nothing, by what is measured."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "--models",
        nargs="*",
        default=list(_MODELS),
        help="CIFAR networks (default: %(default)s); --models alone: none, only the input is measured, "
        "with --peers the network of 224x224 pixels",
    )
    parser.add_argument(
        "--images",
        type=user_path,
        metavar="PATH",
        help="measure the input of large images too, on a folder, tar or zip of <class>/<name>.JPEG",
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read --images (default: %(default)s)"
    )
    parser.add_argument(
        "-b", "--batch_size", type=int, default=64, help="training images a step (default: %(default)s)"
    )
    parser.add_argument(
        "-bt", "--batch_size_test", type=int, default=128, help="images per evaluation step (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: torch's choice)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each engine (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn, about (default: %(default)s)")
    parser.add_argument(
        "--clock",
        default="wall",
        help="wall, or cpu: seconds computed, for a machine that others use too (default: %(default)s)",
    )
    parser.add_argument("--gpus", default="cpu", help="a device number, or cpu (default: %(default)s)")
    parser.add_argument(
        "--suite",
        nargs="+",
        metavar="SUITE",
        help="measure instead how fast this package trains and evaluates the networks of suites, for `recu plan`",
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="measure instead packed files beside PyTorch, onnxruntime and OpenVINO",
    )
    parser.add_argument(
        "--small", action="store_true", help="with --peers: CIFAR's networks only, without the one of 224x224 pixels"
    )
    parser.add_argument(
        "--openvino",
        type=user_path,
        default=_OPENVINO,
        metavar="PYTHON",
        help="with --peers: the Python of an environment with OpenVINO (default: that of `make openvino`)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="with --peers: a checkpoint that names its network and dataset, with its test images (default: random)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="with --suite: jobs at once, as in the workflow (default: as many as --threads leaves room for)",
    )
    options.add_params_option(parser)
    options.add_dirs(parser, "data_dir", "results_dir")
    parser.add_argument(
        "--output",
        type=user_path,
        metavar="FILE.json",
        help="write the numbers here (with --suite default: where `recu plan` finds them, rates.json in --results_dir)",
    )
    group = parser.add_argument_group("what the file of --checkpoint does not say itself")
    options.add_identity_options(group)
    options.add_changed_code_option(group)


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, write the numbers."""
    if arguments.clock not in _CLOCKS:
        raise unknown_name("clock", arguments.clock, _CLOCKS)
    _refuse_ignored(arguments)
    for name in ("threads", "workers"):
        options.check_count(name, getattr(arguments, name), MOST_PROCESSES, least=0)
    from recu.stages.train import check_writable_file

    if arguments.suite:
        _measure_suites(arguments)
        return
    if arguments.peers:
        _measure_peers(arguments)
        return
    benchmark = _benchmark("benchmark")
    given = {each.name: getattr(arguments, each.name) for each in fields(benchmark.BenchSettings)}
    settings = benchmark.BenchSettings(**given | {"models": tuple(dict.fromkeys(arguments.models))})
    if arguments.output is not None:
        check_writable_file(arguments.output)
    result = benchmark.bench(settings)
    print(benchmark.render(result))
    if arguments.output is not None:
        atomic_write_json(arguments.output, result)


def _refuse_ignored(arguments: argparse.Namespace) -> None:
    measured = "suite" if arguments.suite else "peers" if arguments.peers else ""
    where = f"with --{measured}" if measured else "without --peers or --suite"
    options.refuse_ignored(arguments, _IGNORED[measured], where)
    if arguments.checkpoint is not None and (arguments.small or arguments.models != arguments.default_of("models")):
        raise ConfigError("--checkpoint names the one network that is measured; leave --small and --models out")


def _measure_peers(arguments: argparse.Namespace) -> None:
    from recu.stages.train import check_writable_file

    program = _benchmark("peers")
    given = {name: getattr(arguments, name) for name in ("openvino", "repeats", "seconds", "small", "data_dir")}
    if arguments.output is not None:
        check_writable_file(arguments.output)
    models = tuple(dict.fromkeys(arguments.models))
    result = program.bench_peers(program.PeerSettings(**given, models=models, trained=_trained(arguments)))
    print(program.render(result))
    if arguments.output is not None:
        atomic_write_json(arguments.output, result)


def _trained(arguments: argparse.Namespace) -> Wanted | None:
    from recu.stages.export import Wanted
    from recu.stages.predict import load

    if arguments.checkpoint is None:
        return None
    opening = options.opening(arguments)
    classifier = load(arguments.checkpoint, **opening)
    return Wanted(
        classifier=classifier, target="packed", path=classifier.subject.file.path, dataset=opening.get("dataset")
    )


def _measure_suites(arguments: argparse.Namespace) -> None:
    from recu.stages.train import check_writable_file

    program = _benchmark("rates")
    config = load_config(arguments.params_dir)
    plan = load_plan(arguments.params_dir, config, tuple(dict.fromkeys(arguments.suite)))
    cores = os.cpu_count() or 1
    threads = arguments.threads or threads_per_training(cores, plan.experiments)
    slots = max(1, cores // threads) if arguments.jobs is None else arguments.jobs
    options.check_count("jobs", slots, MOST_PROCESSES)
    output = arguments.output or measured_file(arguments.results_dir)
    check_writable_file(output)
    settings = program.RateSettings(slots=slots, threads=threads, gpus=arguments.gpus, seconds=arguments.seconds)
    rates = program.measure_suites(plan, settings)
    atomic_write_json(output, rates.model_dump(mode="json"))
    print(f"measured {len(rates.rates)} networks on {rates.device}, {rates.slots} at once; written to {output}")


def _benchmark(name: str) -> ModuleType:
    """A program of the checkout, which is no part of the package. Raises ConfigError where there is no checkout."""
    if not (paths.PROJECT_DIR / "benchmarks").is_dir():
        raise ConfigError(
            "`recu bench` needs a checkout of the project, installed with `pip install -e .`: the plain implementation"
            " that it compares with is in no wheel"
        )
    if str(paths.PROJECT_DIR) not in sys.path:
        sys.path.insert(0, str(paths.PROJECT_DIR))
    return importlib.import_module(f"benchmarks.{name}")
