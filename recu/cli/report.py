"""`recu report`: collect results, render tables, show them."""

from __future__ import annotations

import argparse
import shlex
import shutil
import textwrap
from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from recu.base.errors import ResultError, unknown_name
from recu.base.files import check_ordinary, read_object
from recu.base.text import visible
from recu.cli import options
from recu.experiment import params, paths
from recu.experiment.paths import user_path
from recu.experiment.released import load_planned
from recu.experiment.resolving import Planned
from recu.experiment.schema import WorkflowConfig
from recu.experiment.suite_facts import SuiteFacts

if TYPE_CHECKING:
    from recu.verify.grounds import Places


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One more level of subcommands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    collect = actions.add_parser("collect", help="gather the results of a suite's experiments into rows")
    _add_suite(collect)
    options.add_dirs(collect, "results_dir", "runs_dir")
    collect.add_argument("--packed", action="store_true", help="list their packed files (recu export) too")
    collect.add_argument("--speed", action="store_true", help="list those and their speed (recu speed) too")
    collect.add_argument("--output", type=user_path, required=True, metavar="FILE.json")

    render = actions.add_parser("render", help="render the table and figures of a suite from its rows")
    _add_suite(render)
    _add_rows(render)
    options.add_params_option(render)
    _add_output(render)

    pages = actions.add_parser("pages", help="write a page for each run of a suite")
    _add_suite(pages)
    _add_rows(pages)
    _add_project(pages)

    index = actions.add_parser("index", help="write the pages over all suites: index.html, claims.html")
    _add_project(index)

    show = actions.add_parser("show", help="print rendered tables, and where everything is")
    show.add_argument("suites", nargs="*", metavar="SUITE", help="default: every suite that has a table")
    show.add_argument("--full", action="store_true", help="every column, however wide the terminal is")
    _add_project(show, "results_dir")
    _add_output(show)


def run(arguments: argparse.Namespace) -> None:
    """Do what the action says."""
    actions = {"collect": _collect, "render": _render, "pages": _pages, "index": _index, "show": _show}
    actions[arguments.action](arguments)


def _add_suite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--suite",
        required=True,
        metavar="JSON|FILE",
        help="what the workflow knows of the suite, or a file that holds it",
    )


def _add_rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rows", type=user_path, required=True, metavar="FILE.json", help="made by `recu report collect`"
    )


def _add_project(parser: argparse.ArgumentParser, *folders: str) -> None:
    options.add_project_options(parser, *folders)
    parser.add_argument(
        "--teacher_weights", type=user_path, metavar="FILE", help="as in params/config.yaml (default: what it says)"
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

    asked = {name: getattr(arguments, name) for name in ("packed", "speed")}
    collect(_suite(arguments).experiments, arguments.results_dir, arguments.runs_dir, arguments.output, **asked)


def _render(arguments: argparse.Namespace) -> None:
    from recu.stages.report import render

    published = params.load_published(arguments.params_dir)
    for file in render(arguments.rows, _suite(arguments), published, arguments.output_dir):
        print(file)


def _config(arguments: argparse.Namespace) -> WorkflowConfig:
    config = options.project_config(arguments)
    if arguments.teacher_weights is None:
        return config
    return config.model_copy(update={"teacher_weights": str(arguments.teacher_weights)})


def _project(arguments: argparse.Namespace) -> tuple[Places, WorkflowConfig]:
    config = _config(arguments)
    return options.places_of(arguments, config), config


def _pages(arguments: argparse.Namespace) -> None:
    from recu.stages.pages import write_run_pages

    (places, _), suite = _project(arguments), _suite(arguments)
    written = write_run_pages(places, arguments.rows, suite)
    print(f"{len(written)} pages in {paths.runs_pages(places.reports_dir, suite.name)}")


def _index(arguments: argparse.Namespace) -> None:
    from recu.stages.pages import write_index

    for file in write_index(*_project(arguments)):
        print(file)


def _show(arguments: argparse.Namespace) -> None:
    from recu.stages.report import shown_in_terminal, staleness, where_to_look

    folder = arguments.output_dir
    suites = params.all_suites(arguments.params_dir)
    known, others = _tables_in(folder, suites)
    if not known:
        raise ResultError(f"no tables in {folder}: run `snakemake --cores all`")
    for name in arguments.suites:
        if name not in known:
            advice = f": {_remake_table(name)}" if name in suites else ", and no suite of that name"
            raise ResultError(f"{unknown_name('table', name, known)} (in {folder}){advice}")
    width = None if arguments.full else shutil.get_terminal_size().columns
    for name in arguments.suites or known:
        print(shown_in_terminal(folder, name, width))
        stale = staleness(folder, name, partial(_planned, arguments, name))
        if stale is not None:
            print("\n".join(textwrap.wrap(visible(stale), width or len(stale))))
        print()
    if others and not arguments.suites:
        print(visible(f"Left out, since no suite has them as its table: {', '.join(map(str, others))}"))
    print(where_to_look(folder))


def _tables_in(folder: Path, suites: Collection[str]) -> tuple[list[str], list[Path]]:
    """Names of the tables there, and other files, as somebody else wrote them.

    A damaged one of a suite in params/ is a table all the same, and so is that of a suite which is no more.
    """
    known: list[str] = []
    others: list[Path] = []
    for file in sorted(folder.glob("*.json")):
        if file.stem in suites or read_object(file).get("suite") == file.stem:
            known.append(file.stem)
        else:
            others.append(file)
    return known, others


def _planned(arguments: argparse.Namespace, suite: str) -> Iterable[Planned]:
    config = _config(arguments)
    results_dir, weights = Path(config.results_dir), config.teacher_weights
    return load_planned(arguments.params_dir, (suite,), results_dir, weights).values()


def _remake_table(suite: str) -> str:
    return f"run `{shlex.join(['snakemake', '--cores', 'all', '--config', f'suites={suite}'])}`"
