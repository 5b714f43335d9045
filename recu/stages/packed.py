"""Packed files at work: what images show, and how many of a test split are told right; without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from recu.base.errors import CheckpointError, ConfigError, DataError, DivergenceError
from recu.base.files import check_ordinary, reading
from recu.data.load.plain_view import Pixels, Seen, as_test_image, evaluation_view, normalised
from recu.experiment.paths import user_path
from recu.experiment.schema import TestView
from recu.runtime.checking import count_logits
from recu.runtime.opening import StartingNetwork
from recu.runtime.reader import MAGIC, PackedError, parse
from recu.stages.guess import Guess, guesses, say_unnamed

if TYPE_CHECKING:
    from PIL import Image

    from recu.data import Prepared

_BATCH = 16
"""Images at once."""


def is_packed(path: Path) -> bool:
    """Whether a file begins as packed ones do; what cannot be read does not."""
    try:
        check_ordinary(path)
        with path.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


@dataclass(frozen=True, kw_only=True)
class PackedClassifier:
    """A packed network that can be asked what an image shows; made by `load_packed`."""

    path: Path
    header: dict[str, Any]
    """See `recu.runtime.reader.Packed`."""
    sha256: str
    network: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    """From normalised images (N, S, S, 3) to logits."""
    outputs: int
    """Logits of an image."""
    classes: tuple[str, ...] | None
    """Names in label order; None where the file does not name them."""
    seen: Seen

    def predict(self, image: str | Path | Image.Image, top: int = 5) -> list[Guess]:
        """As `recu.stages.predict.Classifier.predict`."""
        (found,) = self.predict_all([image], top)
        return found

    def predict_all(self, images: Iterable[str | Path | Image.Image], top: int = 5) -> Iterator[list[Guess]]:
        """As `recu.stages.predict.Classifier.predict_all`."""
        if top < 1:
            raise ConfigError(f"top is {top}, expected at least 1")
        rest = iter(images)
        while batch := list(islice(rest, _BATCH)):
            views = [as_test_image(Path(each) if isinstance(each, str) else each, self.seen) for each in batch]
            for image, shares in zip(batch, self.shares(np.stack(views)), strict=True):
                if not np.isfinite(shares).all():
                    raise CheckpointError(f"{self.path} gives no finite numbers for {image}: export again")
                yield guesses(shares, self.classes, top)

    def logits(self, views: Pixels) -> NDArray[np.float64]:
        """Of images (N, S, S, 3) as the network sees them."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite in the end is refused
            return self.network(self.normalised(views)).astype(np.float64)

    def normalised(self, views: Pixels) -> NDArray[np.float32]:
        """What the network computes of images (N, S, S, 3) as it sees them."""
        mean, std = (np.array(self.header["image"][name], np.float32) for name in ("mean", "std"))
        return normalised(views, mean, std)

    def shares(self, views: Pixels) -> NDArray[np.float64]:
        """Softmax of the logits, (N, classes)."""
        return np.exp(_log_shares(self.logits(views)))


def load_packed(file: str | Path, threads: int | None = None) -> PackedClassifier:
    """A packed file, ready to compute, e.g. `recu.load_packed("network.recu").predict("cat.png")`; without PyTorch.

    Args:
        file: as `recu export` writes it.
        threads: at most; None for as many as PyTorch would take.

    Raises:
        CheckpointError: one line: missing, damaged, cut off, of another kind or of a newer version.
    """
    path = user_path(file)
    with reading(path, CheckpointError):
        check_ordinary(path)
        content = path.read_bytes()
    try:
        packed = parse(content)
        seen = _seen(packed.header)
        logits = count_logits(packed.operations, seen.size)
        classes = _classes(packed.header, logits)
    except PackedError as error:
        raise CheckpointError(f"{path} {error}") from error
    if classes is None:
        say_unnamed(path)
    return PackedClassifier(
        path=path,
        header=packed.header,
        sha256=packed.sha256,
        network=StartingNetwork(packed.operations, threads),
        outputs=logits,
        classes=classes,
        seen=seen,
    )


def _seen(header: Mapping[str, Any]) -> Seen:
    """How images are seen, as a header says it. Raises PackedError."""
    said = header.get("image")
    said = said if isinstance(said, dict) else {}
    found: list[Any] = [said.get(name) for name in ("size", "stored_size", "view", "mean", "std")]
    size, stored, view, *colours = found
    sides = all(type(side) is int and side > 0 for side in (size, size if stored is None else stored))
    numbers = all(
        isinstance(each, list)
        and len(each) == 3
        and all(type(value) in (int, float) and 0 <= value <= 1 for value in each)
        for each in colours
    )
    if not (sides and numbers and view in get_args(TestView) and np.array(colours[1], np.float32).all()):
        raise PackedError("does not say how images are seen, or otherwise than docs/packed.md has it: write it again")
    return Seen(size, stored, view)


def _classes(header: Mapping[str, Any], logits: int) -> tuple[str, ...] | None:
    """The names of classes, as a header says them. Raises PackedError."""
    classes = header.get("classes", ())
    named = isinstance(classes, list) and len(classes) == logits and all(isinstance(each, str) for each in classes)
    if not all(isinstance(header.get(name), str) for name in ("network", "dataset")) or not (named or classes is None):
        raise PackedError(
            f"does not say network, dataset and the names of its {logits} classes (or null): write it again"
        )
    return None if classes is None else tuple(classes)


def evaluate_packed(packed: PackedClassifier, prepared: Prepared) -> dict[str, Any]:
    """Accuracy and loss over the test images of prepared data, each counted once.

    Args:
        packed: the network.
        prepared: data of which its images are normalised and seen as the network's were.

    Returns:
        `top1` and `top5` (percent), `loss` (nats) and `n`, and what they rest on; JSON-compatible.

    Raises:
        CheckpointError: the data has other classes, or its images are seen otherwise.
        DataError: an image cannot be read.
        DivergenceError: the loss is not finite.
    """
    from tqdm import tqdm

    check_data(packed, prepared)
    manifest = prepared.manifest
    total, sums = manifest.splits["test"], np.zeros(3)
    with tqdm(desc="evaluating", total=total, unit=" images", leave=False, disable=None) as bar:
        counted = 0
        for views, labels in test_images(prepared, packed.seen):
            logs = _log_shares(packed.logits(views))
            likeliest = np.argsort(-logs, axis=1, kind="stable")[:, :5] == labels[:, None]
            sums += (-logs[np.arange(len(labels)), labels].sum(), likeliest[:, 0].sum(), likeliest.sum())
            counted += len(labels)
            bar.update(len(labels))
    if counted != total:
        raise DataError(f"{prepared.folder} gave {counted} test images of {total}: prepare the dataset again")
    loss, top1, top5 = (float(each) / total for each in sums)
    if not np.isfinite(loss):
        raise DivergenceError(f"the loss over the {total} test images is not finite ({loss})")
    return {
        "loss": loss,
        "top1": 100 * top1,
        "top5": 100 * top5,
        "n": total,
        "checkpoint": packed.path.name,
        "checkpoint_sha256": packed.sha256,
        "network": packed.header["network"],
        "dataset": manifest.dataset,
        "data_fingerprint": manifest.fingerprint,
        "test_content": manifest.content["test"],
    }


def check_data(packed: PackedClassifier, prepared: Prepared) -> None:
    """Raise CheckpointError where images would come in another form, or under other labels, than in the training."""
    said, identity = packed.header["image"], prepared.manifest.identity
    names = {"size": "image_size", "view": "test_view", "mean": "mean", "std": "std"}
    other = [ours for ours, theirs in names.items() if said[ours] != identity[theirs]]
    if other:
        found = ", ".join(f"{name} {said[name]} (the data: {identity[names[name]]})" for name in other)
        raise CheckpointError(f"{packed.path} sees images otherwise than {prepared.folder} has them: {found}")
    classes = prepared.manifest.classes
    if packed.outputs != len(classes):
        raise CheckpointError(
            f"{packed.path} tells {packed.outputs} classes apart, and {prepared.folder} has {len(classes)}: take data"
            " that it was trained on"
        )
    if packed.classes is not None and packed.classes != classes:
        raise CheckpointError(
            f"{packed.path} was trained on other classes than {prepared.folder} has: take data whose classes have the"
            " same names"
        )


def test_images(prepared: Prepared, seen: Seen) -> Iterator[tuple[Pixels, NDArray[np.int64]]]:
    """Batches of test images (N, S, S, 3) as the network sees them, with labels."""
    from recu.data.decoding import open_image, unusable
    from recu.data.opening import open_arrays, open_index

    if prepared.manifest.storage == "arrays":
        images, labels, file = open_arrays(prepared, "test")
        for begin in range(0, len(labels), _BATCH):
            part = slice(begin, begin + _BATCH)
            file.check()
            views = np.stack([evaluation_view(image, seen) for image in images[part]])
            file.check()
            yield views, labels[part]
        return
    index = open_index(prepared, "test")

    def view(number: int) -> Pixels:
        name = str(index.path(number))
        try:
            return evaluation_view(np.asarray(open_image(index.read(number), name)), seen)
        except Exception as error:  # whatever it is, only here it is known which image it was
            raise unusable(name, error) from error

    for begin in range(0, len(index.labels), _BATCH):
        labels = index.labels[begin : begin + _BATCH]
        yield np.stack([view(number) for number in range(begin, begin + len(labels))]), labels


def _log_shares(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of the softmax, (N, classes)."""
    logits = logits - logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))
