"""Results as the train and evaluate stages publish them, and what a table knows about its suite."""

import copy

import pytest

from recu.experiment.schema import Published, PublishedResult
from recu.experiment.suite_facts import DatasetFacts, MethodFacts, SuiteFacts


def provenance(device="NVIDIA A100", created="2026-11-20T10:00:00+00:00", dirty=False):
    return {
        "device": device,
        "created": created,
        "git_commit": "a" * 40,
        "git_dirty": dirty,
        "code_hash": "c" * 64,
        "packages": {"torch": "2.14.1", "python": "3.11.7"},
    }


@pytest.fixture
def results():
    """A function that makes the two metrics of one experiment."""

    def make(
        seed=1, top1=92.8, last=92.5, method="vanilla", model="resnet18_1w1a", dataset="cifar10", epochs=600, batch=256
    ):
        identifier = f"cifar10/{dataset}/cifar.{model}/{method}/seed{seed}"
        history = [{"epoch": e, "test_top1": top1 - 5 + e, "train_top1": 50.0 + e, "lr": 0.1} for e in range(5)]
        train = {
            "experiment": {
                "id": identifier,
                "suite": "cifar10",
                "dataset": dataset,
                "family": "cifar",
                "variant": None,
                "model": model,
                "method": method,
                "seed": seed,
                "hyperparameters": {
                    "epochs": epochs,
                    "batch_size": batch,
                    "batch_size_test": 128,
                    "augmentation": None,
                    "stage": 2,
                },
                "data": {
                    "num_classes": 10,
                    "image_size": 32,
                    "mean": [0.485, 0.456, 0.406],
                    "std": [0.229, 0.224, 0.225],
                    "augmentation": "crop_flip",
                    "test_view": "resize",
                },
            },
            "spec_hash": f"spec{seed}",
            "data_fingerprint": "d" * 64,
            "checkpoint_sha256": f"sha{seed}",
            "best": {"epoch": 590, "top1": top1, "top5": 99.5, "loss": 0.3},
            "last": {"epoch": 599, "top1": last, "top5": 99.4, "loss": 0.3},
            "epochs": epochs,
            "train_seconds": 3600.0,
            "history": history,
            "provenance": provenance(),
            "mlflow_run_id": None,
            "parent": None,
            "shortcut": "one per block",
            "cost": {
                "parameters": 11172042,
                "checkpoint_bytes": 1486632,
                "binary_operations": 546570240,
                "floating_point_operations": 1786880,
                "operations": 10327040.0,
            },
        }
        evaluate = {
            "experiment_id": identifier,
            "spec_hash": f"spec{seed}",
            "data_fingerprint": "d" * 64,
            "checkpoint_sha256": f"sha{seed}",
            "top1": top1,
            "top5": 99.5,
            "loss": 0.3,
            "n": 10000,
            "provenance": provenance(),
            "mlflow_run_id": None,
        }
        return copy.deepcopy((train, evaluate))

    return make


@pytest.fixture
def row(results):
    """A function that makes one result row."""
    from recu.results.rows import result_row

    return lambda **changes: result_row(*results(**changes))


@pytest.fixture
def published():
    return Published(
        results=tuple(
            PublishedResult(
                dataset="CIFAR-10",
                model="resnet18_1w1a",
                method=method,
                batch_size=256,
                epochs=600,
                top1=top1,
                source="s",
            )
            for method, top1 in (("vanilla", 92.8), ("finetune", 93.2))
        )
    )


@pytest.fixture
def suite():
    return SuiteFacts(
        name="cifar10",
        title="CIFAR-10",
        description="The paper's recipe.",
        experiments=(),
        datasets={
            "cifar10": DatasetFacts(title="CIFAR-10", published_as="CIFAR-10"),
            "digits": DatasetFacts(title="Digits", published_as=None),
        },
        methods={
            "vanilla": MethodFacts(description="From scratch.", published_as="vanilla", reconstruction=False),
            "finetune": MethodFacts(description="From vanilla.", published_as="finetune", reconstruction=True),
        },
    )
