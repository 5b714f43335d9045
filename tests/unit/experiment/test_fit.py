"""What goes together, each rule once."""

from typing import get_args

import pytest

from recu.base.errors import ConfigError
from recu.experiment import fit
from recu.experiment.augmentations import BATCH_AUGMENTATIONS, CROP_SCALES, Augmentation
from recu.experiment.loaders import LOADERS, LoaderKind, LoaderName
from recu.experiment.params import load_datasets, load_defaults
from recu.experiment.paths import PARAMS_DIR
from recu.experiment.schema import Dataset

DIGITS = load_datasets(PARAMS_DIR)["digits"]
IMAGENET = load_datasets(PARAMS_DIR)["imagenet"]


def dataset(**changes) -> Dataset:
    return DIGITS.model_copy(update=changes)


@pytest.mark.parametrize(("batch_size", "train_images"), [(8, 81), (80, 81), (256, 257), (2, 3), (8, 25), (8, 1)])
def test_a_batch_of_one_image_is_refused(batch_size, train_images):
    with pytest.raises(ConfigError, match=f"batch_size: {batch_size} leaves one of {train_images} training images"):
        fit.check_batch_size(batch_size, train_images)


@pytest.mark.parametrize(("batch_size", "train_images"), [(8, 80), (8, 82), (8, 26), (8, 8), (256, 80), (2, 2)])
def test_other_batch_sizes_pass_larger_ones_than_the_split_included(batch_size, train_images):
    fit.check_batch_size(batch_size, train_images)


def test_a_recipe_is_checked_against_the_expected_number_of_images_where_there_is_one():
    recipe = load_defaults(PARAMS_DIR).hyperparameters
    with pytest.raises(ConfigError, match="leaves one of 257"):
        fit.fitted(recipe, dataset(train_images=257))
    fit.fitted(recipe, dataset(train_images=None))


@pytest.mark.parametrize(
    ("loader", "augmentation", "meant"),
    [
        ("auto", "crop", "memory"),
        ("auto", "rotate_flip", "torchvision"),
        ("memory", "none", "memory"),
        ("torchvision", "crop", "torchvision"),
    ],
)
def test_loaders_of_images_kept_as_arrays(loader, augmentation, meant):
    assert fit.choose_loader(loader, dataset(augmentation=augmentation), "arrays") == meant
    assert fit.choose_loader(loader, DIGITS, "arrays", augmentation) == meant


@pytest.mark.parametrize(("loader", "meant"), [("auto", "torchvision"), ("dali", "dali")])
def test_loaders_of_images_kept_as_files(loader, meant):
    assert fit.choose_loader(loader, IMAGENET, "files") == meant


@pytest.mark.parametrize(
    ("loader", "storage", "augmentation", "message"),
    [
        ("memory", "files", "crop", "loader 'memory' cannot serve Digits: it takes images kept as arrays, and these"),
        ("memory", "arrays", "rotate_flip", r"augmentation none, crop.*, crop_flip, and this is 'rotate_flip'; choose"),
        (
            "dali",
            "arrays",
            "crop",
            "'dali' cannot serve Digits: it takes images kept as files, .* it takes augmentation",
        ),
        ("dali", "arrays", "resized_crop_lighting", "these are kept as arrays; choose 'auto' or 'torchvision'"),
        ("dali", "files", "crop_flip", "serve Digits: it takes augmentation resized_crop_lighting, .*'crop_flip'; ch"),
        ("memroy", "arrays", "crop", "unknown loader 'memroy'; did you mean 'memory'"),
    ],
)
def test_a_loader_that_cannot_serve_the_dataset_is_refused(loader, storage, augmentation, message):
    with pytest.raises(ConfigError, match=message):
        fit.choose_loader(loader, dataset(augmentation=augmentation), storage)


def test_test_images_are_seen_as_the_dataset_says_or_its_own_augmentation_implies():
    assert dataset(augmentation="crop").seen_as == "resize"
    assert dataset(augmentation="resized_crop_lighting").seen_as == "resize_centre"
    assert dataset(augmentation="crop", test_view="resize_centre").identity()["test_view"] == "resize_centre"


def test_memory_holds_no_images_that_must_be_enlarged():
    for kind in ("tinyimagenet", "cifar10", "cifar100"):
        assert fit.choose_loader("auto", dataset(kind=kind, image_size=224), "arrays", "crop") == "torchvision"
    assert fit.choose_loader("auto", dataset(test_view="resize_centre"), "arrays", "crop") == "torchvision"


def test_a_loader_that_shows_test_images_alone_need_not_know_the_augmentation():
    rotated = dataset(augmentation="rotate_flip")
    assert fit.choose_loader("memory", rotated, "arrays", trains=False) == "memory"
    assert fit.choose_loader("auto", rotated, "arrays", trains=False) == "torchvision"
    with pytest.raises(ConfigError, match="kept as files, and these are kept as arrays; choose"):
        fit.choose_loader("dali", rotated, "arrays", trains=False)


@pytest.mark.parametrize("augmentation", get_args(Augmentation))
@pytest.mark.parametrize(("kind", "side"), [("digits", 32), ("cifar10", 32), ("cifar100", 32), ("tinyimagenet", 64)])
def test_kinds_that_are_decoded_once_are_arrays_whatever_the_augmentation(kind, side, augmentation):
    entry = dataset(kind=kind, augmentation=augmentation)
    assert (fit.storage_of(entry), fit.stored_size_of(entry)) == ("arrays", side)
    assert fit.storage_of(dataset(kind="imagenet", augmentation=augmentation)) == "files"
    as_files = augmentation in CROP_SCALES
    assert fit.storage_of(dataset(kind="imagefolder", augmentation=augmentation)) == ("files" if as_files else "arrays")


def test_a_training_that_names_dali_is_refused_where_images_are_arrays_before_anything_is_prepared():
    recipe = load_defaults(PARAMS_DIR).hyperparameters.model_copy(update={"loader": "dali"})
    with pytest.raises(ConfigError, match=r"'dali' cannot serve Digits: .* these are kept as arrays; choose"):
        fit.fitted(recipe, dataset(augmentation="resized_crop_lighting"))


def test_every_loader_stands_in_the_table_and_one_serves_everything_by_itself():
    assert ("auto", *LOADERS) == get_args(LoaderName)
    assert any(kind == LoaderKind(kind.builder, automatic=True) for kind in LOADERS.values())


def test_every_augmentation_is_of_one_kind():
    assert sorted([*BATCH_AUGMENTATIONS, *CROP_SCALES, "rotate_flip"]) == sorted(get_args(Augmentation))


@pytest.mark.parametrize(("parent", "stage"), [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)])
def test_a_network_starts_from_one_that_binarises_no_more(parent, stage):
    fit.check_initial_stage("it", parent, stage)
    if parent != stage:
        with pytest.raises(ConfigError, match=f"it has stage {stage}, and a network of stage {parent} starts"):
            fit.check_initial_stage("it", stage, parent)


def test_a_pretrained_teacher_knows_the_datasets_classes():
    fit.check_pretrained_teacher("resnet34", 1000, has_weights=False)
    fit.check_pretrained_teacher("resnet34", 10, has_weights=True)
    with pytest.raises(ConfigError, match=r"resnet34 has 1000 classes, the dataset has 10: give .*teacher_weights"):
        fit.check_pretrained_teacher("resnet34", 10, has_weights=False)
    fit.check_pretrained_teacher("vit_h_14", 10, has_weights=True)
    with pytest.raises(ConfigError, match=r"unknown teacher .*'vit_h_14'"):
        fit.check_pretrained_teacher("vit_h_14", 1000, has_weights=False)
    with pytest.raises(ConfigError, match=r"unknown teacher .*'resnet43'; did you mean 'resnet34'"):
        fit.check_pretrained_teacher("resnet43", 1000, has_weights=False)


@pytest.mark.parametrize("gpus", ["cpu", " CPU "])
def test_compilation_and_tf32_on_a_cpu_are_refused(gpus):
    recipe = load_defaults(PARAMS_DIR).hyperparameters
    with pytest.raises(ConfigError, match=r"compile is 'kernels' and gpus is .*torch.compile is for GPUs"):
        fit.check_device_suits(recipe.model_copy(update={"compile": "kernels"}), gpus)
    with pytest.raises(ConfigError, match=r"precision is 'tf32' and gpus is .*: CPUs have no tf32"):
        fit.check_device_suits(recipe.model_copy(update={"precision": "tf32"}), gpus)
    fit.check_device_suits(recipe, gpus)


@pytest.mark.parametrize("gpus", ["", "0", "0,1"])
def test_compilation_and_tf32_where_a_gpu_may_be_pass(gpus):
    recipe = load_defaults(PARAMS_DIR).hyperparameters
    fit.check_device_suits(recipe.model_copy(update={"compile": "kernels", "precision": "tf32"}), gpus)


@pytest.mark.parametrize("start_epoch", [-1, 3, 4])
def test_a_first_epoch_that_the_training_has_not_is_refused(start_epoch):
    fit.check_start_epoch(2, 3)
    with pytest.raises(ConfigError, match=f"start_epoch is {start_epoch}, expected 0 to 2"):
        fit.check_start_epoch(start_epoch, 3)


@pytest.mark.parametrize(("batch", "images", "parts"), [(256, 50_000, 7), (8, 30, 2), (8, 30, 3), (16, 9, 2)])
def test_batches_that_devices_can_share(batch, images, parts):
    fit.check_batch_size(batch, images, parts)


@pytest.mark.parametrize(
    ("batch", "images", "parts", "of"), [(8, 26, 2, 2), (9, 90, 4, None), (7, 70, 3, 7), (4, 40, 4, 4), (16, 3, 2, 3)]
)
def test_a_part_of_one_image_is_refused(batch, images, parts, of):
    if of is None:  # 3, 3, 3 and none
        fit.check_batch_size(batch, images, parts)
        return
    with pytest.raises(ConfigError, match=f"{parts} devices leave one of a batch's {of} images"):
        fit.check_batch_size(batch, images, parts)


def test_devices_are_those_named_or_asked_for():
    assert [fit.devices_of(*each) for each in (("", 0), ("cpu", 2), ("0,1", 0), ("0,1", 2), ("3", 0))] == [
        1,
        2,
        2,
        2,
        1,
    ]
    with pytest.raises(ConfigError, match="names 2 devices for 3 processes"):
        fit.devices_of("0,1", 3)
