"""Result rows summarised over seeds and judged against the published numbers by one rule."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recu.base.errors import ResultError, unknown_name
from recu.experiment.schema import Published, PublishedResult
from recu.experiment.suite_facts import DatasetFacts, MethodFacts
from recu.results.published import Match, Setting, match
from recu.results.records import Claim, Row

FLOOR = 0.3
CEILING = 1.0
TOLERANCE = 0.05
BINARY = 2
"""The stage whose networks are compared."""

RULE = (
    "Verdict: the mean top-1 of the best epoch over n seeds is compared with the published top-1. "
    f'"reproduced": they differ by at most the larger of {FLOOR} points and 2 s √(1 + 1/n), but never more than '
    f'{CEILING:g} point; "below" or "above": they differ by more. s is the standard deviation over our seeds, and '
    "s √(1 + 1/n) the standard error of the difference between the mean of n runs and one further run, which the "
    f"published number is taken for; {FLOOR} points are one standard error of an accuracy of 90 % measured on 10,000 "
    'images. One seed says nothing about its spread, so its verdict only says "single run", and whether it is within '
    f'{FLOOR} points. "not comparable": dataset, how its images are seen, network, method, epochs or training batch '
    "size differ from the published run, or nothing is published."
)
"""Printed under every table of a suite that trains."""

RELEASED_RULE = (
    f'Verdict: measured top-1 against the claimed. "confirmed": they differ by at most {TOLERANCE} points, half of the '
    'last digit of a claim with one decimal; "differs": by more. "not comparable": the claim was made on another '
    "dataset than the one measured on."
)
"""Printed under every table of released files."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One accuracy over the seeds, in percent."""

    mean: float
    sd: float | None
    """Sample standard deviation (n - 1); None for a single run."""

    def with_interval(self, n: int) -> str:
        """The mean of n seeds with half of its 95 % interval, where there are several."""
        half = half_width(self.sd, n)
        return f"{self.mean:.2f}" + ("" if half is None else f" ± {half:.2f}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One line of a table: one network and method on one dataset, over its seeds; or one released file."""

    result: Row
    """Of its first seed: network, data and recipe are those of all."""
    dataset_title: str
    reconstruction: bool
    published: PublishedResult | None
    top1_best: Spread
    top5_best: Spread
    top1_last: Spread | None
    """None of a released file."""
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    """Ids of the experiments, by seed."""
    train_seconds: float
    """Mean over the seeds; 0 of a released file."""
    difference: float | None
    """Ours minus published (of a released file: claimed), in points; None where that would compare unlike things."""
    verdict: str
    reason: str | None
    """Why it is not comparable."""
    leads: bool | None = None
    """Whether its mean is clearly the best of its network's methods, see `leaders_of`; None where the suite compares no
    binarisers."""

    @property
    def against_published(self) -> bool:
        """Whether `difference` is to `published`: a released file's is to its claim, which may be another number."""
        claim, published = self.result.claim, self.published
        return self.difference is not None and (claim is None or (published and published.top1) == claim.top1)


def summarise(
    rows: Iterable[Row],
    published: Published,
    methods: Mapping[str, MethodFacts],
    datasets: Mapping[str, DatasetFacts],
) -> list[TableRow]:
    """One line for each dataset, network and method, or released file, in the order in which they appear in `rows`.

    Raises:
        ResultError: the seeds of a line were not trained with the same settings on the same data, or one is there
        twice. ConfigError: a row names a method or dataset that is not given.
    """
    groups: dict[tuple[str | None, ...], list[Row]] = {}
    for row in rows:
        file = row.claim.name if row.claim else None
        groups.setdefault((row.dataset, row.network, row.method, file), []).append(row)
    table = [_table_row(group, published, methods, datasets) for group in groups.values()]
    compared = compared_binarisers(table)
    leads = dict.fromkeys((line.runs for line in compared), False) | {line.runs: True for line in leaders_of(compared)}
    return [replace(line, leads=leads.get(line.runs)) for line in table]


def compared_binarisers(table: Sequence[TableRow]) -> list[TableRow]:
    """The lines of binary networks, where one has several binarisers; those of earlier stages only start them."""
    binary = [line for line in table if line.result.stage == BINARY and line.result.claim is None]
    found: dict[tuple[str, str], set[str]] = {}
    for line in binary:
        found.setdefault((line.result.dataset, line.result.network), set()).add(line.result.binariser)
    return binary if any(len(binarisers) > 1 for binarisers in found.values()) else []


def leaders_of(compared: Sequence[TableRow]) -> list[TableRow]:
    """Of each network the line whose 95 % interval lies above those of all its others; none where intervals meet, or a
    line is of a single run or of seeds with one accuracy.
    """
    networks: dict[tuple[str, str], list[TableRow]] = {}
    for line in compared:
        networks.setdefault((line.result.dataset, line.result.network), []).append(line)
    return [best for lines in networks.values() if (best := _leader(lines)) is not None]


def _leader(lines: Sequence[TableRow]) -> TableRow | None:
    best = max(lines, key=lambda line: line.top1_best.mean)
    own, others = _interval(best), [_interval(line) for line in lines if line is not best]
    if own is None or not others:
        return None
    return best if all(other is not None and other[1] < own[0] for other in others) else None


def _interval(line: TableRow) -> tuple[float, float] | None:
    half = half_width(line.top1_best.sd, len(line.seeds))
    # Two or three accuracies counted on a few hundred images may well be equal: no spread was seen, which is not none.
    return (line.top1_best.mean - half, line.top1_best.mean + half) if half else None


def rounded(value: float) -> float:
    """A number of a table without the noise of binary fractions, which lies beyond its ninth digit.

    Whatever is shown is rounded so where it is made: of a value halfway between two hundredths, that noise decides
    which of the two a page shows, so one result could have two numbers.
    """
    return round(value, 9)


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of at least one value."""
    sd = rounded(statistics.stdev(values)) if len(values) > 1 else None
    return Spread(rounded(statistics.fmean(values)), sd)


def half_width(sd: float | None, n: int) -> float | None:
    """Half of the 95 % interval of a mean of n values by Student's t, from their sample deviation; None for one."""
    from scipy.special import stdtrit

    return None if sd is None else rounded(float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n))


def tolerance(sd: float | None, n: int) -> float:
    """The largest difference, in points, that still counts as reproduced; see `RULE`."""
    if sd is None:
        return FLOOR
    return min(CEILING, max(FLOOR, 2 * sd * math.sqrt(1 + 1 / n)))


def judge(ours: Spread, n: int, published: float) -> str:
    """The verdict on a comparable result; see `RULE`."""
    # Rounded, so that a difference of exactly the tolerance does not depend on binary fractions.
    difference = round(ours.mean - published, 6)
    if abs(difference) <= round(tolerance(ours.sd, n), 6):
        side = f"within {FLOOR}" if n == 1 else "reproduced"
    else:
        side = "below" if difference < 0 else "above"
    return f"single run, {side}" if n == 1 else side


def judge_claim(measured: float, claimed: float) -> str:
    """The verdict on a comparable claim, both in percent; see `RELEASED_RULE`."""
    # Rounded, so that a difference of exactly the tolerance does not depend on binary fractions.
    return "confirmed" if round(abs(measured - claimed), 6) <= TOLERANCE else "differs"


def _table_row(
    group: list[Row],
    published: Published,
    methods: Mapping[str, MethodFacts],
    datasets: Mapping[str, DatasetFacts],
) -> TableRow:
    row = group[0]
    _check_seeds(group)
    # That of a released file is named as its publication names it.
    method = None if row.claim else _look_up("method", row.method, methods)
    dataset = _look_up("dataset", row.dataset, datasets)
    found = match(
        Setting(
            dataset=dataset.published_as,
            model=row.model,
            family=row.family,
            stage=row.stage,
            binariser=row.binariser,
            method=method.published_as if method else row.method,
            row=row.row,
            batch_size=row.batch_size,
            epochs=row.epochs,
            data=row.seen_data,
        ),
        published,
    )
    top1_best = spread([each.top1_best for each in group])
    return TableRow(
        result=row,
        dataset_title=dataset.title,
        reconstruction=bool(method and method.reconstruction),
        published=found.result,
        top1_best=top1_best,
        top5_best=spread([each.top5_best for each in group]),
        top1_last=spread(last) if (last := _known(group, "top1_last")) else None,
        seeds=tuple(sorted(_known(group, "seed"))),
        runs=tuple(each.experiment_id for each in sorted(group, key=lambda each: each.seed or 0)),
        train_seconds=statistics.fmean(each.train_seconds for each in group),
        **(_against_claim(row.claim, row, dataset, found) if row.claim else _comparison(found, top1_best, len(group))),
    )


def _known(group: list[Row], name: str) -> list[Any]:
    return [value for row in group if (value := getattr(row, name)) is not None]


def _comparison(found: Match, ours: Spread, n: int) -> dict[str, Any]:
    if found.result is None or found.differences:
        return {"difference": None, "verdict": "not comparable", "reason": "; ".join(found.differences)}
    if found.result.top1 is None:
        reason = "the published number is not quoted anywhere"
        return {"difference": None, "verdict": "not comparable", "reason": reason}
    verdict = judge(ours, n, found.result.top1)
    return {"difference": rounded(ours.mean - found.result.top1), "verdict": verdict, "reason": None}


def _against_claim(claim: Claim, row: Row, dataset: DatasetFacts, found: Match) -> dict[str, Any]:
    reason = None
    if claim.dataset is not None and claim.dataset != row.dataset:
        reason = f"claimed on {claim.dataset}, measured on {row.dataset}"
    elif claim.dataset is None and not dataset.published_as:
        reason = f"nothing is published on {dataset.title}"
    elif found.result:
        # A claim about a published dataset is made of images seen as the published runs saw them.
        reason = "; ".join(found.differences) or None
    if reason:
        return {"difference": None, "verdict": "not comparable", "reason": reason}
    verdict = judge_claim(row.top1_best, claim.top1)
    return {"difference": rounded(row.top1_best - claim.top1), "verdict": verdict, "reason": None}


def _check_seeds(group: list[Row]) -> None:
    first = group[0]
    for row in group[1:]:
        for key in ("batch_size", "batch_size_test", "epochs", "data_fingerprint", "seen_data", "shortcut"):
            one, other = getattr(row, key), getattr(first, key)
            if one != other:
                raise ResultError(
                    f"{row.experiment_id} and {first.experiment_id} cannot be averaged: {key} is {one} in one and"
                    f" {other} in the other; run the outdated one again"
                )
    seeds = [row.seed for row in group]
    if len(set(seeds)) != len(seeds):
        raise ResultError(f"{first.experiment_id}: a seed appears twice among the results")


def _look_up(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        raise unknown_name(kind, name, table)
    return table[name]
