"""`recu speed`: measure how fast a packed file is on this machine, beside the float network of its shape."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from recu.cli import options
from recu.experiment.paths import user_path
from recu.experiment.values import MOST_PROCESSES
from recu.results.provenance import code_at_start

if TYPE_CHECKING:
    from recu.results.records import SpeedRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "source",
        metavar="FILE",
        help="checkpoint that the packed file was made of, folder of a training, or an experiment's id",
    )
    parser.add_argument(
        "--packed",
        required=True,
        type=user_path,
        metavar="NET.recu",
        help="what `recu export FILE --to packed --output NET.recu` wrote",
    )
    options.add_numbers(parser, threads="CPU threads (default: torch's choice)")
    parser.add_argument(
        "--record",
        type=user_path,
        metavar="FILE.json",
        help="write what tables list here (the workflow does so itself)",
    )
    group = parser.add_argument_group("what the checkpoint does not say itself")
    options.add_identity_options(group)
    options.add_changed_code_option(group)
    options.add_params_option(parser)
    options.add_dirs(parser, "data_dir", "results_dir")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    code_at_start()
    options.check_count("threads", arguments.threads, MOST_PROCESSES, least=0)
    import torch

    from recu.results.records import write_record
    from recu.stages.predict import load
    from recu.stages.speed import measure_speed

    found = measure_speed(
        arguments.source,
        load(arguments.source, **options.opening(arguments)),
        arguments.packed,
        data_dir=arguments.data_dir,
        threads=arguments.threads or torch.get_num_threads(),
    )
    print(_told(found))
    if arguments.record is not None:
        write_record(arguments.record, found)


def _told(found: SpeedRecord) -> str:
    """For people."""
    from tabulate import tabulate

    ways = {"packed": found.packed, **({} if found.float32 is None else {"float in PyTorch": found.float32})}
    rows = [(way, f"{each.ms:.4g}", f"{each.images_per_s:.4g}") for way, each in ways.items()]
    if found.speed_up_one is not None and found.speed_up_batches is not None:
        rows.append(("speed-up", f"{found.speed_up_one:.2f}", f"{found.speed_up_batches:.2f}"))
    heads = ("", "ms for one image", f"images/s in batches of {found.batch_size}")
    table = tabulate(rows, heads, disable_numparse=True, colalign=("left", "right", "right"))
    others = "an unknown number" if found.others is None else f"{found.others:.1f}"
    busy = ": the machine was busy, so that no speed-up is said" if found.busy else ""
    return (
        f"{table}\n{found.provenance.device}; medians of {found.turns} turns; other programs used {others} of"
        f" {found.processors} processors meanwhile{busy}"
    )
