"""`recu crate`: write a finished suite's results as an RO-Crate, for an archive or a co-author."""

from __future__ import annotations

import argparse
from pathlib import Path

from recu.cli import options
from recu.experiment.paths import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument("suite", help="whose every result is there, as `recu verify SUITE` says")
    options.add_project_options(parser)
    parser.add_argument("--output", type=user_path, metavar="FOLDER", help="default: crates/SUITE")
    parser.add_argument(
        "--licence",
        default="https://spdx.org/licenses/MIT",
        metavar="ADDRESS",
        help="under which you give the results on (default: %(default)s, that of this program)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write it and say where. Raises RecuError as `write_crate`."""
    from recu.stages.crate import write_crate

    output = arguments.output or Path("crates") / arguments.suite
    places = options.places_of(arguments, options.project_config(arguments))
    count = write_crate(places, arguments.suite, output, licence=arguments.licence)
    print(f"{count} files and ro-crate-metadata.json in {output}")
