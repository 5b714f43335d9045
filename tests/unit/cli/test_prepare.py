"""`recu prepare`."""

import os
import re
import shutil
import tarfile

import pytest

from recu.data import build_loaders, open_prepared
from recu.experiment.params import load_datasets


def test_prepares_once_and_copies_the_manifest(recu):
    words = ["prepare", "tiny", "--source", recu.project / "images", "--params_dir", recu.project / "params"]
    assert recu(*words, "--workers", 1, "--output", "results/prepare/tiny/manifest.json") == 0, recu.err
    assert "Tiny: 48 train images, 18 test images, 6 classes" in recu.out
    manifest = recu.json("results/prepare/tiny/manifest.json")
    assert manifest["fingerprint"] == recu.json("data/tiny/manifest.json")["fingerprint"]
    images = recu.folder / "data/tiny/train_images.npy"
    before = images.stat().st_mtime_ns
    assert recu(*words) == 0
    assert images.stat().st_mtime_ns == before


def test_an_unknown_dataset_proposes_the_nearest(recu):
    assert recu("prepare", "tinny", "--params_dir", recu.project / "params") == 2
    assert "did you mean 'tiny'?" in recu.error()


def test_batch_sizes_are_checked_once_the_images_are_counted(recu):
    words = ["prepare", "tiny", "--source", recu.project / "images", "--params_dir", recu.project / "params"]
    output = ["--output", "manifest.json"]
    assert recu(*words, *output, "--batch_sizes", "tiny:16", "other:47") == 0, recu.err
    assert recu(*words, "--batch_sizes", "tiny:16", "tiny:47") == 2
    assert "batch_size: 47 leaves one of 48 training images" in recu.error()
    assert recu(*words, "--batch_sizes", "47") == 2
    assert "--batch_sizes 47: expected DATASET:N" in recu.error()


@pytest.mark.parametrize("option", [["--only_test"], ["--test_is_enough_for", "other", "tiny"]])
def test_a_source_without_training_images_is_prepared_on_request(recu, option):
    only = recu.folder / "only"
    shutil.copytree(recu.project / "images/test", only / "test")
    words = ["prepare", "tiny", "--source", only, "--params_dir", recu.project / "params"]
    for more in ([], ["--test_is_enough_for"], ["--test_is_enough_for", "other"]):
        assert recu(*words, *more) == 2
        assert "has no train images" in recu.error() and "--only_test" in recu.error()
    assert recu(*words, *option) == 0, recu.err
    assert "Tiny: 18 test images, 6 classes" in recu.out


@pytest.mark.parametrize("form", ["folder", "tar"])
@pytest.mark.parametrize("storage", ["arrays", "files"])
def test_names_that_are_no_utf8_work_from_end_to_end(recu, form: str, storage: str):
    odd = os.fsdecode(b"d\xe9p\xf4t")
    source, params = recu.folder / odd, recu.folder / "params"
    shutil.copytree(recu.project / "images", source)
    shutil.copytree(recu.project / "params", params)
    if storage == "files":
        text = (params / "datasets.yaml").read_text()
        (params / "datasets.yaml").write_text(re.sub(r"augmentation: \w+", "augmentation: resized_crop_lighting", text))
    for split in ("train", "test"):
        (source / split / "class0").rename(source / split / odd)
    image = next((source / "train" / odd).iterdir())
    image.rename(image.with_name(f"{odd}.png"))
    if form == "tar":
        with tarfile.open(f"{odd}.tar", "w") as archive:
            archive.add(source, ".")
        source = recu.folder / f"{odd}.tar"
    words = ["--params_dir", params, "--workers", 0]
    assert recu("prepare", "tiny", "--source", source, *words) == 0, recu.err
    assert "d\\xe9p\\xf4t" in recu.json("data/tiny/manifest.json")["classes"]
    dataset = load_datasets(params)["tiny"]
    settings = {"batch_size": 16, "batch_size_test": 16, "loader": "auto", "seed": 1, "device": "cpu", "workers": 0}
    loaders = build_loaders(open_prepared(recu.folder / "data/tiny", dataset), dataset, **settings)
    assert sum(len(labels) for _, labels in loaders.train.batches(0)) == 48


def test_a_broken_image_with_a_name_that_is_no_utf8_is_named_in_one_line(recu):
    source = recu.folder / "images"
    shutil.copytree(recu.project / "images", source)
    (source / "train/class0" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no image")
    assert recu("prepare", "tiny", "--source", source, "--params_dir", recu.project / "params") == 2
    assert "unreadable image" in recu.error() and "caf\\xe9.png: it is a text file" in recu.error()
