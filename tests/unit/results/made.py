"""Contents of metrics.json as the train and evaluate stages publish them, without training."""

from recu.experiment.schema import Dataset
from recu.results.records import EvaluationRecord, Row, TrainingRecord, as_record
from recu.results.rows import result_row
from tests.unit.training.ours import experiment

DATASET = Dataset(
    title="CIFAR-10",
    kind="cifar10",
    family="cifar",
    num_classes=10,
    image_size=32,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    augmentation="crop_flip",
)


def provenance(device="NVIDIA A100", created="2026-11-20T10:00:00+00:00", dirty=False, commit="a" * 40) -> dict:
    return {
        "device": device,
        "platform": "Linux x86_64",
        "created": created,
        "git_commit": commit,
        "git_dirty": dirty,
        "code_hash": "c" * 64,
        "environment_hash": "e" * 16,
        "packages": {"torch": "2.14.1", "python": "3.11.7"},
    }


def epoch(number: int, test_top1: float) -> dict:
    """A line of the history."""
    return {
        "epoch": number,
        "lr": 0.1,
        "tau": 0.9,
        "train_loss": 0.5,
        "train_top1": 50.0 + number,
        "train_top5": 90.0,
        "train_skipped": 0,
        "test_loss": 0.3,
        "test_top1": test_top1,
        "test_top5": 99.5,
        "train_images_per_s": 1000.0,
        "test_images_per_s": 2000.0,
        "seconds": 6.0,
        "time": 1,
    }


def weights(number: int) -> dict:
    """A line of the diagnostics: two layers, of which the second clamps nothing."""
    shares = {name: [0.2, 0.4] for name in ("tail_share", "quantisation_error", "entropy")}
    scales = {f"scale_{name}": [0.5, 1.5] for name in ("min", "mean", "max")}
    return {
        "epoch": number,
        "layers": ["layer1.0.conv1", "layer1.0.conv2"],
        "weights": [100, 300],
        "threshold": [2.5, None],
        "dead_share": [0.1, 0.0],
        "flipped_share": [0.01 * number, None],
        **shares,
        **scales,
    }


def training(
    seed=1,
    top1=92.8,
    last=92.5,
    method="vanilla",
    model="resnet18_1w1a",
    dataset="cifar10",
    epochs=600,
    batch=256,
    row=None,
) -> dict:
    of = experiment(DATASET, name=dataset, model=model, seed=seed, epochs=epochs, batch_size=batch, batch_size_test=128)
    of = of.model_copy(update={"suite": "cifar10", "method": method, "row": row})
    settings = {"loader": "memory", "workers": 0, "threads": 1}
    piece = {"from_epoch": 0, "to_epoch": 4, "experiment": of.canonical, "spec_hash": f"spec{seed}"}
    return {
        "experiment": {"id": of.id} | of.model_dump(mode="json"),
        "spec_hash": f"spec{seed}",
        "data_fingerprint": "d" * 64,
        "checkpoint_sha256": f"sha{seed}",
        "best": {"epoch": 590, "top1": top1, "top5": 99.5, "loss": 0.3},
        "last": {"epoch": 599, "top1": last, "top5": 99.4, "loss": 0.3},
        "epochs": epochs,
        "train_seconds": 3600.0,
        "history": [epoch(number, top1 - 5 + number) for number in range(5)],
        "diagnostics": [weights(number) for number in range(5)],
        "provenance": provenance(),
        "settings": settings,
        "segments": [piece | {"provenance": provenance(), "settings": settings}],
        "mlflow_run_id": None,
        "parent": None,
        "teacher": None,
        "resumed_from": None,
        "start_epoch": 0,
        "shortcut": "one per block",
        "cost": {
            "parameters": 11172042,
            "checkpoint_bytes": 1486632,
            "binary_operations": 546570240,
            "floating_point_operations": 1786880,
            "operations": 10327040.0,
        },
    }


def measurement(train: dict) -> dict:
    """What measuring the training's checkpoint gives, and what it rests on."""
    experiment = train["experiment"]
    return {
        **{name: train[name] for name in ("data_fingerprint", "checkpoint_sha256", "mlflow_run_id", "spec_hash")},
        **{name: experiment[name] for name in ("model", "family", "variant", "dataset", "data")},
        "stage": experiment["hyperparameters"]["stage"],
        "checkpoint": "model_best.pth.tar",
        "weights_key": "state_dict",
        "test_content": "f" * 64,
        "settings": {"batch_size_test": 128, "loader": "memory", "precision": "fp32"},
        "top1": train["best"]["top1"],
        "top5": train["best"]["top5"],
        "loss": train["best"]["loss"],
        "n": 10000,
        "provenance": provenance(),
    }


def evaluation(train: dict) -> dict:
    return measurement(train) | {"experiment_id": train["experiment"]["id"]}


def made_row(train: dict, evaluate: dict) -> Row:
    return result_row(as_record(train, TrainingRecord), as_record(evaluate, EvaluationRecord))


def packed(train: dict, **changes) -> dict:
    """What an export says of the training's packed file."""
    return {
        "experiment_id": train["experiment"]["id"],
        "checkpoint_sha256": train["checkpoint_sha256"],
        "packed_sha256": "b" * 64,
        "size_bytes": 51460,
        "test_images": 10000,
        "other_class": 2,
        "top1": 87.5,
    } | changes


def speed(train: dict, **changes) -> dict:
    """How fast that file is."""
    return {
        "experiment_id": train["experiment"]["id"],
        "packed_sha256": "b" * 64,
        "packed": {"ms": 0.5, "images_per_s": 4000.0},
        "float32": {"ms": 2.0, "images_per_s": 500.0},
        "threads": 2,
        "batch_size": 128,
        "turns": 5,
        "processors": 4,
        "load_average": 2.25,
        "others": 0.25,
        "provenance": provenance(device="CPU, 2 threads (a processor)"),
    } | changes
