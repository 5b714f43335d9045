"""One result row per experiment, from what its training and its evaluation published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recu.base.errors import ResultError
from recu.experiment.resolving import Experiment, labelled, network_name
from recu.results.published import seen_data
from recu.results.records import (
    Accuracy,
    Claim,
    Curve,
    EvaluationRecord,
    ReleasedRecord,
    Row,
    TrainingRecord,
    WeightCurves,
)

_SHARED = {
    "spec_hash": "parameters",
    "checkpoint_sha256": "checkpoint",
    "data_fingerprint": "data",
}
_UNKNOWN_OF_A_RELEASE = (
    *("seed", "batch_size", "epochs", "parent", "teacher", "top1_best_training", "best_epoch"),
    *("top1_last", "top5_last", "curve"),
)
_SHOWN = 3

SAME_IMAGES, SAME_SHARE = 2, 0.002
SAME_LOSS, SAME_LOSS_FLOOR = 0.01, 1e-3
"""How far a training's numbers and those of the evaluation of its checkpoint may lie apart and be rounding: accuracies
by the larger of two images and 0.2 % of the split, losses by 1 % and 0.001. Both run in fp32 over the same images, on
whatever device, so the only difference is the order of sums: it turns the sign of an activation near zero, and with it
now and then an image whose two best classes are nearly equal. Another view of the images, other weights or other data
move far more."""


def result_row(train: TrainingRecord | ReleasedRecord, evaluate: EvaluationRecord) -> Row:
    """Combine a training, or a released file, and the evaluation of its best checkpoint.

    Raises:
        RowError: the two do not belong together or differ beyond rounding; the training is not complete.
        ResultError: the training's parameters are not of the expected form.
    """
    planned = train.resolved
    _check_same(train, evaluate)
    augmentation = None
    if isinstance(train, TrainingRecord) and isinstance(planned, Experiment):
        _check_complete(train, planned)
        difference = beyond_rounding(evaluate, train.best, evaluate.n)
        if difference is not None:
            raise DisagreementError(f"{train.id}: {difference}", evaluate=(train.id,))
        augmentation = planned.hyperparameters.augmentation or planned.data["augmentation"]
    return Row(
        experiment_id=train.id,
        **{name: getattr(planned, name) for name in ("suite", "dataset", "method")},
        **{name: getattr(evaluate, name) for name in ("family", "variant", "model", "stage", "binariser")},
        network=labelled(
            network_name(evaluate.family, evaluate.variant, evaluate.model), getattr(planned, "row", None)
        ),
        **{name: getattr(train, name) for name in ("spec_hash", "checkpoint_sha256", "shortcut", "cost")},
        data_fingerprint=evaluate.data_fingerprint,
        batch_size_test=evaluate.settings.batch_size_test,
        seen_data=seen_data(planned.data, augmentation=augmentation, test_images=evaluate.n),
        top1_best=evaluate.top1,
        top5_best=evaluate.top5,
        test_images=evaluate.n,
        **{name: getattr(evaluate, name) for name in ("confusion", "classes")},
        evaluate_provenance=evaluate.provenance,
        **(_of_release(train, evaluate) if isinstance(train, ReleasedRecord) else _of_training(train)),
    )


def _of_training(train: TrainingRecord) -> dict[str, Any]:
    recipe = train.resolved.hyperparameters
    return {
        "seed": train.resolved.seed,
        "row": train.resolved.row,
        "weights": WeightCurves.of(train.diagnostics),
        "batch_size": recipe.batch_size,
        "replicas": recipe.replicas,
        "epochs": recipe.epochs,
        "parent": train.parent,
        "teacher": train.teacher,
        "top1_best_training": train.best.top1,
        "best_epoch": train.best.epoch,
        "top1_last": train.last.top1,
        "top5_last": train.last.top5,
        "train_seconds": train.train_seconds,
        "segments": train.pieces,
        "curve": Curve(**{name: tuple(getattr(each, name) for each in train.history) for name in Curve.model_fields}),
    }


def _of_release(train: ReleasedRecord, evaluate: EvaluationRecord) -> dict[str, Any]:
    file = train.released
    claim = Claim(name=file.name, path=file.path, top1=file.claimed_top1, dataset=file.claimed_on)
    known = {"train_seconds": 0, "segments": (), "loss_best": evaluate.loss, "claim": claim}
    return dict.fromkeys(_UNKNOWN_OF_A_RELEASE) | known


def check_rows(rows: Sequence[Row]) -> None:
    """Refuse rows of one table that do not rest on one another.

    Raises:
        MixedDataError: rows of one dataset rest on different data.
        RowError: a child's parent or teacher is another checkpoint than the one that stands beside it.
    """
    for dataset in dict.fromkeys(row.dataset for row in rows):
        found: dict[str, list[str]] = {}
        for row in rows:
            if row.dataset == dataset:
                found.setdefault(row.data_fingerprint, []).append(row.experiment_id)
        if len(found) > 1:
            raise MixedDataError(dataset, found, released=any(row.claim for row in rows))
    checkpoints = {row.experiment_id: row.checkpoint_sha256 for row in rows}
    weights: dict[str, str] = {}
    for row in rows:
        name, taught = row.experiment_id, row.teacher
        for role, source in (("parent", row.parent), ("teacher", taught)):
            if source and checkpoints.get(source.id) not in (None, source.checkpoint_sha256):
                text = f"{name} rests on another checkpoint of its {role} {source.id} than the one there now"
                raise RowError(text, train=(name,), afresh=True)
        if (
            taught
            and taught.weights_sha256
            and weights.setdefault(taught.id, taught.weights_sha256) != (taught.weights_sha256)
        ):
            text = f"{name} was taught by other weights of {taught.id} than the rows before it"
            raise RowError(text, train=[row.experiment_id for row in rows if row.teacher], afresh=True)


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

    def __init__(self, dataset: str, found: Mapping[str, Sequence[str]], *, released: bool) -> None:
        described = " and ".join(f"{fingerprint:.12} ({_few(names)})" for fingerprint, names in found.items())
        names = [name for group in found.values() for name in group]
        super().__init__(
            f"results on dataset {dataset} rest on different data, so they cannot stand in one table: fingerprint "
            f"{described}",
            train=() if released else names,
            evaluate=names if released else (),
        )
        self.dataset, self.found = dataset, found


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _check_same(train: TrainingRecord | ReleasedRecord, evaluate: EvaluationRecord) -> None:
    if evaluate.experiment_id != train.id:
        raise RowError(
            f"results of two experiments: {train.id} was trained, {evaluate.experiment_id} evaluated",
            evaluate=(train.id,),
        )
    for key, what in _SHARED.items():
        evaluated = getattr(evaluate, key)
        trained = getattr(train, key, evaluated)  # nobody says on which data a released file was trained
        if trained != evaluated:
            raise RowError(
                f"{train.id}: the evaluation rests on other {what} than the training ({key} {evaluated} against "
                f"{trained})",
                train=(train.id,) if key == "data_fingerprint" else (),
                evaluate=(train.id,),
            )


def _check_complete(train: TrainingRecord, experiment: Experiment) -> None:
    others = {piece.spec_hash for piece in train.segments} - {train.spec_hash}
    if others:
        text = f"{train.id}: some epochs were trained with other parameters (hash {', '.join(sorted(others))})"
        raise RowError(text, train=(train.id,), afresh=True)
    wanted = experiment.hyperparameters.epochs
    if train.epochs != wanted:
        raise RowError(f"{train.id}: trained for {train.epochs} of {wanted} epochs", train=(train.id,))


def beyond_rounding(measured: Accuracy, trained: Accuracy, n: int) -> str | None:
    """In what two measurements of one network on the same images differ by more than rounding; None: in nothing.

    Args:
        measured: by an evaluation.
        trained: as its training saw it.
        n: images.
    """
    points = 100 * max(SAME_IMAGES, SAME_SHARE * n) / n
    allowed = {
        "top1": points,
        "top5": points,
        "loss": SAME_LOSS * max(trained.loss, measured.loss) + SAME_LOSS_FLOOR,
    }
    for name, most in allowed.items():
        now, then = getattr(measured, name), getattr(trained, name)
        # Rounded, so that a difference of exactly two images does not depend on binary fractions.
        if round(abs(now - then), 9) > round(most, 9):
            return (
                f"the evaluation of its checkpoint gave {name} {now:.4g}, its training saw {then:.4g} at that epoch:"
                f" more than rounding (at most {most:.2g} on {n} images)"
            )
    return None
