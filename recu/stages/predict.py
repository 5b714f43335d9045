"""The predict stage: a trained network in a person's hands, with its classes and the view it was measured with.

Nothing is guessed: what a file does not say of its network or of its images has to be given, and what is given must not
contradict it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recu.base.errors import CheckpointError, ConfigError, unknown_name
from recu.experiment import paths
from recu.experiment.own import look_beside
from recu.experiment.params import load_datasets, validate_model
from recu.experiment.running import Kernels
from recu.experiment.schema import Dataset
from recu.results.records import ReleasedRecord
from recu.stages.guess import Guess, guesses, say_unnamed
from recu.stages.subject import Subject, load_network, recognise, recognise_released
from recu.stages.trained import read_whole

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

    from recu.experiment.released import Released
    from recu.training.checkpoint import CheckpointFile

_BATCH = 32
"""Images at once."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A trained network that can be asked what an image shows; made by `load`."""

    network: nn.Module
    """From normalised images (N, 3, S, S) to logits (N, classes), in evaluation mode, on `device`."""
    classes: tuple[str, ...] | None
    """Names in label order; None where the file does not name them."""
    dataset: Dataset
    """What it was trained for: sizes, normalisation and test view."""
    subject: Subject
    """The file, and which network it holds."""
    device: torch.device

    def predict(self, image: str | Path | Image.Image, top: int = 5) -> list[Guess]:
        """The `top` likeliest classes of an image, the likeliest first; as `predict_all`."""
        (found,) = self.predict_all([image], top)
        return found

    def predict_all(self, images: Iterable[str | Path | Image.Image], top: int = 5) -> Iterator[list[Guess]]:
        """The same of many images, in their order.

        Args:
            images: files, or images that Pillow opened; of any size.
            top: how many classes, or all where there are fewer.

        Raises:
            DataError: an image cannot be read; the message names it.
            CheckpointError: the network gives no finite numbers.
        """
        import torch

        from recu.data.load.augmentation import normalise
        from recu.data.load.one_image import as_test_image
        from recu.nn.inference import inference_form
        from recu.training.device import lay_out

        if top < 1:
            raise ConfigError(f"top is {top}, expected at least 1")
        form, rest = inference_form(self.network), iter(images)
        mean, std = (torch.tensor(values, device=self.device) for values in (self.dataset.mean, self.dataset.std))
        while batch := list(islice(rest, _BATCH)):
            views = [as_test_image(Path(each) if isinstance(each, str) else each, self.dataset) for each in batch]
            with torch.inference_mode():
                seen = normalise(torch.stack(views).to(self.device), mean, std)
                shares = form(lay_out(seen)).double().softmax(dim=1).cpu()
            for image, each in zip(batch, shares, strict=True):
                if not bool(each.isfinite().all()):
                    raise CheckpointError(f"{self.subject.file.path} gives no finite numbers for {image}: train again")
                yield guesses(each.numpy(), self.classes, top)


def load(
    source: str | Path,
    *,
    dataset: str | None = None,
    model: str | None = None,
    family: str | None = None,
    variant: str | None = None,
    stage: int | None = None,
    binariser: str | None = None,
    gpus: str = "cpu",
    kernels: Kernels = "auto",
    params_dir: str | Path | None = None,
    results_dir: str | Path = "results",
    changed_code: bool = False,
) -> Classifier:
    """A trained network with its classes and its test view, e.g. `recu.load("model_best.pth.tar").predict("cat.png")`.

    Args:
        source: a checkpoint of this program or the authors'; the folder of a training, or of a released file that was
            published; or an experiment's id, whose folder lies in `results_dir`.
        dataset: a name in params/datasets.yaml, which says how images are seen; needed for a file that does not.
        model: network, needed for a file that does not name it. What the file says itself must not be contradicted.
        family: likewise.
        variant: likewise.
        stage: likewise.
        binariser: likewise.
        gpus: "cpu", or as for --gpus. On a GPU this process computes as every command does: deterministic, no TF32.
        kernels: "off" for the layers' own forwards alone.
        params_dir: None for the working directory's params/ or, where it has none, the package's. Files of one's own
            code are looked for beside it, then in the working directory.
        results_dir: published results.
        changed_code: whether a network or binariser of one's own is taken as its code is now, although it was trained
            as other code.

    Raises:
        RecuError: one line each: no such file, one that is damaged or not what its training published, that does not
            fit its network or classes, or says too little.
    """
    from recu.training.checkpoint_identity import check_code
    from recu.training.device import choose_device, place
    from recu.training.seeding import check_arithmetic, make_deterministic

    look_beside(None if params_dir is None else paths.user_path(params_dir))
    given = {"model": model, "family": family, "variant": variant, "stage": stage, "binariser": binariser}
    asked = {name: value for name, value in given.items() if value is not None}
    named = None if dataset is None else (dataset, _entry(dataset, params_dir))
    file, released = _opened(source, Path(results_dir))
    if released is None:
        subject, seen = _recognised(file, asked, named)
    elif asked or named:
        raise ConfigError(f"{source} is the released file {released.id}, which says what it is: leave the options out")
    else:
        seen = validate_model({"title": released.dataset, "family": released.family, **released.data}, Dataset, "data")
        subject = recognise_released(file, released, seen)
    if subject.identity is not None and not changed_code:
        check_code(subject.identity, file.path)
    network, _ = load_network(subject, seen.num_classes)
    classes = None if subject.identity is None else subject.identity.classes
    if classes is None:
        say_unnamed(file.path)
    check_arithmetic()
    device = choose_device(gpus)
    if device.type != "cpu":
        make_deterministic()
    network = place(network.eval(), device, kernels=kernels)
    return Classifier(network=network, classes=classes, dataset=seen, subject=subject, device=device)


def _entry(dataset: str, params_dir: str | Path | None) -> Dataset:
    datasets = load_datasets(paths.find_params() if params_dir is None else paths.user_path(params_dir))
    if dataset not in datasets:
        raise unknown_name("dataset", dataset, datasets)
    return datasets[dataset]


def _opened(source: str | Path, results_dir: Path) -> tuple[CheckpointFile, Released | None]:
    """The checkpoint that `source` means, and the released file that it was published as, if it was."""
    from recu.training.checkpoint import open_checkpoint

    path = paths.user_path(source)
    published = paths.train_folder(results_dir, str(source))
    folder = published if not path.exists() and published.is_dir() else path
    if not folder.exists():
        raise CheckpointError(_nothing_there(str(source), results_dir))
    if not folder.is_dir():
        return open_checkpoint(path), None
    checkpoint, record = folder / paths.BEST_CHECKPOINT, None
    if (folder / paths.METRICS).exists():
        record = read_whole(folder, again="train again, or give the checkpoint file itself")
    elif not checkpoint.exists():
        raise CheckpointError(
            f"{folder} holds no {paths.BEST_CHECKPOINT}: give a checkpoint file, or the folder of a training that has"
            " finished an epoch"
        )
    file = open_checkpoint(checkpoint)
    if record is not None and file.sha256 != record.checkpoint_sha256:
        raise CheckpointError(f"{checkpoint} changed while it was read: run the same command again")
    return file, record.released if isinstance(record, ReleasedRecord) else None


def _nothing_there(source: str, results_dir: Path) -> str:
    root = results_dir / "train"
    known = [file.parent.relative_to(root).as_posix() for file in root.rglob(paths.METRICS)]
    nearest = get_close_matches(source, known, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else f" ({root} has {len(known)} results): check the name"
    return f"{source} is no file, no folder and no experiment with a result{hint}"


def _recognised(
    file: CheckpointFile, asked: dict[str, Any], named: tuple[str, Dataset] | None
) -> tuple[Subject, Dataset]:
    """Which network a file holds, and how its training saw images: as it says itself, else as the named dataset has it.

    Raises:
        ConfigError, CheckpointError: it says too little, or something else.
    """
    from recu.training.checkpoint_identity import check_agrees, check_data, identity_of

    identity = identity_of(file.content, file.path)
    own = None if identity is None else identity.seen
    if identity is not None and named is not None:
        check_data(identity, file.path, *named)
        check_agrees(identity, file.path, {"image_size": named[1].image_size}, by=f"dataset {named[0]}")
    if identity is not None and own is not None:
        return recognise(file, asked, identity.dataset, own), own
    if named is None:
        raise ConfigError(
            f"--dataset is missing: {file.path} does not say how its training saw images (size, normalisation, test"
            " view); name the dataset of params/datasets.yaml that does"
        )
    return recognise(file, asked, *named), named[1]
