"""Measurements of released files beside what is published and what is claimed of them; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from recu.experiment.schema import Published, PublishedResult
from recu.experiment.suite_facts import DatasetFacts, ReleasedFacts
from recu.report.notes import COST, Notes, data_of, dates, listed, versions
from recu.report.tables import (
    NETWORK_COLUMNS,
    PUBLISHED_COLUMN,
    VERDICT_COLUMN,
    Column,
    number,
    number_column,
    of_result,
    plain_column,
)
from recu.results.published import Match, Setting, match, seen_data
from recu.results.records import ReleasedRecord

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

    result: ReleasedRecord
    dataset_title: str
    published: PublishedResult | None
    difference: float | None
    """Measured minus claimed, in points; None where that would compare unlike things."""
    verdict: str
    reason: str | None
    """Why it is not comparable."""


COLUMNS: tuple[Column, ...] = (
    Column(
        header="file",
        text=attrgetter("result.name"),
        values={
            "file": attrgetter("result.name"),
            "path": attrgetter("result.released.path"),
            **of_result("checkpoint_sha256"),
        },
    ),
    *NETWORK_COLUMNS,
    plain_column("method", "training method"),
    PUBLISHED_COLUMN,
    number_column("Top-1 claimed", "claimed_top1", attrgetter("result.claimed_top1")),
    number_column("Top-1 measured", "top1", attrgetter("result.top1")),
    Column(
        header="Top-5 measured",
        text=lambda line: number(line.result.top5),
        values={
            "top5": lambda line: round(line.result.top5, 4),
            "loss": lambda line: round(line.result.loss, 6),
        },
        numeric=True,
    ),
    number_column("measured - claimed", "difference", attrgetter("difference"), "+.2f"),
    Column(
        header="images",
        text=lambda line: f"{line.result.n:,}",
        values={"images": attrgetter("result.n")},
        numeric=True,
    ),
    VERDICT_COLUMN,
)
"""Every column, in order; accuracies are in percent, differences in points."""


def judge(measured: float, claimed: float) -> str:
    """The verdict on a comparable claim, both in percent; see `RULE`."""
    # Rounded, so that a difference of exactly the tolerance does not depend on binary fractions.
    return "confirmed" if round(abs(measured - claimed), 6) <= TOLERANCE else "differs"


def released_rows(
    results: Iterable[ReleasedRecord], published: Published, datasets: Mapping[str, DatasetFacts]
) -> list[ReleasedRow]:
    """One line for each measured file, in the order given.

    Args:
        results: of each file.
        published: what is published.
        datasets: the datasets measured on, by name.
    """
    return [_row(result, published, datasets[result.dataset]) for result in results]


def released_notes(results: Sequence[ReleasedRecord], suite: ReleasedFacts) -> Notes:
    """All notes of one table of these results."""
    origins = [result.provenance for result in results]
    files = (f"{result.released.path} (SHA-256 {result.checkpoint_sha256[:16]})" for result in results)
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
            f"Hardware: measured on {listed(each.device for each in origins)}.",
            *versions(origins),
            f"Data: {listed(data_of(result.dataset, result.data_fingerprint, result.n) for result in results)}.",
            f"Files: {listed(files)}.",
            f"Rests on: metrics.json below results/released/{suite.name}/, by the files' names.",
        ),
    )


def _row(result: ReleasedRecord, published: Published, dataset: DatasetFacts) -> ReleasedRow:
    matched = match(
        Setting(
            dataset=dataset.published_as,
            model=result.model,
            family=result.family,
            stage=result.stage,
            method=result.method,
            batch_size=None,
            epochs=None,
            data=seen_data(result.released.data, augmentation=None, test_images=result.n),
        ),
        published,
    )
    reason = _incomparable(result, dataset, matched)
    return ReleasedRow(
        result=result,
        dataset_title=dataset.title,
        published=matched.result,
        difference=None if reason else result.top1 - result.claimed_top1,
        verdict="not comparable" if reason else judge(result.top1, result.claimed_top1),
        reason=reason,
    )


def _incomparable(result: ReleasedRecord, dataset: DatasetFacts, matched: Match) -> str | None:
    claimed_on = result.released.claimed_on
    if claimed_on is not None and claimed_on != result.dataset:
        return f"claimed on {claimed_on}, measured on {result.dataset}"
    if claimed_on is None and not dataset.published_as:
        return f"nothing is published on {dataset.title}"
    # A claim about a published dataset is made of images seen as the published runs saw them.
    return "; ".join(matched.differences) or None if matched.result else None
