"""`recu predict`: tell what images show, by a trained network."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from recu.base.files import atomic_write_json
from recu.base.text import visible
from recu.cli import options
from recu.experiment.paths import user_path

_TOP = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "source",
        metavar="FILE",
        help="checkpoint of this program or the authors', folder of a training, or an experiment's id",
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
    group.add_argument(
        "--changed_code",
        action="store_true",
        help="take a network or binariser of one's own as its code is now, although it was trained as other code",
    )
    options.add_params_option(parser)
    options.add_dirs(parser, "results_dir")
    options.add_device_options(parser, gpus="cpu")


def run(arguments: argparse.Namespace) -> None:
    """Print a line an image: its likeliest classes."""
    from tqdm import tqdm

    from recu.stages.predict import load

    options.check_count("top", arguments.top, 1_000_000)
    options.check_output(arguments)
    told = {name: getattr(arguments, name) for name in options.OF_A_FILE if name in arguments}
    places = {
        name: getattr(arguments, name) for name in ("params_dir", "results_dir", "gpus", "kernels", "changed_code")
    }
    classifier = load(arguments.source, **told, **places)
    found = []
    guesses = classifier.predict_all(arguments.images, arguments.top)
    with tqdm(total=len(arguments.images), unit=" images", disable=None, leave=False) as bar:
        for image, top in zip(arguments.images, guesses, strict=True):
            bar.update()
            bar.write(visible(f"{image}: {', '.join(map(str, top))}"))
            found.append({"image": str(image), "top": [asdict(guess) for guess in top]})
    if arguments.output is not None:
        subject = classifier.subject
        said = {"checkpoint": subject.file.path.name, "checkpoint_sha256": subject.file.sha256}
        atomic_write_json(arguments.output, said | {"network": subject.network, "images": found})
