"""`recu export`: write a trained network in a form that other programs read."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, get_args

from recu.base.errors import ConfigError, OutputError
from recu.cli import options
from recu.experiment.paths import user_path
from recu.stages.export import WEIGHTS, Target
from recu.stages.train import check_writable_file

if TYPE_CHECKING:
    from recu.stages.export import Exported, Wanted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "source",
        metavar="FILE",
        help="checkpoint of this program or the authors', folder of a training, or an experiment's id",
    )
    parser.add_argument("--to", required=True, choices=get_args(Target), help="which form")
    parser.add_argument(
        "--output", required=True, type=user_path, metavar="FILE", help="what to write; for safetensors a folder"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --output")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="compare with the network on a few random images, in place of all test images of prepared data",
    )
    parser.add_argument(
        "--license",
        default="unknown",
        metavar="ID",
        help="of the weights, as the Hugging Face hub names it, for the model card (default: %(default)s)",
    )
    parser.add_argument(
        "--record",
        type=user_path,
        metavar="FILE.json",
        help="of an experiment's packed file: write what tables list of it here (the workflow does so itself)",
    )
    group = parser.add_argument_group("what the file does not say itself")
    options.add_identity_options(group)
    options.add_changed_code_option(group)
    options.add_params_option(parser)
    options.add_dirs(parser, "data_dir", "results_dir")


def run(arguments: argparse.Namespace) -> None:
    """Write, compare with the network, and print both."""
    from recu.results.records import write_record
    from recu.stages.export import Wanted, export, packed_record
    from recu.stages.predict import load

    if arguments.record is not None and (arguments.quick or arguments.to != "packed"):
        raise ConfigError("--record goes with --to packed, compared on all test images: leave it, or --quick, out")
    if arguments.to != "safetensors":
        options.refuse_ignored(arguments, ("license",), f"with --to {arguments.to}, which has no model card")
    _check_output(arguments)
    opening = options.opening(arguments)
    classifier = load(arguments.source, **opening)
    wanted = Wanted(
        classifier=classifier,
        target=arguments.to,
        path=arguments.output,
        dataset=opening.get("dataset"),
        licence=arguments.license,
    )
    exported = export(wanted, data_dir=None if arguments.quick else arguments.data_dir)
    print(_told(wanted, exported))
    if arguments.record is not None:
        write_record(arguments.record, packed_record(arguments.source, wanted, exported))


def _check_output(arguments: argparse.Namespace) -> None:
    """As `options.check_output`; of a folder only what an export wrote there is replaced."""
    written = arguments.output / WEIGHTS
    if arguments.to != "safetensors" or not arguments.overwrite or not arguments.output.exists():
        options.check_output(arguments)
    elif not written.exists():
        raise OutputError(f"{arguments.output} exists and holds no {WEIGHTS} of an export: choose another --output")
    else:
        check_writable_file(written)


def _told(wanted: Wanted, exported: Exported) -> str:
    """What was written and compared, for people."""
    from tabulate import tabulate

    heads = ["form", "images", "other class", "logits that differ", "largest difference", "top-1 %"]
    rows = [
        [
            name,
            each.images,
            each.differing,
            each.unequal,
            f"{each.largest:.2g}",
            "" if each.top1 is None else f"{each.top1:.2f}",
        ]
        for name, each in exported.compared.items()
    ]
    size = f"{exported.path}: {exported.size_bytes:,} bytes"
    if wanted.target == "packed":
        share = 100 * (exported.size_bytes / exported.stated_bytes - 1)
        compared = f"{abs(share):.2f} % {'more' if share > 0 else 'less'} than"
        size += f", {compared} the {exported.stated_bytes:,} of the cost columns"
    table = tabulate(rows, heads, disable_numparse=True, colalign=["left"] + ["right"] * (len(heads) - 1))
    return "\n".join((size, f"compared on {exported.on}:", table, *exported.notes))
