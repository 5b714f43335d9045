"""Measurements of released files beside what is published and what is claimed of them; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recu.base.errors import ResultError
from recu.experiment.schema import Published
from recu.experiment.suite_facts import DatasetFacts, ReleasedFacts
from recu.report.notes import COST, Notes, data_of, dates, listed, versions
from recu.report.tables import NETWORK_COLUMNS, PUBLISHED_COLUMN, VERDICT_COLUMN, Column, number, plain_column
from recu.results.published import Match, Setting, match, seen_data
from recu.results.rows import impossible

TOLERANCE = 0.05

RULE = (
    f'Verdict: measured top-1 against the claimed. "confirmed": they differ by at most {TOLERANCE} points, half of the '
    'last digit of a claim with one decimal; "differs": by more. "not comparable": the claim was made on another '
    "dataset than the one measured on."
)
"""Printed under every table of released files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleasedRow:
    """One line: one released file."""

    name: str
    path: str
    checkpoint_sha256: str
    dataset: str
    dataset_title: str
    model: str
    family: str
    variant: str | None
    """As recognised from the file's keys."""
    shortcut: str
    cost: Mapping[str, float]
    """As in `recu.report.summary.TableRow`."""
    method: str
    published_top1: float | None
    published_top5: float | None
    published_source: str | None
    claimed_top1: float
    top1: float
    top5: float
    loss: float
    n: int
    """Images measured on."""
    difference: float | None
    """Measured minus claimed, in points; None where that would compare unlike things."""
    verdict: str
    reason: str | None
    """Why it is not comparable."""


COLUMNS: tuple[Column, ...] = (
    Column(
        header="file",
        text=lambda row: row.name,
        values={
            "file": lambda row: row.name,
            "path": lambda row: row.path,
            "checkpoint_sha256": lambda row: row.checkpoint_sha256,
        },
    ),
    *NETWORK_COLUMNS,
    plain_column("method", "training method"),
    PUBLISHED_COLUMN,
    Column(
        header="Top-1 claimed",
        text=lambda row: number(row.claimed_top1),
        values={"claimed_top1": lambda row: row.claimed_top1},
        numeric=True,
    ),
    Column(
        header="Top-1 measured",
        text=lambda row: number(row.top1),
        values={"top1": lambda row: round(row.top1, 4)},
        numeric=True,
    ),
    Column(
        header="Top-5 measured",
        text=lambda row: number(row.top5),
        values={"top5": lambda row: round(row.top5, 4), "loss": lambda row: round(row.loss, 6)},
        numeric=True,
    ),
    Column(
        header="measured - claimed",
        text=lambda row: number(row.difference, "+.2f"),
        values={"difference": lambda row: None if row.difference is None else round(row.difference, 4)},
        numeric=True,
    ),
    Column(header="images", text=lambda row: f"{row.n:,}", values={"images": lambda row: row.n}, numeric=True),
    VERDICT_COLUMN,
)
"""Every column, in order; accuracies are in percent, differences in points."""


def released_rows(
    results: Iterable[Mapping[str, Any]], published: Published, datasets: Mapping[str, DatasetFacts]
) -> list[ReleasedRow]:
    """One line for each measured file, in the order given.

    Args:
        results: metrics.json of each evaluation.
        published: what is published.
        datasets: the datasets measured on, by name.

    Raises:
        ResultError: a result is not of the expected form.
    """
    rows = []
    for result in results:
        try:
            _check_numbers(result)
            rows.append(_row(result, published, datasets[result["dataset"]]))
        except (KeyError, TypeError) as error:
            name = result.get("name", "?")
            raise ResultError(f"the result of {name} is not of the expected form ({error!r})") from error
    return rows


def _check_numbers(result: Mapping[str, Any]) -> None:
    percents = {name: result[name] for name in ("top1", "top5", "claimed_top1")}
    wrong = impossible(percents, {"loss": result["loss"]}, result["n"])
    if wrong is not None:
        raise ResultError(f"the result of {result['name']}: {wrong}")


def judge(measured: float, claimed: float) -> str:
    """The verdict on a comparable claim, both in percent; see `RULE`."""
    # Rounded, so that a difference of exactly the tolerance does not depend on binary fractions.
    return "confirmed" if round(abs(measured - claimed), 6) <= TOLERANCE else "differs"


def released_notes(table: Sequence[ReleasedRow], results: Sequence[Mapping[str, Any]], suite: ReleasedFacts) -> Notes:
    """All notes of one table; `results` as for `released_rows`."""
    origins = [result["provenance"] for result in results]
    files = (f"{row.path} (SHA-256 {row.checkpoint_sha256[:16]})" for row in table)
    return Notes(
        reading=(
            RULE,
            "Published: the number in the authors' table for this dataset, network and training method. Claimed: what "
            "whoever released the file says of it, as params/suites/ states it.",
            "Form: a network's earlier form (2021-03) is recognised from the file's keys. Each file gave every tensor "
            "of its network.",
            COST,
        ),
        origin=(
            dates(origins),
            f"Hardware: measured on {listed(each['device'] for each in origins)}.",
            *versions(origins),
            f"Data: {listed(data_of(result, result['n']) for result in results)}.",
            f"Files: {listed(files)}.",
            f"Rests on: metrics.json below results/released/{suite.name}/, by the files' names.",
        ),
    )


def _row(result: Mapping[str, Any], published: Published, dataset: DatasetFacts) -> ReleasedRow:
    matched = match(
        Setting(
            dataset=dataset.published_as,
            model=result["model"],
            family=result["family"],
            stage=result["stage"],
            method=result["method"],
            batch_size=None,
            epochs=None,
            data=seen_data(result["released"]["data"], augmentation=None, test_images=result["n"]),
        ),
        published,
    )
    found = matched.result
    reason = _incomparable(result, dataset, matched)
    measured, claimed = result["top1"], result["claimed_top1"]
    return ReleasedRow(
        name=result["name"],
        path=result["released"]["path"],
        checkpoint_sha256=result["checkpoint_sha256"],
        dataset=result["dataset"],
        dataset_title=dataset.title,
        model=result["model"],
        family=result["family"],
        variant=result["variant"],
        shortcut=result["shortcut"],
        cost=result["cost"],
        method=result["method"],
        published_top1=found.top1 if found else None,
        published_top5=found.top5 if found else None,
        published_source=found.source if found else None,
        claimed_top1=claimed,
        top1=measured,
        top5=result["top5"],
        loss=result["loss"],
        n=result["n"],
        difference=None if reason else measured - claimed,
        verdict="not comparable" if reason else judge(measured, claimed),
        reason=reason,
    )


def _incomparable(result: Mapping[str, Any], dataset: DatasetFacts, matched: Match) -> str | None:
    claimed_on = result["released"]["claimed_on"]
    if claimed_on is not None and claimed_on != result["dataset"]:
        return f"claimed on {claimed_on}, measured on {result['dataset']}"
    if claimed_on is None and not dataset.published_as:
        return f"nothing is published on {dataset.title}"
    # A claim about a published dataset is made of images seen as the published runs saw them.
    return "; ".join(matched.differences) or None if matched.result else None
