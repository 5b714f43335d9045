"""`recu report`: collect results, render tables, show them."""

from __future__ import annotations

import argparse
from pathlib import Path

from recu.base.errors import ResultError
from recu.base.files import check_ordinary
from recu.base.text import visible_lines
from recu.cli import options
from recu.experiment import params
from recu.experiment.paths import user_path
from recu.experiment.remake import remake
from recu.experiment.suite_facts import SuiteFacts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One more level of subcommands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    collect = actions.add_parser("collect", help="gather the results of a suite's experiments into rows")
    _add_suite(collect)
    options.add_dirs(collect, "results_dir", "runs_dir")
    collect.add_argument("--output", type=user_path, required=True, metavar="FILE.json")

    render = actions.add_parser("render", help="render the table and curves of a suite from its rows")
    _add_suite(render)
    render.add_argument(
        "--rows", type=user_path, required=True, metavar="FILE.json", help="made by `recu report collect`"
    )
    options.add_params_option(render)
    _add_output(render)

    show = actions.add_parser("show", help="print the rendered tables and where everything is")
    _add_output(show)


def run(arguments: argparse.Namespace) -> None:
    """Do what the action says."""
    {"collect": _collect, "render": _render, "show": _show}[arguments.action](arguments)


def _add_suite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--suite",
        required=True,
        metavar="JSON|FILE",
        help="what the workflow knows of the suite, or a file that holds it",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output_dir", type=user_path, default=Path("reports"), help="default: %(default)s")


def _suite(arguments: argparse.Namespace) -> SuiteFacts:
    """As given, or what the file of that name holds: facts of a large suite do not fit into a command's words."""
    given = arguments.suite
    if not given.startswith("{"):
        file = user_path(given)
        try:
            check_ordinary(file)
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise ResultError(f"--suite: cannot read {file} ({reason}), which Snakemake writes as it starts") from error
        return params.validate_model(text, SuiteFacts, f"--suite {file}")
    return params.validate_model(given, SuiteFacts, "--suite")


def _collect(arguments: argparse.Namespace) -> None:
    from recu.stages.report import collect

    collect(_suite(arguments).experiments, arguments.results_dir, arguments.runs_dir, arguments.output)


def _render(arguments: argparse.Namespace) -> None:
    from recu.stages.report import render

    published = params.load_published(arguments.params_dir)
    for file in render(arguments.rows, _suite(arguments), published, arguments.output_dir):
        print(file)


def _show(arguments: argparse.Namespace) -> None:
    tables = sorted(file for file in arguments.output_dir.glob("*.md") if file.name != "README.md")
    if not tables:
        raise ResultError(f"no tables in {arguments.output_dir}: run `snakemake --cores all`")
    for file in tables:
        try:
            check_ordinary(file)
            print(visible_lines(file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            again = remake([file], suites=[file.stem], reports_dir=arguments.output_dir)
            raise ResultError(
                f"cannot read {file}: {reason}: make the table of suite {file.stem} again: {again}"
            ) from error
    print(f"Tables and curves: {arguments.output_dir}/   every run in MLflow: make ui")
