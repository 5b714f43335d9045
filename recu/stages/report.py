"""The report stage: collects published results into rows, and renders rows into a suite's table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recu import paths
from recu.config import Published
from recu.errors import ResultError
from recu.experiments import Origin
from recu.files import atomic_write_bytes, atomic_write_json, read_json
from recu.integrity import read_sealed_json
from recu.suite_facts import ReleasedFacts, SuiteFacts


def collect(experiments: Iterable[Origin], results_dir: Path, output: Path) -> None:
    """Write one result row for each experiment to `output` (JSON), in the order given.

    Raises:
        ResultError: as `collect_rows`. OutputError: `output` cannot be written.
    """
    atomic_write_json(output, collect_rows(experiments, results_dir))


def collect_rows(experiments: Iterable[Origin], results_dir: Path) -> list[dict[str, Any]]:
    """One result row for each experiment, in the order given.

    Args:
        experiments: which results, with the parameters they must rest on.
        results_dir: where the train and evaluate stages publish.

    Raises:
        ResultError: a result is missing or altered, belongs to other parameters, or its training and evaluation do not
            fit together.
    """
    from recu.report.rows import result_row

    rows = []
    for experiment in experiments:
        train = read_sealed_json(paths.train_folder(results_dir, experiment.id) / paths.METRICS)
        evaluate = read_sealed_json(paths.evaluate_folder(results_dir, experiment.id) / paths.METRICS)
        row = result_row(train, evaluate)
        if row["spec_hash"] != experiment.spec_hash or row["experiment_id"] != experiment.id:
            raise ResultError(
                f"the result of {experiment.id} belongs to other parameters (hash {row['spec_hash']}, expected "
                f"{experiment.spec_hash}); train it again"
            )
        rows.append(row)
    return rows


def render(rows_file: Path, suite: SuiteFacts, published: Published, output_dir: Path) -> list[Path]:
    """Write `NAME.svg`, `.csv`, `.md` and `.html` of one suite into `output_dir`; returns them.

    Raises:
        ResultError: `rows_file` is missing, empty or not the work of `collect`.
        OutputError: a file cannot be written.
    """
    return _written(rendered_files(rows_file, suite, published), output_dir)


def rendered_files(rows_file: Path, suite: SuiteFacts, published: Published) -> dict[str, bytes]:
    """A suite's files by name, as `render` writes them. Equal rows give equal bytes.

    Raises:
        ResultError: `rows_file` is missing, empty or not the work of `collect`.
    """
    from recu.report.curves import curves_svg
    from recu.report.notes import notes
    from recu.report.summary import summarise
    from recu.report.tables import csv, html, markdown

    rows = read_json(rows_file)
    if not rows:
        raise ResultError(f"{rows_file} holds no results; suite {suite.name} has no finished experiment")
    try:
        table = summarise(rows, published, suite.methods, suite.datasets)
        below, curves = notes(table, rows, suite), curves_svg(rows, table)
    except (KeyError, TypeError) as error:
        raise ResultError(f"{rows_file} is not of the expected form ({error!r}); collect the results again") from error
    return {
        f"{suite.name}.svg": curves,
        f"{suite.name}.csv": csv(table).encode(),
        f"{suite.name}.md": markdown(table, below, suite).encode(),
        f"{suite.name}.html": html(table, below, suite, curves).encode(),
    }


def render_released(suite: ReleasedFacts, published: Published, results_dir: Path, output_dir: Path) -> list[Path]:
    """Write `NAME.csv`, `.md` and `.html` of one suite of released files into `output_dir`; returns them.

    Raises:
        ResultError: as `rendered_released_files`. OutputError: a file cannot be written.
    """
    return _written(rendered_released_files(suite, published, results_dir), output_dir)


def rendered_released_files(suite: ReleasedFacts, published: Published, results_dir: Path) -> dict[str, bytes]:
    """The files of a suite of released files by name, as `render_released` writes them. Equal results give equal bytes.

    Raises:
        ResultError: a measurement is missing or altered, or belongs to another file or other parameters.
    """
    from recu.report.released import COLUMNS, released_notes, released_rows
    from recu.report.tables import csv, html, markdown

    results = [_released_result(file, results_dir) for file in suite.files]
    table = released_rows(results, published, suite.datasets)
    below = released_notes(table, results, suite)
    return {
        f"{suite.name}.csv": csv(table, columns=COLUMNS).encode(),
        f"{suite.name}.md": markdown(table, below, suite, columns=COLUMNS, with_curves=False).encode(),
        f"{suite.name}.html": html(table, below, suite, None, columns=COLUMNS).encode(),
    }


def _released_result(file: Origin, results_dir: Path) -> dict[str, Any]:
    result = read_sealed_json(paths.released_folder(results_dir, file.id) / paths.METRICS)
    found = result.get("spec_hash")
    if found != file.spec_hash:
        raise ResultError(
            f"the measurement of {file.id} belongs to another file or other parameters (hash {found}, expected "
            f"{file.spec_hash}); measure it again"
        )
    return result


def _written(contents: dict[str, bytes], folder: Path) -> list[Path]:
    for name, content in contents.items():
        atomic_write_bytes(folder / name, content)
    return [folder / name for name in contents]
