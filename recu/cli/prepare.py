"""`recu prepare`: make a dataset ready for training."""

from __future__ import annotations

import argparse

from recu.base.errors import ConfigError
from recu.cli import options
from recu.experiment.fit import check_batch_size
from recu.experiment.paths import user_path
from recu.experiment.source_state import read_place
from recu.experiment.values import MOST_PROCESSES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument("dataset", help="a name in params/datasets.yaml")
    options.add_dirs(parser, "data_dir")
    parser.add_argument(
        "--source",
        "--data_path",
        type=user_path,
        metavar="PATH",
        help="local archive or folder (default: the published archive is downloaded)",
    )
    parser.add_argument(
        "--only_test",
        action="store_true",
        help="training images may be missing; without them it serves evaluation",
    )
    parser.add_argument(
        "--test_is_enough_for",
        nargs="*",
        default=(),
        metavar="NAME",
        help="the same if the dataset is one of these, which the workflow only evaluates on",
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="decoding processes (default: %(default)s)")
    parser.add_argument("--output", type=user_path, metavar="FILE.json", help="write a copy of the manifest here")
    parser.add_argument(
        "--batch_sizes",
        nargs="*",
        default=[],
        metavar="DATASET:N",
        help="batch sizes that trainings will use: refuse one that leaves one image over, before any training",
    )
    options.add_params_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prepare the dataset and print what it holds."""
    from recu.data.opening import SPLITS
    from recu.stages.prepare import prepare

    options.check_count("workers", arguments.workers, MOST_PROCESSES, least=0)
    dataset = options.dataset_of(arguments, arguments.dataset)
    only_test = arguments.only_test or arguments.dataset in arguments.test_is_enough_for
    prepared = prepare(
        arguments.dataset,
        dataset,
        data_dir=arguments.data_dir,
        source=arguments.source,
        workers=arguments.workers,
        needed=("test",) if only_test else SPLITS,
        output=arguments.output,
    )
    manifest = prepared.manifest
    splits = ", ".join(f"{count} {split} images" for split, count in manifest.splits.items())
    print(
        f"{dataset.title}: {splits}, {len(manifest.classes)} classes, in"
        f" {prepared.folder} (fingerprint {manifest.fingerprint[:12]})"
    )
    for note in manifest.notes:
        print(f"note: {note}")
    place = read_place(prepared.folder)
    if arguments.source is None and place is not None:
        print(f"note: it was made from {place.path}")
    for size in _batch_sizes(arguments):
        check_batch_size(size, manifest.splits.get("train", 0))


def _batch_sizes(arguments: argparse.Namespace) -> list[int]:
    """Those of `--batch_sizes` that are meant for the dataset. Raises ConfigError."""
    sizes = []
    for word in arguments.batch_sizes:
        name, _, size = word.rpartition(":")
        if not (name and size.isascii() and size.isdecimal() and int(size) > 1):
            raise ConfigError(f"--batch_sizes {word}: expected DATASET:N with N above 1, e.g. cifar10:256")
        if name == arguments.dataset:
            sizes.append(int(size))
    return sizes
