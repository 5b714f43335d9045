"""`recu bench`: speed, memory and start-up against the plain reference implementation in benchmarks/."""

from __future__ import annotations

import argparse
import importlib
import sys
from types import ModuleType

from recu.base.errors import ConfigError, unknown_name
from recu.base.files import atomic_write_json
from recu.cli import options
from recu.experiment import paths
from recu.experiment.paths import user_path

_MODELS = ("resnet20_1w1a", "resnet18_1w1a", "vgg_small_1w1a")
_CLOCKS = ("cpu", "wall")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "--models",
        nargs="*",
        default=list(_MODELS),
        help="CIFAR networks (default: %(default)s); --models alone: none, only the input is measured",
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
    parser.add_argument("--output", type=user_path, metavar="FILE.json", help="write the numbers here")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, write the numbers."""
    if arguments.clock not in _CLOCKS:
        raise unknown_name("clock", arguments.clock, _CLOCKS)
    for name in ("threads", "workers"):
        options.check_processes(arguments, name)
    from recu.stages.train import check_writable_file

    benchmark = _benchmark()
    settings = benchmark.BenchSettings(
        models=tuple(dict.fromkeys(arguments.models)),
        batch_size=arguments.batch_size,
        batch_size_test=arguments.batch_size_test,
        threads=arguments.threads,
        repeats=arguments.repeats,
        seconds=arguments.seconds,
        clock=arguments.clock,
        gpus=arguments.gpus,
        images=arguments.images,
        workers=arguments.workers,
    )
    if arguments.output is not None:
        check_writable_file(arguments.output)
    result = benchmark.bench(settings)
    print(benchmark.render(result))
    if arguments.output is not None:
        atomic_write_json(arguments.output, result)


def _benchmark() -> ModuleType:
    """The program, which is no part of the package. Raises ConfigError where there is no checkout."""
    if not (paths.PROJECT_DIR / "benchmarks").is_dir():
        raise ConfigError(
            "`recu bench` needs a checkout of the project, installed with `pip install -e .`: the plain implementation"
            " that it compares with is in no wheel"
        )
    if str(paths.PROJECT_DIR) not in sys.path:
        sys.path.insert(0, str(paths.PROJECT_DIR))
    return importlib.import_module("benchmarks.benchmark")
