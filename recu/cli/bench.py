"""`recu bench`: speed, memory and start-up against the plain reference implementation in benchmarks/."""

from __future__ import annotations

import argparse
from typing import Any

from recu.base.errors import unknown_name
from recu.base.files import atomic_write_json
from recu.cli import options
from recu.experiment.paths import user_path

_MODELS = ("resnet20_1w1a", "resnet18_1w1a", "vgg_small_1w1a")
_CLOCKS = ("cpu", "wall")
_MIB = 1 << 20


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
    from recu.stages.bench import BenchSettings, bench
    from recu.stages.train import check_writable_file

    settings = BenchSettings(
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
    result = bench(settings)
    print(render(result))
    if arguments.output is not None:
        atomic_write_json(arguments.output, result)


def render(result: dict[str, Any]) -> str:
    """The numbers as a table for people."""
    from tabulate import tabulate

    per_second = "images/s" if result["machine"]["clock"] == "wall" else "images per CPU second"
    rows = []
    for name, values in result["input"].items():
        rows.append(_row(f"input, {name}", per_second, values))
        if "dali" in values:
            dali = {"reference": values["reference"], "shipped": values["dali"], "ratio": values["dali_ratio"]}
            rows.append(_row(f"input, {name} (DALI)", per_second, dali))
    for model, measured in result["models"].items():
        rows.append(_row(f"{model}, training", per_second, measured["train"]))
        rows.append(_row(f"{model}, evaluation", per_second, measured["evaluate"]))
        rows.append(_row(f"{model}, peak memory", "MiB", measured["memory"], unit=_MIB))
        rows.append(_row(f"{model}, start-up", "s", measured["start_up"]))
    machine, settings = result["machine"], result["settings"]
    fractions = ", ".join(
        f"{model} {measured['train']['fraction_of_peak']:.0%}" for model, measured in result["models"].items()
    )
    lines = [
        tabulate(rows, headers=("", "unit", "reference", "shipped", "ratio"), floatfmt="", disable_numparse=True),
        "",
        f"machine: {machine['device']}, PyTorch {machine['torch']}, {machine['clock']} clock;"
        f" fp32 matrix products {machine['gflops_fp32']:.0f} GFLOP/s",
        f"training, arithmetic of direct convolutions as a part of that: {fractions}" if fractions else None,
        f"recu --help: {result['start_up']['help']:.2f} s; batches of {settings['batch_size']} (training) and"
        f" {settings['batch_size_test']} (evaluation); {settings['workers']} workers for image files;"
        f" medians of {settings['repeats']} turns",
    ]
    return "\n".join(line for line in lines if line is not None)


def _row(name: str, unit_name: str, values: dict[str, float], *, unit: float = 1) -> tuple[str, ...]:
    numbers = (_number(values["reference"] / unit), _number(values["shipped"] / unit), f"{values['ratio']:.2f}")
    return (name, unit_name, *numbers)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
