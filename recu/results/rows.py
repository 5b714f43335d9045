"""One result row per experiment, from what its training and its evaluation published."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recu.base.errors import ResultError
from recu.experiment.resolving import network_name
from recu.results.published import seen_data
from recu.results.segments import segments_of

_SHARED = {
    "spec_hash": "parameters",
    "checkpoint_sha256": "checkpoint",
    "data_fingerprint": "data",
}
_CURVE = ("epoch", "test_top1", "train_top1")
_SHOWN = 3

SAME_IMAGES, SAME_SHARE = 2, 0.002
SAME_LOSS, SAME_LOSS_FLOOR = 0.01, 1e-3
"""How far a training's numbers and those of the evaluation of its checkpoint may lie apart and be rounding: accuracies
by the larger of two images and 0.2 % of the split, losses by 1 % and 0.001. Both run in fp32 over the same images, on
whatever device, so the only difference is the order of sums: it turns the sign of an activation near zero, and with it
now and then an image whose two best classes are nearly equal. Another view of the images, other weights or other data
move far more."""


def result_row(train: dict[str, Any], evaluate: dict[str, Any]) -> dict[str, Any]:
    """Combine the metrics of one training and of the evaluation of its best checkpoint.

    Accuracies are in percent. `top1_best` is what the evaluation measured on the published checkpoint,
    `top1_best_training` what the training saw at that epoch.

    Args:
        train: metrics.json of the training. evaluate: metrics.json of the evaluation.

    Raises:
        RowError: the two do not belong together, differ beyond rounding or hold what no stage writes; the training is
            not complete, or a key is missing.
    """
    try:
        _check_together(train, evaluate)
        _check_numbers(train, evaluate)
        _check_agreement(train, evaluate)
        return _row(train, evaluate)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"holds what was not expected ({error})"
        name = _name(train)
        text = f"the results of {name} are not of the expected form: one {what}; altered, or of another version"
        raise RowError(text, train=(name,), evaluate=(name,)) from error


def check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows of one table that do not rest on one another.

    Raises:
        MixedDataError: rows of one dataset rest on different data.
        RowError: a child's parent or teacher is another checkpoint than the one that stands beside it.
    """
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        found: dict[str, list[str]] = {}
        for row in rows:
            if row["dataset"] == dataset:
                found.setdefault(row["data_fingerprint"], []).append(row["experiment_id"])
        if len(found) > 1:
            raise MixedDataError(dataset, found)
    checkpoints = {row["experiment_id"]: row["checkpoint_sha256"] for row in rows}
    weights: dict[str, str] = {}
    for row in rows:
        name = row["experiment_id"]
        for role in ("parent", "teacher"):
            origin = row[role]
            if origin and checkpoints.get(origin["id"]) not in (None, origin.get("checkpoint_sha256")):
                text = f"{name} rests on another checkpoint of its {role} {origin['id']} than the one there now"
                raise RowError(text, train=(name,), afresh=True)
        taught = row["teacher"] or {}
        if (
            "weights_sha256" in taught
            and weights.setdefault(taught["id"], taught["weights_sha256"]) != (taught["weights_sha256"])
        ):
            text = f"{name} was taught by other weights of {taught['id']} than the rows before it"
            raise RowError(text, train=[row["experiment_id"] for row in rows if row["teacher"]], afresh=True)


class RowError(ResultError):
    """Results that cannot become rows of one table."""

    def __init__(
        self, text: str, *, train: Iterable[str] = (), evaluate: Iterable[str] = (), afresh: bool = False
    ) -> None:
        super().__init__(text)
        self.train, self.evaluate = tuple(train), tuple(evaluate)
        """Experiments of which a stage must be run again."""
        self.afresh = afresh
        """Whether the states of `train` would only give the same again."""


class DisagreementError(RowError):
    """A training and the evaluation of its checkpoint that differ beyond rounding."""


class MixedDataError(RowError):
    """Results on one dataset that rest on different data."""

    def __init__(self, dataset: str, found: Mapping[str, Sequence[str]]) -> None:
        described = " and ".join(f"{fingerprint:.12} ({_few(names)})" for fingerprint, names in found.items())
        names = [name for group in found.values() for name in group]
        super().__init__(
            f"results on dataset {dataset} rest on different data, so they cannot stand in one table: fingerprint "
            f"{described}",
            train=names,
        )
        self.dataset, self.found = dataset, found


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _name(train: Any) -> str:
    try:
        return str(train["experiment"]["id"])
    except (KeyError, TypeError):
        return "?"


def _check_together(train: dict[str, Any], evaluate: dict[str, Any]) -> None:
    identifier = train["experiment"]["id"]
    if evaluate["experiment_id"] != identifier:
        raise RowError(
            f"results of two experiments: {identifier} was trained, {evaluate['experiment_id']} evaluated",
            evaluate=(identifier,),
        )
    for key, what in _SHARED.items():
        if train[key] != evaluate[key]:
            raise RowError(
                f"{identifier}: the evaluation rests on other {what} than the training ({key} {evaluate[key]} against "
                f"{train[key]})",
                train=(identifier,) if key == "data_fingerprint" else (),
                evaluate=(identifier,),
            )
    pieces = {piece["spec_hash"] for piece in train.get("segments") or ()} - {train["spec_hash"]}
    if pieces:
        text = f"{identifier}: some epochs were trained with other parameters (hash {', '.join(sorted(pieces))})"
        raise RowError(text, train=(identifier,), afresh=True)
    wanted = train["experiment"]["hyperparameters"]["epochs"]
    if train["epochs"] != wanted:
        raise RowError(f"{identifier}: trained for {train['epochs']} of {wanted} epochs", train=(identifier,))


def _check_numbers(train: dict[str, Any], evaluate: dict[str, Any]) -> None:
    """Refuse numbers that no stage writes, which a file without a self-check may hold."""
    percents = {f"{place}.{name}": train[place][name] for place in ("best", "last") for name in ("top1", "top5")}
    percents |= {f"evaluated {name}": evaluate[name] for name in ("top1", "top5")}
    percents |= {f"{name} of epoch {row['epoch']}": row[name] for row in train["history"] for name in _CURVE[1:]}
    others = {f"{place}.loss": train[place]["loss"] for place in ("best", "last")}
    others |= {"evaluated loss": evaluate["loss"], "train_seconds": train["train_seconds"]}
    wrong, name = impossible(percents, others, evaluate["n"]), _name(train)
    if wrong is not None:
        raise RowError(f"{name}: {wrong}", train=(name,), evaluate=(name,))


def impossible(percents: Mapping[str, Any], others: Mapping[str, Any], images: Any) -> str | None:
    """The first of these that no stage writes, in words; None where all are possible.

    Args:
        percents: accuracies by name.
        others: numbers that are finite and not negative, by name.
        images: how many images were evaluated.
    """
    wrong = [f"{name} is {value!r}, expected 0 to 100" for name, value in percents.items() if not _within(value, 100)]
    wrong += [f"{name} is {value!r}, expected 0 or more" for name, value in others.items() if not _within(value)]
    if not isinstance(images, int) or not _within(images) or images == 0:
        wrong.append(f"the number of images evaluated is {images!r}, expected 1 or more")
    return next(iter(wrong), None)


def _within(value: Any, most: float = math.inf) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= value <= most and math.isfinite(value)


def beyond_rounding(measured: Mapping[str, float], trained: Mapping[str, float], n: int) -> str | None:
    """In what two measurements of one network on the same images differ by more than rounding; None: in nothing.

    Args:
        measured: `top1` and `top5` (percent) and `loss` of an evaluation.
        trained: the same as its training saw them.
        n: images.
    """
    points = 100 * max(SAME_IMAGES, SAME_SHARE * n) / n
    allowed = {
        "top1": points,
        "top5": points,
        "loss": SAME_LOSS * max(trained["loss"], measured["loss"]) + SAME_LOSS_FLOOR,
    }
    for name, most in allowed.items():
        # Rounded, so that a difference of exactly two images does not depend on binary fractions.
        if round(abs(measured[name] - trained[name]), 9) > round(most, 9):
            return (
                f"the evaluation of its checkpoint gave {name} {measured[name]:.4g}, its training saw"
                f" {trained[name]:.4g} at that epoch: more than rounding (at most {most:.2g} on {n} images)"
            )
    return None


def _check_agreement(train: dict[str, Any], evaluate: dict[str, Any]) -> None:
    difference = beyond_rounding(evaluate, train["best"], evaluate["n"])
    if difference is not None:
        raise DisagreementError(f"{_name(train)}: {difference}", evaluate=(_name(train),))


def _row(train: dict[str, Any], evaluate: dict[str, Any]) -> dict[str, Any]:
    experiment, best, last = train["experiment"], train["best"], train["last"]
    hyperparameters = experiment["hyperparameters"]
    return {
        "experiment_id": experiment["id"],
        "suite": experiment["suite"],
        "dataset": experiment["dataset"],
        "family": experiment["family"],
        "variant": experiment["variant"],
        "model": experiment["model"],
        "network": network_name(experiment["family"], experiment["variant"], experiment["model"]),
        "stage": hyperparameters["stage"],
        "method": experiment["method"],
        "seed": experiment["seed"],
        "shortcut": train["shortcut"],
        "cost": train["cost"],
        "batch_size": hyperparameters["batch_size"],
        "batch_size_test": hyperparameters["batch_size_test"],
        "epochs": hyperparameters["epochs"],
        "seen_data": seen_data(
            experiment["data"],
            augmentation=hyperparameters["augmentation"] or experiment["data"]["augmentation"],
            test_images=evaluate["n"],
        ),
        "spec_hash": train["spec_hash"],
        "data_fingerprint": train["data_fingerprint"],
        "checkpoint_sha256": train["checkpoint_sha256"],
        "parent": train.get("parent"),
        "teacher": train.get("teacher"),
        "top1_best": evaluate["top1"],
        "top5_best": evaluate["top5"],
        "top1_best_training": best["top1"],
        "best_epoch": best["epoch"],
        "top1_last": last["top1"],
        "top5_last": last["top5"],
        "test_images": evaluate["n"],
        "train_seconds": train["train_seconds"],
        "segments": segments_of(train),
        "evaluate_provenance": evaluate["provenance"],
        "curve": {name: [row[name] for row in train["history"]] for name in _CURVE},
    }
