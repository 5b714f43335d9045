"""`recu predict`: tell what images show, by a trained network."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from recu.base.files import atomic_write_json
from recu.base.text import visible
from recu.cli import options
from recu.experiment.paths import user_path

if TYPE_CHECKING:
    from recu.stages.packed import PackedClassifier
    from recu.stages.predict import Classifier

_TOP = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "source",
        metavar="FILE",
        help="checkpoint of this program or the authors', packed file, folder of a training, or an experiment's id",
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=user_path, help="image file, of any size")
    parser.add_argument(
        "--top",
        type=int,
        default=_TOP,
        metavar="N",
        help="classes an image, likeliest first (default: %(default)s)",
    )
    options.add_output_options(parser, "write the guesses here")
    group = parser.add_argument_group("what the file does not say itself")
    options.add_identity_options(group)
    options.add_changed_code_option(group)
    options.add_params_option(parser)
    options.add_dirs(parser, "results_dir")
    options.add_device_options(parser, gpus="cpu")


def run(arguments: argparse.Namespace) -> None:
    """Print a line an image: its likeliest classes."""
    from tqdm import tqdm

    options.check_count("top", arguments.top, 1_000_000)
    options.check_output(arguments)
    classifier, said = _opened(arguments)
    found = []
    guesses = classifier.predict_all(arguments.images, arguments.top)
    with tqdm(total=len(arguments.images), unit=" images", disable=None, leave=False) as bar:
        for image, top in zip(arguments.images, guesses, strict=True):
            bar.update()
            bar.write(visible(f"{image}: {', '.join(map(str, top))}"))
            found.append({"image": str(image), "top": [asdict(guess) for guess in top]})
    if arguments.output is not None:
        atomic_write_json(arguments.output, said | {"images": found})


def _opened(arguments: argparse.Namespace) -> tuple[Classifier | PackedClassifier, dict[str, str]]:
    """The network of FILE, and what of it goes into --output. A packed one needs no PyTorch."""
    from recu.stages.packed import is_packed, load_packed

    if is_packed(user_path(arguments.source)):
        options.check_packed(arguments, *(name for name in options.OF_A_FILE if name in arguments))
        packed = load_packed(user_path(arguments.source))
        return packed, _said(packed.path.name, packed.sha256, packed.header["network"])
    from recu.stages.predict import load

    classifier = load(arguments.source, **options.opening(arguments, "gpus", "kernels"))
    file = classifier.subject.file
    return classifier, _said(file.path.name, file.sha256, classifier.subject.network)


def _said(name: str, sha256: str, network: str) -> dict[str, str]:
    return {"checkpoint": name, "checkpoint_sha256": sha256, "network": network}
