"""`recu compare`: show the binarisers of a suite side by side, one line a network and one column a method."""

from __future__ import annotations

import argparse

from recu.base.errors import ConfigError
from recu.base.text import markdown_text, visible
from recu.cli import options
from recu.experiment import params, paths, plan
from recu.experiment.remake import remake
from recu.experiment.resolving import load_experiments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument("suite", help="whose results the workflow has collected, e.g. methods-demo")
    options.add_project_options(parser, "results_dir")


def run(arguments: argparse.Namespace) -> None:
    """Print the table in Markdown, and whether it is stale. Raises ConfigError where it has one binariser only."""
    from pathlib import Path

    from recu.report.methods import markdown_grid, side_by_side
    from recu.report.summary import summarise
    from recu.results.records import Rows, read_record
    from recu.stages.report import outdated

    name, where = arguments.suite, arguments.params_dir
    suite = params.load_suite(where, name)
    experiments = load_experiments(where, (name,))
    facts = plan.suite_facts(name, suite, experiments, params.load_datasets(where), params.load_defaults(where).methods)
    results_dir = Path(options.project_config(arguments).results_dir)
    file = paths.rows_file(results_dir, name)
    rows = read_record(file, Rows, again=remake([file], suites=[name], results_dir=results_dir)).rows
    grid = side_by_side(summarise(rows, params.load_published(where), facts.methods, facts.datasets))
    if grid is None:
        raise ConfigError(
            f"suite {name} has networks of one binariser only: name one whose rows or methods set binariser, such as"
            f" methods-demo; the table of this one is in reports/{name}.md"
        )
    print(markdown_grid(grid, markdown_text))
    made = {row.experiment_id: row.spec_hash for row in rows}
    now = {each.id: each.spec_hash for each in experiments.values()}
    stale = outdated(name, made, now, results_dir=results_dir)
    if stale is not None:
        print(f"\n{visible(stale)}")
