"""Checkpoints as this program writes them at the end of an epoch, without training."""

from recu.experiment.params import load_defaults
from recu.experiment.paths import PROJECT_DIR
from recu.experiment.resolving import Experiment
from recu.experiment.schema import Dataset
from recu.models import build_model

DATASET = Dataset(
    title="Six",
    kind="imagefolder",
    family="cifar",
    num_classes=6,
    image_size=8,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    augmentation="crop_flip",
)


def experiment(dataset=DATASET, *, name="six", model="resnet20_1w1a", family="cifar", variant=None, seed=1, **recipe):
    defaults = load_defaults(PROJECT_DIR / "params")
    return Experiment(
        suite="tests",
        dataset=name,
        family=family,
        variant=variant,
        model=model,
        method="vanilla",
        seed=seed,
        hyperparameters=defaults.hyperparameters.model_copy(update=recipe),
        data=dataset.identity(),
        init_from=None,
        teacher=None,
        recipe_version=defaults.recipe_version,
    )


def network_of(of: Experiment):
    return build_model(
        of.model,
        family=of.family,
        variant=of.variant,
        num_classes=of.data["num_classes"],
        stage=of.hyperparameters.stage,
    )


def our_checkpoint(of: Experiment, network=None, **recu) -> dict:
    """As model_best.pth.tar, with what `recu` changes under our key."""
    ours = {
        "format": 1,
        "experiment": of.canonical,
        "spec_hash": of.spec_hash,
        "data_fingerprint": "d" * 64,
        "seed": of.seed,
    }
    return {
        "epoch": 1,
        "model": of.model,
        "state_dict": dict((network or network_of(of)).state_dict()),
        "best_prec1": 50.0,
        "best_prec5": 90.0,
        "recu": ours | recu,
    }
