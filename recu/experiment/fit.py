"""What goes together: a training's settings with its dataset, its network's parents and its device.

Each rule stands here once and is asked by planning, the command line and the job, so that nothing is refused after
hours that could be refused at once. Free of torch.
"""

from __future__ import annotations

from typing import get_args

from recu.base.errors import ConfigError, unknown_name
from recu.experiment.augmentations import CROP_SCALES
from recu.experiment.binarisers import is_same_at
from recu.experiment.dataset_kinds import Storage, find_kind
from recu.experiment.loaders import LOADERS, LoaderKind, LoaderName
from recu.experiment.networks import TORCHVISION_TEACHERS, TORCHVISION_UNPUBLISHED
from recu.experiment.schema import Dataset, Hyperparameters, gpu_numbers

_TEACHER_CLASSES = 1000
"""Of the networks that torchvision publishes."""


def fitted(recipe: Hyperparameters, dataset: Dataset) -> Hyperparameters:
    """A recipe as it is on a dataset: `loader` is "auto" where it names the loader that "auto" takes.

    Raises:
        ConfigError: it cannot be trained there, as far as the dataset's entry tells.
    """
    if dataset.train_images is not None:
        check_batch_size(recipe.batch_size, dataset.train_images)
    return recipe.model_copy(update={"loader": settled_loader(recipe.loader, dataset, recipe.augmentation)})


def settled_loader(loader: LoaderName, dataset: Dataset, augmentation: str | None = None) -> LoaderName:
    """`loader`, or "auto" where it names what that takes; as `choose_loader`. Raises ConfigError."""
    named, usual = (choose_loader(each, dataset, storage_of(dataset), augmentation) for each in (loader, "auto"))
    return "auto" if named == usual else loader


def check_batch_size(batch_size: int, train_images: int, parts: int = 1) -> None:
    """Raise ConfigError where BatchNorm would be given one image, which it cannot use, or none at all.

    Args:
        batch_size: images a step.
        train_images: of an epoch, whose last step may have fewer.
        parts: consecutive ones that each batch is cut into, for one device each.
    """
    for images in {min(batch_size, train_images), train_images % batch_size} - {0} if parts > 1 else ():
        if images % -(-images // parts) == 1 or images <= parts:
            raise ConfigError(
                f"batch_size: {parts} devices leave one of a batch's {images} images for one of them, which BatchNorm"
                " cannot use there; choose another number of devices or batch_size, or sync_batch_norm"
            )
    if train_images % batch_size == 1:
        raise ConfigError(
            f"batch_size: {batch_size} leaves one of {train_images} training images for the last batch, which BatchNorm"
            " cannot use; choose another batch_size"
        )


def check_start_epoch(start_epoch: int, epochs: int) -> None:
    """Raise ConfigError where a training would begin with an epoch that it has not."""
    if not 0 <= start_epoch < epochs:
        raise ConfigError(f"start_epoch is {start_epoch}, expected 0 to {epochs - 1} (epochs - 1)")


def storage_of(dataset: Dataset) -> Storage:
    """How images of a dataset are kept: as its kind says, else files where training cuts out random parts."""
    return find_kind(dataset.kind).storage or ("files" if dataset.augmentation in CROP_SCALES else "arrays")


def stored_size_of(dataset: Dataset) -> int | None:
    """Side of the stored images in pixels; None where files keep their own sizes."""
    if storage_of(dataset) == "files":
        return None
    return find_kind(dataset.kind).side or dataset.image_size


def choose_loader(
    loader: str, dataset: Dataset, storage: Storage, augmentation: str | None = None, *, trains: bool = True
) -> str:
    """The input pipeline that `loader` means for a dataset.

    Args:
        loader: a name in `recu.experiment.loaders`; "auto" takes the first there that may be taken so and serves.
        dataset: its entry.
        storage: how its images lie prepared.
        augmentation: of the training images, in place of the dataset's.
        trains: whether training images are wanted; no augmentation touches the others.

    Raises:
        ConfigError: unknown, or one that cannot serve the dataset.
    """
    if loader not in get_args(LoaderName):
        raise unknown_name("loader", loader, get_args(LoaderName))
    used = augmentation or dataset.augmentation if trains or loader == "auto" else None
    obstacles = {name: _obstacles(kind, dataset, storage, used) for name, kind in LOADERS.items()}
    if loader == "auto":
        return next(name for name, kind in LOADERS.items() if kind.automatic and not obstacles[name])
    if obstacles[loader]:
        others = " or ".join(repr(name) for name, found in obstacles.items() if not found)
        raise ConfigError(
            f"loader {loader!r} cannot serve {dataset.title}: {'; '.join(obstacles[loader])}; choose 'auto' or"
            f" {others} (`loader` under params/, --loader in place of --use_dali)"
        )
    return loader


def _obstacles(kind: LoaderKind, dataset: Dataset, storage: Storage, augmentation: str | None) -> list[str]:
    """Why a loader cannot serve a dataset, in clauses; none where it can. `augmentation` is None of test images."""
    size, stored = dataset.image_size, stored_size_of(dataset)
    as_stored = dataset.seen_as == "resize" and stored == size
    clauses = (
        (kind.storage in (None, storage), f"it takes images kept as {kind.storage}, and these are kept as {storage}"),
        (
            kind.augmentations is None or augmentation is None or augmentation in kind.augmentations,
            f"it takes augmentation {', '.join(kind.augmentations or ())}, and this is {augmentation!r}",
        ),
        (
            as_stored or not kind.as_stored,
            f"it takes images stored in the network's size ({size}) with test view 'resize', and these are stored in"
            f" {stored or 'their own'} with test view {dataset.seen_as!r}",
        ),
    )
    return [clause for fits, clause in clauses if not fits]


def check_initial_stage(parent: str, parent_stage: int, stage: int) -> None:
    """Raise ConfigError where a network would start from one that binarises more.

    Args:
        parent: how the message calls what it starts from.
        parent_stage: what that one binarises.
        stage: what this one does.
    """
    if parent_stage > stage:
        raise ConfigError(
            f"init_from: {parent} has stage {parent_stage}, and a network of stage {stage} starts from one of stage"
            f" {' or '.join(map(str, range(stage + 1)))}; its latent weights are made for more binarisation"
        )


def check_initial_binariser(parent: str, parent_stage: int, theirs: str, ours: str) -> None:
    """Raise ConfigError where latent weights would start a network that binarises them otherwise.

    Args:
        parent: how the message calls what it starts from.
        parent_stage: what that one binarises; at stage 0 it is nothing, and every binariser may follow.
        theirs: its binariser.
        ours: the one that follows.
    """
    if parent_stage and not is_same_at(parent_stage, theirs, ours):
        raise ConfigError(
            f"init_from: {parent} has binariser {theirs!r}, this one {ours!r}: its weights are made for the other;"
            " start from one of the same binariser, or of stage 0"
        )


def check_pretrained_teacher(name: str, num_classes: int, has_weights: bool) -> None:
    """Raise ConfigError where a network of torchvision cannot teach a dataset.

    Args:
        name: torchvision's.
        num_classes: of the dataset.
        has_weights: whether a local file with its weights is given, in place of torchvision's own.
    """
    if name not in TORCHVISION_TEACHERS and not (has_weights and name in TORCHVISION_UNPUBLISHED):
        raise unknown_name("teacher (torchvision network)", name, TORCHVISION_TEACHERS)
    if num_classes != _TEACHER_CLASSES and not has_weights:
        raise ConfigError(
            f"teacher: torchvision's {name} has {_TEACHER_CLASSES} classes, the dataset has {num_classes}: give the"
            f" weights of a {name} trained on it (teacher_weights in params/config.yaml, --teacher_weights FILE)"
        )


def devices_of(gpus: str, processes: int) -> int:
    """How many devices share a job.

    Args:
        gpus: device numbers, or "cpu", or "".
        processes: how many are asked for; 0 for those that `gpus` names, or one.

    Raises:
        ConfigError: the two say different numbers, or `gpus` none of these.
    """
    try:
        named = len(gpu_numbers(gpus))
    except ValueError as error:
        raise ConfigError(f"--gpus {error}") from error
    if processes and named and named != processes:
        raise ConfigError(
            f"gpus {gpus!r} names {named} device{'s' if named > 1 else ''} for {processes} processes: name one for"
            " each, or leave the number of processes (--processes, gpus_per_training) out"
        )
    return processes or named or 1


def needs_gpu(recipe: Hyperparameters) -> bool:
    """Whether it asks for what only GPUs do here."""
    return recipe.compile is not None or recipe.precision == "tf32"


def check_device_suits(recipe: Hyperparameters, gpus: str) -> None:
    """Raise ConfigError where a CPU is to do what only GPUs do here; an empty `gpus` may still find a GPU."""
    if not gpus.strip() or gpu_numbers(gpus):
        return
    if recipe.compile is not None:
        raise ConfigError(
            f"compile is {recipe.compile!r} and gpus is {gpus!r}: torch.compile is for GPUs here, on a CPU the"
            " package's own loops are compiled; leave compile out (null), or choose a GPU"
        )
    if recipe.precision == "tf32":
        raise ConfigError(f"precision is 'tf32' and gpus is {gpus!r}: CPUs have no tf32; use fp32, or choose a GPU")
