"""`recu publish`: put a released checkpoint file among the results, as a training that somebody else ran."""

from __future__ import annotations

import argparse

from recu.cli import options
from recu.experiment.released import parse_released


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument("--released", required=True, metavar="JSON", help="a released file of the workflow")
    options.add_params_option(parser)
    options.add_dirs(parser, "results_dir")


def run(arguments: argparse.Namespace) -> None:
    """Publish it."""
    from recu.stages.publish import publish_released

    released = parse_released(arguments.released)
    dataset = options.planned_dataset(arguments, released, "--released")
    publish_released(released, dataset=dataset, results_dir=arguments.results_dir)
