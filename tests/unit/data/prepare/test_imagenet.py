import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from recu.base.errors import DataError
from recu.data.index import read_index
from recu.data.manifest import read_manifest
from recu.data.prepare import imagenet, preparation
from recu.data.prepare.imagenet import DEVKIT_ARCHIVE, TRAIN_ARCHIVE, VALIDATION_ARCHIVE, read_devkit
from recu.data.prepare.preparation import prepare
from recu.experiment.schema import Archive
from tests.unit.data.builders import (
    WNIDS,
    class_tree,
    devkit_bytes,
    image_bytes,
    large_dataset,
    tar_bytes,
    write_folder,
    write_imagenet,
    write_tar,
)


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    return write_imagenet(tmp_path / "archives")


def run(folder: Path, source: Path, workers: int = 0, **changes):
    return prepare("imagenet", large_dataset(**changes), folder=folder, source=source, workers=workers).manifest


def test_devkit_gives_classes_of_the_validation_images_and_published_counts(archives: Path):
    devkit = read_devkit(archives / DEVKIT_ARCHIVE)
    assert devkit.validation_classes == (WNIDS[2], WNIDS[1], WNIDS[0], WNIDS[2])
    assert devkit.train_counts == dict.fromkeys(WNIDS, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_from_the_distributed_archives(tmp_path: Path, archives: Path, workers: int):
    manifest = run(tmp_path / "data", archives, workers)
    assert manifest.splits == {"train": 9, "test": 4} and manifest.classes == WNIDS and manifest.storage == "files"
    train, test = read_index(tmp_path / "data", "train"), read_index(tmp_path / "data", "test")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert test.labels.tolist() == [0, 1, 2, 2]
    assert [Path(path).name for path in test.paths] == [f"ILSVRC2012_val_0000000{n}.JPEG" for n in (3, 2, 1, 4)]
    content = {path: (train.root / path).read_bytes() for path in train.paths}
    assert all(data.startswith(b"\xff\xd8") for data in content.values()) and len(set(content.values())) == 9
    assert {path.name for path in tmp_path.iterdir()} == {"archives", "data", ".data.lock"}


def test_a_tree_is_used_where_it_lies_and_has_the_same_fingerprint(tmp_path: Path, archives: Path):
    extracted = run(tmp_path / "a", archives)
    tree = tmp_path / "tree"
    shutil.copytree(tmp_path / "a" / "images", tree)
    indexed = run(tmp_path / "b", tree)
    assert indexed.fingerprint == extracted.fingerprint
    assert read_index(tmp_path / "b", "train").root == tree and not (tmp_path / "b" / "images").exists()
    assert str(tmp_path) not in (tmp_path / "b" / "manifest.json").read_text()


def test_prepared_data_is_recognised_without_looking_at_images(tmp_path: Path, archives: Path, monkeypatch):
    first = run(tmp_path / "data", archives)
    monkeypatch.setattr(preparation, "_build", None)
    assert run(tmp_path / "data", archives) == first


def test_a_class_folder_that_gains_an_image_is_noticed(tmp_path: Path):
    tree = write_folder(tmp_path / "tree", class_tree(WNIDS, suffix="JPEG"))
    first = run(tmp_path / "data", tree)
    write_folder(tree, {f"train/{WNIDS[0]}/new.JPEG": image_bytes(1, kind="JPEG")})
    assert run(tmp_path / "data", tree).splits["train"] == first.splits["train"] + 1


def test_new_statistics_keep_the_extracted_images(tmp_path: Path, archives: Path):
    run(tmp_path / "data", archives)
    image = tmp_path / "data" / read_index(tmp_path / "data", "train").paths[0]
    inode = image.stat().st_ino
    manifest = run(tmp_path / "data", archives, mean=(0.1, 0.1, 0.1), image_size=64)
    assert image.stat().st_ino == inode
    assert manifest.identity["mean"] == [0.1, 0.1, 0.1] and read_manifest(tmp_path / "data") == manifest


def test_an_interrupted_preparation_continues(tmp_path: Path, archives: Path, monkeypatch):
    original, done = imagenet.run_job, []

    def stop_at_third(job):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job.name)
        return original(job)

    monkeypatch.setattr(imagenet, "run_job", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "data", archives)
    assert not (tmp_path / "data").exists()
    continued = []
    monkeypatch.setattr(imagenet, "run_job", lambda job: continued.append(job.name) or original(job))
    manifest = run(tmp_path / "data", archives)
    assert not set(done) & set(continued) and len(done) + len(continued) == 4
    monkeypatch.setattr(imagenet, "run_job", original)
    assert manifest.fingerprint == run(tmp_path / "whole", archives).fingerprint


def test_a_file_lost_from_a_finished_job_is_extracted_again(tmp_path: Path, archives: Path, monkeypatch):
    monkeypatch.setattr(preparation, "_swap", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "data", archives)
    monkeypatch.undo()
    lost = tmp_path / ".data.partial" / "images" / "train" / WNIDS[1] / f"{WNIDS[1]}_1.JPEG"
    lost.write_bytes(b"")
    run(tmp_path / "data", archives)
    index = read_index(tmp_path / "data", "train")
    assert all((index.root / path).stat().st_size > 100 for path in index.paths)


def test_partial_work_of_another_source_is_not_used(tmp_path: Path, archives: Path, monkeypatch):
    monkeypatch.setattr(preparation, "_swap", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "data", archives)
    monkeypatch.undo()
    other = write_imagenet(tmp_path / "other", per_class=2)
    assert run(tmp_path / "data", other).splits["train"] == 6
    assert len(list((tmp_path / "data" / "images" / "train" / WNIDS[0]).iterdir())) == 2


def test_a_truncated_class_tar_is_named_and_nothing_is_taken_for_complete(tmp_path: Path, archives: Path):
    path = archives / TRAIN_ARCHIVE
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(DataError, match=f"{TRAIN_ARCHIVE} is truncated or damaged"):
        run(tmp_path / "data", archives)
    assert not (tmp_path / "data").exists()


def test_damage_inside_a_class_tar_is_named(tmp_path: Path, archives: Path):
    inner = tar_bytes({f"{WNIDS[0]}_0.JPEG": image_bytes(1, kind="JPEG")})[:700]
    members = {f"{WNIDS[0]}.tar": inner, **{f"{wnid}.tar": tar_bytes({}) for wnid in WNIDS[1:]}}
    write_tar(archives / TRAIN_ARCHIVE, members)
    with pytest.raises(DataError, match=rf"{WNIDS[0]}.tar is truncated or damaged"):
        run(tmp_path / "data", archives)


@pytest.mark.parametrize("name", ["../evil.JPEG", "/evil.JPEG", "sub/evil.JPEG"])
def test_class_tars_cannot_write_elsewhere(tmp_path: Path, archives: Path, name: str):
    members = {f"{wnid}.tar": tar_bytes({name: b"evil"}) for wnid in WNIDS}
    write_tar(archives / TRAIN_ARCHIVE, members)
    with pytest.raises(DataError, match=r"unsafe member|expected images only"):
        run(tmp_path / "data", archives)
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("name", [TRAIN_ARCHIVE, VALIDATION_ARCHIVE, DEVKIT_ARCHIVE])
def test_a_missing_archive_is_named(tmp_path: Path, archives: Path, name: str):
    (archives / name).unlink()
    with pytest.raises(DataError, match=f"lacks {name}"):
        run(tmp_path / "data", archives)


def test_a_missing_class_is_noticed(tmp_path: Path, archives: Path):
    write_tar(archives / TRAIN_ARCHIVE, {f"{wnid}.tar": tar_bytes({}) for wnid in WNIDS[:2]})
    with pytest.raises(DataError, match=r"holds 2 class tars \(2 different\), expected 3"):
        run(tmp_path / "data", archives)


def test_a_class_with_fewer_images_than_published_is_named(tmp_path: Path, archives: Path):
    counts = {**dict.fromkeys(WNIDS, 3), WNIDS[1]: 5}
    (archives / DEVKIT_ARCHIVE).write_bytes(devkit_bytes(counts, [1, 2, 3, 1]))
    with pytest.raises(DataError, match=f"class {WNIDS[1]} has 3 train images, the devkit says 5"):
        run(tmp_path / "data", archives)


def pairs_tar(path: Path, files: list[tuple[str, bytes]]) -> bytes:
    """A tar that may name a file twice, as one does that was appended to."""
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path.read_bytes()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_twice_in_place_of_a_missing_one_is_refused(tmp_path: Path, archives: Path, workers: int):
    """The numbers of images are then those of the devkit."""
    images = [(f"{WNIDS[1]}_{number}.JPEG", image_bytes(number, kind="JPEG")) for number in (0, 1, 1)]
    classes = {
        f"{wnid}.tar": tar_bytes({f"{wnid}_{n}.JPEG": image_bytes(n, kind="JPEG") for n in range(3)}) for wnid in WNIDS
    }
    classes[f"{WNIDS[1]}.tar"] = pairs_tar(tmp_path / "class.tar", images)
    write_tar(archives / TRAIN_ARCHIVE, classes)
    with pytest.raises(DataError, match=f"{WNIDS[1]}.tar holds '{WNIDS[1]}_1.JPEG' twice; fetch {TRAIN_ARCHIVE} again"):
        run(tmp_path / "data", archives, workers)


def test_a_validation_image_or_a_part_of_the_devkit_twice_is_refused(tmp_path: Path, archives: Path):
    names = [f"ILSVRC2012_val_{number:08}.JPEG" for number in (1, 2, 3, 4)]
    images = [(name, image_bytes(number, kind="JPEG")) for number, name in enumerate([*names, f"more/{names[0]}"])]
    good = (archives / VALIDATION_ARCHIVE).read_bytes()
    pairs_tar(archives / VALIDATION_ARCHIVE, images)
    with pytest.raises(DataError, match=f"holds {names[0]} twice; fetch it again"):
        run(tmp_path / "data", archives)
    (archives / VALIDATION_ARCHIVE).write_bytes(good)
    with tarfile.open(archives / DEVKIT_ARCHIVE) as tar:
        parts = [(info.name, tar.extractfile(info).read()) for info in tar if info.isfile()]
    pairs_tar(archives / DEVKIT_ARCHIVE, [*parts, parts[-1]])
    with pytest.raises(DataError, match="twice; fetch it again"):
        run(tmp_path / "data", archives)


def test_missing_validation_images_are_noticed(tmp_path: Path, archives: Path):
    images = {f"ILSVRC2012_val_{number:08}.JPEG": image_bytes(number, kind="JPEG") for number in (1, 2)}
    write_tar(archives / VALIDATION_ARCHIVE, images)
    with pytest.raises(DataError, match="holds 2 images, the devkit's ground truth 4"):
        run(tmp_path / "data", archives)


def test_published_checksums_are_verified_once(tmp_path: Path, archives: Path, monkeypatch):
    published = tuple(
        Archive(url="", filename=name, checksum="md5:" + hashlib.md5((archives / name).read_bytes()).hexdigest())
        for name in (TRAIN_ARCHIVE, VALIDATION_ARCHIVE, DEVKIT_ARCHIVE)
    )
    run(tmp_path / "data", archives, archives=published)
    wrong = (*published[:2], published[2].model_copy(update={"checksum": "md5:00"}))
    with pytest.raises(DataError, match=rf"{DEVKIT_ARCHIVE} is whole, but another .* md5 .* and 00"):
        run(tmp_path / "other", archives, archives=wrong)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"val/loose.JPEG": b"x"}, r"val has no class folders \(its images lie in it directly\)"),
        ({}, "has no test images"),
    ],
)
def test_trees_without_class_folders_for_validation(tmp_path: Path, change: dict, text: str):
    files = {name: data for name, data in class_tree(WNIDS, suffix="JPEG").items() if name.startswith("train")}
    tree = write_folder(tmp_path / "tree", {**files, **change})
    with pytest.raises(DataError, match=text):
        run(tmp_path / "data", tree)


@pytest.mark.parametrize("names", [("tench", "goldfish", "shark"), ("0", "1", "10"), ("n01440764", "n01443537", "n2")])
def test_folders_that_are_not_called_by_wordnet_ids_are_refused(tmp_path: Path, names: tuple[str, ...]):
    """Sorted by other names, labels would not be those that published networks were trained on."""
    tree = write_folder(tmp_path / "tree", class_tree(names, suffix="JPEG"))
    with pytest.raises(DataError, match=r"is not called by a WordNet id like n01440764.*kind imagefolder"):
        run(tmp_path / "data", tree)
    assert run(tmp_path / "data", tree, kind="imagefolder").classes == tuple(sorted(names))


def test_a_tree_with_an_empty_class_is_refused(tmp_path: Path):
    tree = write_folder(tmp_path / "tree", class_tree(WNIDS, suffix="JPEG"))
    for image in (tree / "test" / WNIDS[1]).iterdir():
        image.unlink()
    with pytest.raises(DataError, match=f"class folder test/{WNIDS[1]} has no images"):
        run(tmp_path / "data", tree)


def test_images_that_moved_away_are_named(tmp_path: Path):
    tree = write_folder(tmp_path / "tree", class_tree(WNIDS, suffix="JPEG"))
    run(tmp_path / "data", tree)
    tree.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="which does not exist"):
        read_index(tmp_path / "data", "train")


def test_large_images_of_a_class_folder_archive_are_extracted(tmp_path: Path):
    archive = write_tar(tmp_path / "x.tar", class_tree(WNIDS, suffix="JPEG"))
    manifest = run(tmp_path / "data", archive, kind="imagefolder")
    index = read_index(tmp_path / "data", "train")
    assert manifest.storage == "files" and all((index.root / path).is_file() for path in index.paths)
    assert np.bincount(index.labels).tolist() == [3, 3, 3]
