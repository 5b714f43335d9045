"""One result row per experiment, from what its training and its evaluation published."""

from __future__ import annotations

from typing import Any

from recu.errors import ResultError
from recu.experiments import network_name

_SHARED = {
    "spec_hash": "parameters",
    "checkpoint_sha256": "checkpoint",
    "data_fingerprint": "data",
}
_CURVE = ("epoch", "test_top1", "train_top1")


def result_row(train: dict[str, Any], evaluate: dict[str, Any]) -> dict[str, Any]:
    """Combine the metrics of one training and of the evaluation of its best checkpoint.

    Accuracies are in percent. `top1_best` is what the evaluation measured on the published checkpoint,
    `top1_best_training` what the training saw at that epoch.

    Args:
        train: metrics.json of the training. evaluate: metrics.json of the evaluation.

    Raises:
        ResultError: the two do not belong together, the training is not complete, or a key is missing.
    """
    try:
        _check_together(train, evaluate)
        return _row(train, evaluate)
    except (KeyError, TypeError) as error:
        name = train.get("experiment", {}).get("id", "?") if isinstance(train, dict) else "?"
        raise ResultError(
            f"the results of {name} are not of the expected form ({error!r}); run its stages again"
        ) from error


def _check_together(train: dict[str, Any], evaluate: dict[str, Any]) -> None:
    identifier = train["experiment"]["id"]
    if evaluate["experiment_id"] != identifier:
        raise ResultError(
            f"results of two experiments: {identifier} was trained, {evaluate['experiment_id']} evaluated"
        )
    for key, what in _SHARED.items():
        if train[key] != evaluate[key]:
            raise ResultError(
                f"{identifier}: the evaluation rests on other {what} than the training ({key} {evaluate[key]} against "
                f"{train[key]}); evaluate it again"
            )
    wanted = train["experiment"]["hyperparameters"]["epochs"]
    if train["epochs"] != wanted:
        raise ResultError(f"{identifier}: trained for {train['epochs']} of {wanted} epochs; train it again")


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
        "method": experiment["method"],
        "seed": experiment["seed"],
        "shortcut": train["shortcut"],
        "cost": train["cost"],
        "batch_size": hyperparameters["batch_size"],
        "batch_size_test": hyperparameters["batch_size_test"],
        "epochs": hyperparameters["epochs"],
        "spec_hash": train["spec_hash"],
        "data_fingerprint": train["data_fingerprint"],
        "checkpoint_sha256": train["checkpoint_sha256"],
        "parent": train.get("parent"),
        "top1_best": evaluate["top1"],
        "top5_best": evaluate["top5"],
        "top1_best_training": best["top1"],
        "best_epoch": best["epoch"],
        "top1_last": last["top1"],
        "top5_last": last["top5"],
        "test_images": evaluate["n"],
        "train_seconds": train["train_seconds"],
        "train_provenance": train["provenance"],
        "evaluate_provenance": evaluate["provenance"],
        "curve": {name: [row[name] for row in train["history"]] for name in _CURVE},
    }
