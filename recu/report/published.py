"""Which published number a result may be compared with, if any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recu.config import Published, PublishedResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """How a result of ours was obtained, in the terms of params/published.yaml."""

    dataset: str | None
    """Published name of the dataset; None where nothing published is comparable."""
    model: str
    method: str
    batch_size: int | None
    epochs: int | None
    """These two are None where nobody says: a released file's training."""


@dataclass(frozen=True, slots=True)
class Match:
    """The published result of the same dataset, model and method, and why it may not be compared with."""

    result: PublishedResult | None
    differences: tuple[str, ...]
    """Empty: comparable. Else at least one reason in words."""


def match(setting: Setting, published: Published) -> Match:
    """Find the published result for `setting`.

    What the publication or `setting` leaves open is not compared; the test batch size never is, since it does not
    change results.
    """
    if setting.dataset is None:
        return Match(None, ("nothing is published on this dataset",))
    found, missing = _narrowed(setting, published.results)
    if missing:
        return Match(None, (missing,))
    candidates = [(result, _differences(setting, result)) for result in found]
    return Match(*min(candidates, key=lambda candidate: len(candidate[1])))


def _narrowed(setting: Setting, results: Sequence[PublishedResult]) -> tuple[list[PublishedResult], str | None]:
    """Results of the same dataset, model and method; or the first of these for which there is none."""
    remaining = list(results)
    for name in ("dataset", "model", "method"):
        wanted = getattr(setting, name)
        remaining = [result for result in remaining if getattr(result, name) == wanted]
        if not remaining:
            where = "" if name == "dataset" else f" on {setting.dataset}"
            where += f" with {setting.model}" if name == "method" else ""
            return [], f"nothing is published for {name} {wanted}{where}"
    return remaining, None


def _differences(setting: Setting, result: PublishedResult) -> tuple[str, ...]:
    compared = (
        ("epochs", setting.epochs, result.epochs),
        ("batch size", setting.batch_size, result.batch_size),
    )
    return tuple(
        f"{name} {ours} instead of {theirs}"
        for name, ours, theirs in compared
        if None not in (ours, theirs) and ours != theirs
    )
