"""The pages of single runs, and those over all suites: reads what other stages published, and writes HTML."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recu.base.errors import ConfigError, RecuError, ResultError
from recu.base.files import atomic_write_text
from recu.base.text import counted
from recu.experiment import params, paths, plan
from recu.experiment.estimate import duration, estimate, jobs_of
from recu.experiment.plan import Plan
from recu.experiment.rates import find_rates
from recu.experiment.remake import afresh, remake
from recu.experiment.schema import PublishedResult, WorkflowConfig
from recu.experiment.suite_facts import SuiteFacts
from recu.report.claims import weigh
from recu.report.pages import Missing, Run, Suite, address, claims_page, index_page, run_page
from recu.results.published import Setting, match, seen_data
from recu.results.records import EvaluationRecord, ReleasedRecord, Row, TrainingRecord, read_record, read_training
from recu.stages.report import CLAIMS, INDEX, shown_suite
from recu.stages.standing import TRAINED, published_state
from recu.stages.verify import grounds_of
from recu.verify.grounds import Ground, Places

_MOST_WITH_FIGURES = 100
"""Runs of a suite whose pages have figures: each takes two seconds."""


def write_run_pages(places: Places, rows_file: Path, facts: SuiteFacts) -> list[Path]:
    """A page for each run of a suite below `reports/runs/SUITE/`, in place of those that are there; returns them.

    Raises:
        ResultError: rows or results are missing or altered. ConfigError: as `recu verify`. OutputError: as it says.
    """
    suite = shown_suite(rows_file, facts, params.load_published(places.params_dir))
    found = {ground.experiment_id: ground for ground in grounds_of(places, facts.name)}
    with_figures = len(suite.rows) <= _MOST_WITH_FIGURES
    pages = {
        places.reports_dir / address(row.experiment_id): run_page(
            _run(row, suite, places, found.get(row.experiment_id)), suite, with_figures=with_figures
        )
        for row in suite.rows
    }
    shutil.rmtree(paths.runs_pages(places.reports_dir, facts.name), ignore_errors=True)
    for file, page in pages.items():
        atomic_write_text(file, page)
    return list(pages)


def _run(row: Row, suite: Suite, places: Places, ground: Ground | None) -> Run:
    results, identifier = places.results_dir, row.experiment_id
    trained = paths.train_folder(results, identifier) / paths.METRICS
    evaluated = paths.evaluate_folder(results, identifier) / paths.METRICS
    columns = [switch for switch, asked in (("packed", row.packed), ("benchmark", row.speed)) if asked]
    again = remake([trained, evaluated], suites=[row.suite], columns=columns, results_dir=results)
    training = read_training(trained, again=again)
    evaluation = read_record(evaluated, EvaluationRecord, again=again)
    if (training.checkpoint_sha256, evaluation.checkpoint_sha256) != (row.checkpoint_sha256, row.checkpoint_sha256):
        raise ResultError(
            f"{identifier} was published again since its row was collected: collect again: "
            f"{remake(['collect'], suites=[row.suite], columns=columns, results_dir=results)}"
        )
    line = next(line for line in suite.table if identifier in line.runs)
    return Run(
        row=row,
        training=training,
        evaluation=evaluation,
        siblings=[each for each in line.runs if each != identifier],
        verified=_verified(ground, row),
        commands=_commands(training, evaluated, trained, places, columns),
    )


def _commands(
    training: TrainingRecord | ReleasedRecord, evaluated: Path, trained: Path, places: Places, columns: list[str]
) -> list[tuple[str, str]]:
    """The commands that repeat a run: elsewhere, and here."""
    suite = training.id.partition("/")[0]
    lines = [shlex.join(["snakemake", str(evaluated), "--cores", "all", "--config", f"suites={suite}"])]
    if isinstance(training, TrainingRecord):
        origin, state = training.provenance, places.runs_dir / training.id
        if origin.git_commit is not None and origin.git_dirty is False:
            lines.insert(0, f"git checkout {origin.git_commit}")
        states, targets = [state] if state.exists() else [], [trained]
    else:
        states, targets = [], [evaluated]  # nothing is trained
    folders = {"results_dir": places.results_dir, "runs_dir": places.runs_dir}
    here = afresh(states, targets, suites=[suite], columns=columns, **folders)
    return [
        ("In a fresh copy of the project", "\n".join(lines)),
        ("Here, where the result is there already", here[1:-1]),
    ]


def _verified(ground: Ground | None, row: Row) -> list[str]:
    command = f"recu verify {row.suite}"
    if ground is None:
        return [f"params/ asks for no such experiment any more; {command} says what there is."]
    parts = (("training", ground.training), ("evaluation", ground.evaluation))
    return [
        *(f"{name}: {found.status}{': ' if found.reasons else ''}{'; '.join(found.reasons)}" for name, found in parts),
        f"As found when this page was made. {command} says it of now: it compares parameters, data, checkpoint and"
        " records with their hashes.",
    ]


def write_index(places: Places, config: WorkflowConfig) -> list[Path]:
    """index.html and claims.html, over every suite of params/ that has results for the parameters of now.

    Raises:
        ConfigError: a file of params/ other than a suite's is wrong. OutputError: as it says.
    """
    published = params.load_published(places.params_dir)
    quoted = [result for result in published.results if result.top1 is not None]
    found = _Found()
    for name in params.all_suites(places.params_dir):
        _look_at(name, places, config, found)
    tables = [line for suite in found.suites for line in suite.table]
    compared = [line.published for line in tables if line.against_published]
    missing = _missing([result for result in quoted if result not in compared], found.plans, places)
    rows = [row for suite in found.suites for row in suite.rows]
    weighed = weigh(params.load_claims(places.params_dir).claims, quoted, tables, rows)
    pages = {
        INDEX: index_page(found.suites, quoted, missing, found.problems),
        CLAIMS: claims_page(weighed),
    }
    for name, page in pages.items():
        atomic_write_text(places.reports_dir / name, page)
    return [places.reports_dir / name for name in pages]


@dataclass
class _Found:
    """What the suites of params/ have."""

    suites: list[Suite] = field(default_factory=list)
    plans: dict[str, Plan] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Why results that are there are not shown."""


def _look_at(name: str, places: Places, config: WorkflowConfig, found: _Found) -> None:
    rows_file = paths.rows_file(places.results_dir, name)
    try:
        planned = plan.load_plan(places.params_dir, config, (name,))
    except ConfigError as error:
        found.problems.append(f"Suite {name} is left out: {error}")
        return
    found.plans[name] = planned
    if not rows_file.exists():
        return
    facts = planned.facts()[name]
    try:
        suite = shown_suite(rows_file, facts, planned.published)
    except RecuError as error:
        found.problems.append(f"The results of suite {name} are left out: {error}")
        return
    hashes = {origin.id: origin.spec_hash for origin in facts.experiments}
    if hashes != {row.experiment_id: row.spec_hash for row in suite.rows}:
        found.problems.append(
            f"The results of suite {name} are left out: they rest on other parameters than params/ has now; "
            f"snakemake --cores all --config suites={name} makes them anew."
        )
        return
    found.suites.append(suite)


def _missing(results: Sequence[PublishedResult], plans: Mapping[str, Plan], places: Places) -> list[Missing]:
    """Which suites would give published results, and what each takes."""
    given = {name: [result for result in results if _giving(result, planned)] for name, planned in plans.items()}
    found = [
        Missing(published=offered, suite=name, cost=_cost(plans[name], places))
        for name, offered in given.items()
        if offered
    ]
    by_none = [result for result in results if not any(result in offered for offered in given.values())]
    return [*found, Missing(published=by_none, suite=None, cost="not known here")] if by_none else found


def _giving(result: PublishedResult, planned: Plan) -> bool:
    """Whether a suite has experiments whose results may be compared with a published one."""
    for experiment in planned.experiments.values():
        dataset, recipe = planned.datasets[experiment.dataset], experiment.hyperparameters
        setting = Setting(
            dataset=dataset.published_as,
            model=experiment.model,
            family=experiment.family,
            stage=recipe.stage,
            binariser=recipe.binariser,
            row=experiment.row,
            method=planned.methods[experiment.method].published_as,
            batch_size=recipe.batch_size,
            epochs=recipe.epochs,
            data=seen_data(
                experiment.data,
                augmentation=recipe.augmentation or experiment.data["augmentation"],
                test_images=dataset.test_images,
            ),
        )
        matched = match(setting, planned.published)
        if matched.result == result and not matched.differences:
            return True
    return False


def _cost(planned: Plan, places: Places) -> str:
    """Of what of a suite is not trained yet."""
    ordered = [
        each
        for name, each in planned.experiments.items()
        if published_state(paths.train_folder(places.results_dir, name), each) != TRAINED
    ]
    rates = find_rates(places.params_dir, places.results_dir, None)
    total = estimate(jobs_of(ordered, planned.datasets, {}, rates), 1)
    epochs = counted(sum(each.hyperparameters.epochs for each in ordered), "epoch")
    time = "time not known here" if total.device_seconds is None else f"about {duration(total.device_seconds)}"
    return f"{counted(len(ordered), 'training')} of {epochs} in all, {time}"
