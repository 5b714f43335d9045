"""What the paper claims, weighed against what was run: means over seeds, with 95 % intervals by Student's t; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from recu.experiment.schema import Claim, Comparison, PublishedResult
from recu.report.summary import TableRow, half_width, rounded, spread
from recu.results.records import Row

NOT_RUN = "not run"

RULE = (
    "A published number is judged as in its table: the mean top-1 of the best epoch over our seeds against the "
    "published one. A claim that one thing is better than another is judged seed by seed: of the differences between "
    "trainings with the same data and seed, the mean and its 95 % interval by Student's t. "
    '"supported": the whole interval is above 0; "contradicted": below 0; "undecided": it holds 0. A single run has no '
    "interval. Differences that are equal in every seed have one without width, which does not show that those of "
    "other seeds would be equal too. Neither decides anything, and both say so."
)
"""Above the claims."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """One comparison."""

    what: str
    runs: tuple[str, ...]
    """Ids of the experiments."""
    difference: float | None
    """In points; None where it was not run."""
    half: float | None
    """Half of the 95 % interval; None where there are not two seeds."""
    verdict: str

    @property
    def interval(self) -> str:
        """The difference with its interval, in words."""
        if self.difference is None:
            return "-"
        if self.half is None:
            return f"{self.difference:+.2f}, single run"
        if self.half == 0:
            return f"{self.difference:+.2f} in every seed"
        low, high = rounded(self.difference - self.half), rounded(self.difference + self.half)
        return f"{self.difference:+.2f} [{low:+.2f}, {high:+.2f}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Weighed:
    """A claim and what speaks for or against it."""

    claim: Claim
    evidence: tuple[Evidence, ...]

    @property
    def verdict(self) -> str:
        """How many comparisons ended how."""
        verdicts = [each.verdict for each in self.evidence]
        if not verdicts:
            return "cannot be decided here yet"
        return ", ".join(f"{verdicts.count(each)} {each}" for each in dict.fromkeys(verdicts))


def weigh(
    claims: Iterable[Claim], published: Sequence[PublishedResult], tables: Sequence[TableRow], rows: Sequence[Row]
) -> list[Weighed]:
    """Every claim with its evidence.

    Args:
        claims: of params/claims.yaml.
        published: of params/published.yaml.
        tables: lines of all suites that have results.
        rows: their results.
    """
    return [
        Weighed(
            claim=claim,
            evidence=(
                *(_numbers(published, tables) if claim.published_numbers else ()),
                *(each for comparison in claim.comparisons for each in _compared(comparison, rows)),
            ),
        )
        for claim in claims
    ]


def _numbers(published: Sequence[PublishedResult], tables: Sequence[TableRow]) -> Iterable[Evidence]:
    for result in published:
        what = f"{result.dataset}, {result.model}, {result.method}: {result.top1:g} %"
        lines = [line for line in tables if line.published == result and line.against_published]
        if not lines:
            yield _nothing(what)
        for line in lines:
            half = half_width(line.top1_best.sd, len(line.seeds))
            yield Evidence(what=what, runs=line.runs, difference=line.difference, half=half, verdict=line.verdict)


def _compared(comparison: Comparison, rows: Sequence[Row]) -> list[Evidence]:
    """One piece of evidence for each row of the other side, against the same network where both sides have it."""
    better, other = (_matching(comparison.suite, pattern, rows) for pattern in (comparison.better, comparison.than))
    what = f"{comparison.what} (suite {comparison.suite})"
    if not better or not other:
        return [_nothing(what)]
    shared = {_network(row) for row in better} & {_network(row) for row in other}
    found = []
    for labelled in dict.fromkeys((row.dataset, row.network) for row in other):
        there = [row for row in other if (row.dataset, row.network) == labelled]
        here = [row for row in better if not shared or _network(row) == _network(there[0])]
        if here:
            found.append(_paired(f"{what}: {_side(here)} against {_side(there)} on {there[0].dataset}", here, there))
    return found


def _matching(suite: str, pattern: str, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.claim is None and fnmatchcase(row.experiment_id, f"{suite}/{pattern}")]


def _network(row: Row) -> str:
    """Without the name of the suite's row."""
    return f"{row.network.partition('+')[0]} on {row.dataset}"


def _side(rows: Sequence[Row]) -> str:
    return " and ".join(dict.fromkeys(f"{row.network} ({row.method})" for row in rows))


def _paired(what: str, better: Sequence[Row], other: Sequence[Row]) -> Evidence:
    """The differences between trainings of equal seed on equal data."""
    # Seeds of several methods, each with some of them, would be one mean of none of them.
    if any(len({(row.network, row.method) for row in side}) > 1 for side in (better, other)):
        return _nothing(f"{what}: one side is several networks or methods", "undecided")
    one, two = ({(row.dataset, row.data_fingerprint, row.seed): row for row in side} for side in (better, other))
    if len(one) < len(better) or len(two) < len(other):
        return _nothing(f"{what}: several trainings a seed", "undecided")
    shared = [key for key in one if key in two]
    if not shared:
        return _nothing(f"{what}: no seed in common")
    differences = spread([one[key].top1_best - two[key].top1_best for key in shared])
    half = half_width(differences.sd, len(shared))
    runs = tuple(side[key].experiment_id for key in shared for side in (one, two))
    verdict = _verdict(differences.mean, half)
    return Evidence(what=what, runs=runs, difference=differences.mean, half=half, verdict=verdict)


def _nothing(what: str, verdict: str = NOT_RUN) -> Evidence:
    return Evidence(what=what, runs=(), difference=None, half=None, verdict=verdict)


def _verdict(difference: float, half: float | None) -> str:
    if half is None:
        return "single run, undecided"
    if half == 0:
        return "equal in every seed, undecided"
    if difference - half > 0:
        return "supported"
    return "contradicted" if difference + half < 0 else "undecided"
