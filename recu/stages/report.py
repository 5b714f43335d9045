"""The report stage: collects published results into rows, and renders rows into a suite's table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from recu.base.errors import ConfigError, ResultError
from recu.base.files import atomic_write_bytes, read_object
from recu.experiment import paths
from recu.experiment.plan import FIGURES
from recu.experiment.remake import afresh, remake, suite_of, switched_on
from recu.experiment.resolving import Origin, Planned
from recu.experiment.schema import Published
from recu.experiment.suite_facts import SuiteFacts
from recu.results.records import (
    EvaluationRecord,
    PackedRecord,
    ReleasedRecord,
    Row,
    Rows,
    SpeedRecord,
    read_record,
    read_training,
    write_record,
)
from recu.results.rows import DisagreementError, MixedDataError, RowError, check_rows, result_row
from recu.results.seal import read_sealed_json

if TYPE_CHECKING:
    from recu.report.pages import Suite

INDEX = "index.html"
CLAIMS = "claims.html"


def collect(
    experiments: Iterable[Origin],
    results_dir: Path,
    runs_dir: Path,
    output: Path,
    *,
    packed: bool = False,
    speed: bool = False,
) -> None:
    """Write one result row for each experiment to `output` (JSON with a self-check), in the order given.

    Args:
        experiments: which results, with the parameters they must rest on.
        results_dir: where the train and evaluate stages publish.
        runs_dir: where trainings keep their state; named by what is advised where one must be trained again.
        output: the file.
        packed: whether their packed files are listed.
        speed: whether those and their speed are.

    Raises:
        ResultError: as `collect_rows`. OutputError: `output` cannot be written.
    """
    try:
        rows = collect_rows(experiments, results_dir, packed=packed, speed=speed)
    except DisagreementError as error:
        advice = _to_agree(error, results_dir, runs_dir, _switches(packed, speed))
        raise ResultError(f"{error}; {advice}") from error
    except RowError as error:
        advice = _to_mend(error, results_dir, runs_dir, _switches(packed, speed))
        raise ResultError(f"{error}; make them again: {advice}") from error
    write_record(output, Rows(rows=rows))


def collect_rows(
    experiments: Iterable[Origin], results_dir: Path, *, packed: bool = False, speed: bool = False
) -> tuple[Row, ...]:
    """One result row for each experiment, in the order given.

    Args:
        experiments: which results, with the parameters they must rest on.
        results_dir: where the train and evaluate stages publish.
        packed: whether their packed files are listed.
        speed: whether those and their speed are.

    Raises:
        ResultError: a result is missing or altered, or of another file than the one that it should be of.
        RowError: one belongs to other parameters, or results do not fit together.
    """
    rows = tuple(_collected(experiment, results_dir, packed or speed, speed) for experiment in experiments)
    check_rows(rows)
    return rows


def _collected(experiment: Origin, results_dir: Path, packed: bool, speed: bool) -> Row:
    def again(file: Path) -> str:
        suites, columns = [suite_of(experiment.id)], _switches(packed, speed)
        return remake([file], suites=suites, columns=columns, results_dir=results_dir)

    trained = paths.train_folder(results_dir, experiment.id) / paths.METRICS
    evaluated = paths.evaluate_folder(results_dir, experiment.id) / paths.METRICS
    train = read_training(trained, again=again(trained))
    evaluate = read_record(evaluated, EvaluationRecord, again=again(evaluated))
    if train.spec_hash != experiment.spec_hash or train.id != experiment.id:
        what = "another file or other parameters" if isinstance(train, ReleasedRecord) else "other parameters"
        raise RowError(
            f"the result of {experiment.id} belongs to {what} (hash {train.spec_hash}, expected "
            f"{experiment.spec_hash})",
            train=(experiment.id,),
            evaluate=(experiment.id,),
        )
    row = result_row(train, evaluate)
    if not packed:
        return row
    file = paths.export_folder(results_dir, experiment.id) / paths.METRICS
    exported = read_record(file, PackedRecord, again=again(file))
    if (exported.experiment_id, exported.checkpoint_sha256) != (experiment.id, row.checkpoint_sha256):
        raise ResultError(f"{file} is of another checkpoint than {trained}; make it again: {again(file)}")
    row = row.model_copy(update={"packed": exported})
    if not speed:
        return row
    timed = paths.speed_folder(results_dir, experiment.id) / paths.METRICS
    measured = read_record(timed, SpeedRecord, again=again(timed))
    if (measured.experiment_id, measured.packed_sha256) != (experiment.id, exported.packed_sha256):
        raise ResultError(f"{timed} is of another packed file than {file}; make it again: {again(timed)}")
    return row.model_copy(update={"speed": measured})


def _switches(packed: bool, speed: bool) -> tuple[str, ...]:
    """What params/config.yaml calls what was asked for."""
    return ("benchmark",) if speed else ("packed",) if packed else ()


def _to_mend(error: RowError, results_dir: Path, runs_dir: Path, columns: tuple[str, ...]) -> str:
    train, evaluate = error.train, error.evaluate
    if isinstance(error, MixedDataError):
        now = _prepared_now(results_dir, error.dataset)
        outdated = {name for fingerprint, names in error.found.items() if fingerprint != now for name in names}
        train, evaluate = (tuple(name for name in names if name in outdated) for names in (train, evaluate))
    targets = [paths.train_folder(results_dir, name) / paths.METRICS for name in train]
    targets += [paths.evaluate_folder(results_dir, name) / paths.METRICS for name in evaluate]
    suites = [suite_of(name) for name in (*train, *evaluate)]
    states = _states(train, runs_dir) if error.afresh else []
    return afresh(states, targets, suites=suites, columns=columns, results_dir=results_dir, runs_dir=runs_dir)


def _states(names: Iterable[str], runs_dir: Path) -> list[Path]:
    return [runs_dir / name for name in names if (runs_dir / name).exists()]


def _prepared_now(results_dir: Path, dataset: str) -> str | None:
    """Fingerprint of the data that the workflow prepared last."""
    return read_object(paths.manifest_file(results_dir, dataset)).get("fingerprint")


def _to_agree(error: DisagreementError, results_dir: Path, runs_dir: Path, columns: tuple[str, ...]) -> str:
    (name,) = error.evaluate
    suites = [suite_of(name)]
    evaluated = paths.evaluate_folder(results_dir, name) / paths.METRICS
    trained = paths.train_folder(results_dir, name) / paths.METRICS
    again = remake([evaluated], suites=suites, columns=columns, results_dir=results_dir)
    states = _states([name], runs_dir)
    fresh = afresh(states, [trained], suites=suites, columns=columns, results_dir=results_dir, runs_dir=runs_dir)
    return f"evaluate it again: {again}; if they still differ, train it afresh with the code of now: {fresh}"


def render(rows_file: Path, suite: SuiteFacts, published: Published, output_dir: Path) -> list[Path]:
    """Write a suite's table in every form and, where it trains, its figures into `output_dir`; returns the files.

    Raises:
        ResultError: `rows_file` is missing, empty or not the work of `collect`.
        OutputError: a file cannot be written.
    """
    contents = rendered_files(rows_file, suite, published)
    for name, content in contents.items():
        atomic_write_bytes(output_dir / name, content)
    return [output_dir / name for name in contents]


def rendered_files(rows_file: Path, suite: SuiteFacts, published: Published) -> dict[str, bytes]:
    """A suite's files by their path below reports/, as `render` writes them. Equal rows give equal bytes.

    Raises:
        ResultError: `rows_file` is missing, empty or not the work of `collect`.
    """
    from recu.report import figures, tables
    from recu.report.pages import suite_page

    shown = shown_suite(rows_file, suite, published)
    below, trains = shown.notes, shown.trains
    texts = {
        "md": tables.markdown(shown.table, below, suite, with_curves=trains),
        "csv": tables.csv(shown.table),
        "json": tables.as_json(shown.table, below, suite),
        "tex": tables.latex(shown.table, below, suite),
        "html": suite_page(shown),
    }
    drawn = {
        str(paths.figures_folder(Path(), suite.name) / f"{name}.{form}"): save(shown.drawing(name))
        for name in (FIGURES if trains else ())
        for form, save in (("svg", figures.svg), ("png", figures.png))
    }
    return {f"{suite.name}.{form}": text.encode() for form, text in texts.items()} | drawn


def shown_suite(rows_file: Path, suite: SuiteFacts, published: Published) -> Suite:
    """Its rows, summarised. Raises ResultError as `rendered_files`."""
    from recu.report.pages import Suite
    from recu.report.summary import summarise

    rows = read_record(rows_file, Rows, again=remake([rows_file], suites=[suite.name])).rows
    return Suite(facts=suite, rows=rows, table=summarise(rows, published, suite.methods, suite.datasets))


def shown_in_terminal(reports_dir: Path, suite: str, width: int | None) -> str:
    """The table of a suite, as `render` wrote it, for a terminal of so many characters; None for the whole table.

    Raises:
        ResultError: there is none, or it was altered.
    """
    from recu.report.tables import terminal

    file = reports_dir / f"{suite}.json"
    content = read_sealed_json(file, again=remake([file], suites=[suite], reports_dir=reports_dir))
    return terminal(content, width)


def staleness(reports_dir: Path, suite: str, planned: Callable[[], Iterable[Planned]]) -> str | None:
    """Why the table of a suite, as `render` wrote it, is not what params/ asks for now; None where it is.

    Args:
        reports_dir: where tables lie.
        suite: whose.
        planned: what params/ has now; may raise ConfigError.
    """
    made = read_object(reports_dir / f"{suite}.json").get("experiments")
    if made is None:
        return "not known whether it is stale: an earlier version made this table"
    try:
        now = {each.id: each.spec_hash for each in planned()}
    except ConfigError as error:
        return f"not known whether it is stale: {error}"
    return outdated(suite, made, now, reports_dir=reports_dir)


def outdated(suite: str, made: Mapping[str, str], now: Mapping[str, str], **places: Path) -> str | None:
    """Of how many results of a suite params/ asks for others now; None for none.

    Args:
        suite: its name.
        made: hash of its parameters by experiment, as the results have it.
        now: likewise, as params/ has it.
        places: `results_dir` or `reports_dir`.
    """
    others = len([name for name in now.keys() | made.keys() if now.get(name) != made.get(name)])
    if not others:
        return None
    switches = [f"{switch}=true" for switch in switched_on([suite], **places)]
    again = f"`{' '.join(['snakemake --cores all --config', f'suites={suite}', *switches])}`"
    return f"stale: {others} of its results are not those that params/ asks for now; make it anew: {again}"


def where_to_look(reports_dir: Path) -> str:
    """What a person does next, below the tables."""
    page = reports_dir / INDEX
    begin = f"All results: {page} (open it in a browser)" if page.is_file() else f"All files: {reports_dir}/"
    return f"{begin}   every run in MLflow: make ui"
