"""`recu plan`: list the experiments of suites, where each stands, how long the rest will take, and what is missing."""

from __future__ import annotations

import argparse
import json
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from recu.base.errors import ConfigError
from recu.base.files import atomic_write_json, read_object
from recu.base.text import counted, visible
from recu.cli import options
from recu.experiment import params, plan
from recu.experiment.estimate import Estimate, Job, duration, estimate, jobs_of
from recu.experiment.fit import needs_gpu
from recu.experiment.paths import manifest_file, user_path
from recu.experiment.rates import DeviceRates, find_rates, setup_of
from recu.experiment.resolving import Experiment
from recu.experiment.values import MOST_PROCESSES
from recu.stages.standing import MEASURED, RUNNING, TRAINED, Standing, is_measured, standing

_WATCH_S = 5.0
_CLEAR = "\x1b[H\x1b[J"
"""Makes a terminal begin anew at its top."""
_LONGEST_MS = 2**31 - 1
_UNKNOWN = "?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "suites", nargs="*", help="names of files in params/suites/ (default: those of params/config.yaml)"
    )
    options.add_params_option(parser)
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="whose rates to take, of params/rates.yaml (default: those measured here by `recu bench --suite SUITE`)",
    )
    parser.add_argument(
        "--devices", type=int, metavar="N", help="jobs at once (default: as many as the rates were measured with)"
    )
    parser.add_argument("--output", type=user_path, metavar="FILE.json", help="write the numbers here")
    parser.add_argument("--json", action="store_true", help="print the numbers, and how far each training is, as JSON")
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=_WATCH_S,
        metavar="SECONDS",
        help=f"show how far each training is, and look again every SECONDS (default: {_WATCH_S:g})",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print one line an experiment, how long the rest will take, then what is missing and where to get it."""
    devices = arguments.devices
    if arguments.watch is not None:
        options.refuse_ignored(arguments, ("device", "devices", "output"), "with --watch")
    if devices is not None:
        options.check_count("devices", devices, MOST_PROCESSES)
    config = params.load_config(arguments.params_dir)
    found = plan.load_plan(arguments.params_dir, config, tuple(arguments.suites) or None)
    results_dir, runs_dir = Path(config.results_dir), Path(config.runs_dir)
    if arguments.watch is not None:
        _watch(arguments, lambda: _standings(found, results_dir, runs_dir))
        return
    rates = find_rates(arguments.params_dir, results_dir, arguments.device)
    if found.devices > 1 or config.kernels == "off":
        rates = None  # nobody measured that
    standings = _standings(found, results_dir, runs_dir)
    sizes = {name: _prepared_sizes(results_dir, name) for name in found.used_datasets}
    every = jobs_of(
        found.experiments.values(), found.datasets, {key: size for key, size in sizes.items() if size}, rates
    )
    states = {each.experiment: each.state for each in standings}
    trained = [each for name, each in found.experiments.items() if states[name] == TRAINED]
    left = _left(every, trained, results_dir)
    slots = devices or (rates.slots if rates else 1)
    total = estimate(left, slots)
    content = _as_json(left, total, slots, rates) | _as_plain(standings)
    if arguments.json:
        print(json.dumps(content, indent=2))
    else:
        amounts = [_amounts(left.get(f"train {each.experiment}")) for each in standings]
        print(_table(standings, ("images", "time"), amounts))
        for line in (*_totals(left, total, slots, rates, found), *found.notes()):
            print(line)
    if arguments.output is not None:
        atomic_write_json(arguments.output, content)


def _standings(found: plan.Plan, results_dir: Path, runs_dir: Path) -> list[Standing]:
    now = time.time()
    return [standing(each, results_dir, runs_dir, now) for each in found.planned.values()]


def _watch(arguments: argparse.Namespace, look: Callable[[], list[Standing]]) -> None:
    """Show where each training is, again and again, until all is done or Ctrl-C comes.

    A terminal is redrawn; into anything else goes what has changed, as a line of JSON or a table.
    """
    if not arguments.watch > 0:  # so that "nan" is refused too
        raise ConfigError(f"--watch is {arguments.watch}, expected seconds above 0")
    redrawn = sys.stdout.isatty() and not arguments.json
    shown: object = None
    with suppress(KeyboardInterrupt):
        while True:
            standings = look()
            reached = [(each.state, each.epochs_done) for each in standings]
            if redrawn or reached != shown:
                text = json.dumps(_as_plain(standings)) if arguments.json else _progress(standings)
                print(f"{_CLEAR}{text}" if redrawn else text, flush=True)
            shown = reached
            if all(each.state in (TRAINED, MEASURED) for each in standings):
                return
            _wait(arguments.watch)


def _wait(seconds: float) -> None:
    """Raises BrokenPipeError as soon as nobody reads any more what is printed: it may be long until there is more."""
    try:
        output = sys.stdout.fileno()
    except OSError:  # no pipe, but a stand-in within this process
        time.sleep(seconds)
        return
    closed = select.poll()
    closed.register(output, 0)
    if closed.poll(min(1000 * seconds, _LONGEST_MS)):
        raise BrokenPipeError


def _progress(standings: Sequence[Standing]) -> str:
    """The table of `--watch`, and what it comes to."""
    numbers = [
        (
            _number(each.top1_last, ".2f"),
            _number(each.top1_best, ".2f"),
            _number(each.images_per_s, ",.0f"),
            "" if each.finish is None else f"{datetime.fromtimestamp(each.finish):%Y-%m-%d %H:%M}",
        )
        for each in standings
    ]
    states = [each.state for each in standings]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    idle = RUNNING not in states and not {*states} <= {TRAINED, MEASURED}
    waits = "; nothing runs now: this goes on looking until all is done (Ctrl-C ends it)" if idle else ""
    return f"{_table(standings, ('top-1', 'best', 'images/s', 'finish'), numbers)}\n{counts}{waits}"


def _table(standings: Sequence[Standing], headers: tuple[str, ...], columns: Sequence[tuple[str, ...]]) -> str:
    from tabulate import tabulate

    rows = [(each.experiment, _epochs(each), each.state, *more) for each, more in zip(standings, columns, strict=True)]
    aligned = ("left", "right", "left", *("right" for _ in headers))
    return tabulate(rows, headers=("experiment", "epochs", "state", *headers), colalign=aligned, disable_numparse=True)


def _epochs(each: Standing) -> str:
    if each.epochs is None:
        return "-"
    return f"{each.epochs_done}/{each.epochs}" if each.epochs_done else str(each.epochs)


def _as_plain(standings: Sequence[Standing]) -> dict[str, Any]:
    return {"trainings": [asdict(each) for each in standings]}


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _prepared_sizes(results_dir: Path, dataset: str) -> tuple[int | None, int | None] | None:
    """Training and test images of a dataset that the workflow prepared; None where it did not."""
    splits = read_object(manifest_file(results_dir, dataset)).get("splits")
    if not isinstance(splits, dict):
        return None
    train, test = (count if isinstance(count := splits.get(name), int) else None for name in ("train", "test"))
    return train, test


def _left(jobs: Mapping[str, Job], trained: Sequence[Experiment], results_dir: Path) -> dict[str, Job]:
    """The jobs that are still to be done. One that was begun counts as a whole: how far it is, only its job knows."""
    done = {f"train {each.id}" for each in trained}
    done |= {f"evaluate {each.id}" for each in trained if is_measured(each, results_dir)}
    return {name: job.without(done) for name, job in jobs.items() if name not in done}


def _amounts(job: Job | None) -> tuple[str, str]:
    return ("", "") if job is None else (_count(job.images), duration(job.seconds))


def _totals(
    left: Mapping[str, Job], total: Estimate, slots: int, rates: DeviceRates | None, found: plan.Plan
) -> list[str]:
    if not left:
        return []
    gpus = " --gpus 0" if any(needs_gpu(each.hyperparameters) for each in found.experiments.values()) else ""
    measure = f"measure this machine with `recu bench --suite {' '.join(found.suites)}{gpus}`"
    trainings = sum(name.startswith("train ") for name in left)
    lines = [
        "",
        f"left to do: {counted(trainings, 'training')} and {counted(len(left) - trainings, 'evaluation')}, "
        f"{_count(total.images)} images",
    ]
    if found.devices > 1:
        return [*lines, f"how long they take on {found.devices} devices each is not known: rates are of one device"]
    if found.config.kernels == "off":
        return [*lines, "how long they take with kernels: off is not known: rates are of the layers' fast forms"]
    if rates is None:
        return [
            *lines,
            f"how long they take is not known: {measure}, or name a --device of params/rates.yaml",
        ]
    unknown = sorted({each.network for each in found.experiments.values() if rates.rate_of(setup_of(each)) is None})
    if unknown:
        lines.append(
            f"no rate on {visible(rates.device)} of {', '.join(unknown)}: {measure}, or add it to params/rates.yaml"
        )
    if total.wall_seconds is not None and total.device_seconds is not None:
        lines.append(
            f"about {duration(total.wall_seconds)} with {slots} at once, {total.device_seconds / 3600:.2f}"
            f" device-hours ({visible(rates.device)}; {visible(rates.source)}); without downloads and preparation"
        )
        if slots > rates.slots:
            devices = -(-slots // rates.slots)
            lines.append(f"on {devices} such devices: the rates were measured with {rates.slots} at once on one")
        chain = " -> ".join(total.critical_path)
        lines.append(f"no number of devices makes it shorter than {duration(total.critical_seconds)}: {chain}")
    if total.memory_bytes is not None:
        lines.append(f"memory: about {_gigabytes(total.memory_bytes)} at once")
    if total.disk_bytes is not None:
        lines.append(f"disk: about {_gigabytes(total.disk_bytes)} of checkpoints")
    return lines


def _as_json(left: Mapping[str, Job], total: Estimate, slots: int, rates: DeviceRates | None) -> dict[str, Any]:
    device = None if rates is None else {"device": rates.device, "source": rates.source}
    return {"jobs": [asdict(job) for job in left.values()], "total": asdict(total), "slots": slots, "rates": device}


def _count(images: float | None) -> str:
    return _UNKNOWN if images is None else f"{images:,.0f}"


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
