"""Which published number a result may be compared with, if any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recu.experiment.schema import Published, PublishedData, PublishedResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """How a result of ours was obtained, in the terms of params/published.yaml."""

    dataset: str | None
    """Published name of the dataset; None where nothing published is comparable."""
    model: str
    family: str
    stage: int
    binariser: str
    method: str | None
    """Published name of the method; None where nothing published is comparable."""
    batch_size: int | None
    epochs: int | None
    """These two are None where nobody says: a released file's training."""
    data: Mapping[str, Any]
    """How its images were seen, as `recu.experiment.schema.PublishedData`; what is left out is not compared."""
    row: str | None = None
    """Name of the suite's row, of a variation of the method."""


@dataclass(frozen=True, slots=True)
class Match:
    """The published result of the same dataset, network and method, and why it may not be compared with."""

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
    if setting.method is None:
        return Match(None, ("nothing is published for this method",))
    found, missing = _narrowed(setting, published.results)
    if missing:
        return Match(None, (missing,))
    seen = published.data.get(setting.dataset, PublishedData())
    candidates = [Match(result, _differences(setting, result, seen)) for result in found]
    fitting = [result.top1 for result, candidate in zip(found, candidates, strict=True) if not candidate.differences]
    if len(fitting) > 1:
        return Match(None, (f"{len(fitting)} published results fit: {' and '.join(map(str, fitting))}",))
    return min(candidates, key=lambda candidate: len(candidate.differences))


def _narrowed(setting: Setting, results: Sequence[PublishedResult]) -> tuple[list[PublishedResult], str | None]:
    """Results of the same dataset, network and method; or the first of these for which there is none."""
    # A variation stands for itself alone, and so does what is varied.
    remaining = [result for result in results if result.row == setting.row]
    if setting.row and not remaining:
        return [], f"nothing is published for row {setting.row}"
    for name in ("dataset", "model", "family", "stage", "binariser", "method"):
        wanted = getattr(setting, name)
        remaining = [result for result in remaining if getattr(result, name) in (wanted, None)]
        if not remaining:
            where = "" if name == "dataset" else f" on {setting.dataset}"
            where += "" if name in ("dataset", "model") else f" with {setting.model}"
            return [], f"nothing is published for {name} {wanted}{where}"
    return remaining, None


def _differences(setting: Setting, result: PublishedResult, seen: PublishedData) -> tuple[str, ...]:
    augmentation = result.augmentation or seen.augmentation
    theirs = seen.model_dump(mode="json") | {"augmentation": augmentation}
    theirs |= {"epochs": result.epochs, "batch_size": result.batch_size}
    ours = {"epochs": setting.epochs, "batch_size": setting.batch_size} | dict(setting.data)
    return tuple(
        f"{name.replace('_', ' ')} {_shown(value)} instead of {_shown(theirs[name])}"
        for name, value in ours.items()
        if None not in (value, theirs.get(name)) and value != theirs[name]
    )


def _shown(value: Any) -> str:
    return "/".join(str(each) for each in value) if isinstance(value, list) else str(value)


def seen_data(data: Mapping[str, Any], *, augmentation: str | None, test_images: int | None) -> dict[str, Any]:
    """How a result's images were seen, for `Setting.data`.

    Args:
        data: `recu.experiment.schema.Dataset.identity()` that the result names.
        augmentation: of its training; None where nothing was trained.
        test_images: how many it was measured on; None where that is not known before it is.
    """
    kept = {name: data[name] for name in ("num_classes", "image_size", "mean", "std", "test_view")}
    return kept | {"augmentation": augmentation, "test_images": test_images}
