"""Every registered network in every form that `recu export` writes, compared. `python -m benchmarks.round_trip`."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from recu.base.errors import ConfigError
from recu.experiment.networks import ModelName, available_models, find_network
from recu.experiment.params import load_datasets
from recu.experiment.paths import find_params
from recu.models import build_model
from recu.stages.export import Target, Wanted, export
from recu.stages.predict import Classifier, load

_SEED = 0
_IMAGES = 32
_HEADS = (
    "network",
    "stage",
    "form",
    "images",
    "other class",
    "logits that differ",
    "largest",
    "bytes",
    "to the columns",
)


def main() -> None:
    """Print a table: random weights, random images, a line for each form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", metavar="NAME", help="those that are called so (default: all)")
    parser.add_argument("--stages", nargs="+", type=int, default=[2], help="of each that has it (default: 2)")
    parser.add_argument("--to", nargs="+", choices=get_args(Target), default=get_args(Target), help="(default: all)")
    parser.add_argument("--image_size", type=int, help="(default: 32, or 224 of networks for ImageNet)")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    wanted = [
        (entry, stage)
        for entry in available_models()
        if not arguments.models or entry.name in arguments.models
        for stage in arguments.stages
        if stage in find_network(entry.name, family=entry.family, variant=entry.variant).stages
    ]
    _print(_HEADS)
    _print(["---"] * 3 + ["---:"] * (len(_HEADS) - 3))
    with tempfile.TemporaryDirectory() as folder:
        for number, (entry, stage) in enumerate(wanted):
            classifier, dataset = _classifier(entry, stage, arguments.image_size, Path(folder))
            for target in arguments.to:
                path = Path(folder, f"{target}.{number}")
                for row in _rows(Wanted(classifier=classifier, target=target, path=path, dataset=dataset)):
                    _print([classifier.subject.network, stage, *row])


def _print(cells: Iterable[object]) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def _classifier(entry: ModelName, stage: int, size: int | None, folder: Path) -> tuple[Classifier, str]:
    """A network of random weights as a checkpoint of it is opened, and the dataset that it is for."""
    dataset = "cifar10" if entry.family == "cifar" else "imagenet"
    known = load_datasets(find_params())[dataset]
    seen = known if size is None else known.model_copy(update={"image_size": size})
    torch.manual_seed(_SEED)
    network = build_model(
        entry.name, family=entry.family, variant=entry.variant, num_classes=known.num_classes, stage=stage
    )
    _normalise(network, torch.randn(_IMAGES, 3, seen.image_size, seen.image_size))
    file = folder / "weights.pth"
    torch.save({"state_dict": network.state_dict()}, file)
    opened = load(file, dataset=dataset, model=entry.name, family=entry.family, variant=entry.variant, stage=stage)
    return replace(opened, dataset=seen), dataset


def _normalise(network: nn.Module, images: torch.Tensor) -> None:
    """Give every BatchNorm the statistics of these images, as a training would, and weights of both signs."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            layer.momentum = None  # the average of all it has seen, which is once
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    with torch.no_grad():
        network.train()(images)


def _rows(wanted: Wanted) -> Iterator[tuple[object, ...]]:
    """Of each form that is compared with the network, or why there is none."""
    try:
        exported = export(wanted, data_dir=None)
    except ConfigError as error:
        yield wanted.target, f"none: {error}"
        return
    share = f"{100 * (exported.size_bytes / exported.stated_bytes - 1):+.2f} %" if wanted.target == "packed" else ""
    for form, found in list(exported.compared.items())[1:]:
        size = f"{exported.size_bytes:,}"
        yield form, found.images, found.differing, f"{found.unequal:,}", f"{found.largest:.2g}", size, share


if __name__ == "__main__":
    logging.getLogger("recu").setLevel(logging.ERROR)  # not that the files name no classes
    main()
