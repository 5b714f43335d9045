from pathlib import Path

import numpy as np
import pytest

from recu.base.errors import DataError
from recu.data.prepare.preparation import prepare
from tests.unit.data.builders import WNIDS, dataset, image_bytes, tinyimagenet_files, write_folder, write_tar, write_zip

ROOT = "tiny-imagenet-200"
ENTRY = dataset(kind="tinyimagenet", num_classes=3, image_size=224, augmentation="rotate_flip", family="imagenet")


def run(tmp_path: Path, source: Path, name: str = "data"):
    return prepare("tiny", ENTRY, folder=tmp_path / name, source=source, workers=0).manifest


def test_validation_images_are_sorted_by_their_annotations(tmp_path: Path):
    manifest = run(tmp_path, write_zip(tmp_path / "t.zip", tinyimagenet_files()))
    assert manifest.splits == {"train": 9, "test": 6} and manifest.classes == WNIDS
    assert manifest.stored_size == 64
    assert np.load(tmp_path / "data" / "test_labels.npy").tolist() == [0, 0, 1, 1, 2, 2]
    assert np.load(tmp_path / "data" / "train_images.npy").shape == (9, 64, 64, 3)


def test_zip_tar_folder_and_sorted_tree_agree(tmp_path: Path):
    files = tinyimagenet_files()
    annotations = f"{ROOT}/val/val_annotations.txt"
    class_of = dict(line.split("\t")[:2] for line in files[annotations].decode().splitlines())
    by_class = {
        name.replace("val/images/", f"val/{class_of.get(name.rpartition('/')[2], '')}/"): data
        for name, data in files.items()
        if name != annotations
    }
    sources = [
        write_zip(tmp_path / "t.zip", files),
        write_tar(tmp_path / "t.tar.gz", dict(reversed(files.items())), "w:gz"),
        write_folder(tmp_path / "tree", files) / ROOT,
        write_folder(tmp_path / "sorted", by_class),
    ]
    lines = files[f"{ROOT}/val/val_annotations.txt"]
    edited = {f"{ROOT}/val/val_annotations.txt": b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n")}
    sources.append(write_folder(tmp_path / "edited on Windows", files | edited))
    manifests = [run(tmp_path, source, f"data{number}") for number, source in enumerate(sources)]
    assert len({manifest.fingerprint for manifest in manifests}) == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"val/images/val_2.JPEG": None}, r"names val_2.JPEG, which is not in val/images"),
        ({"val/images/val_9.JPEG": image_bytes(1)}, r"val_9.JPEG has no line in val_annotations.txt"),
        ({"val/val_annotations.txt": None}, r"lacks val/val_annotations.txt"),
        ({"val/val_annotations.txt": b"val_0.JPEG n01440764\n"}, "line 1 of val_annotations.txt"),
        ({"val/val_annotations.txt": b"a.JPEG\tn1\na.JPEG\tn1\n"}, "names a.JPEG twice"),
        ({"wnids.txt": b"n01440764\nn01443537\n"}, r"wnids.txt and the folders below train differ"),
        ({f"train/{WNIDS[1]}/images/{WNIDS[1]}_0.JPEG": b"no image"}, f"unreadable image .*{WNIDS[1]}_0.JPEG"),
    ],
)
def test_bad_archives_are_named(tmp_path: Path, change: dict, text: str):
    files = {**tinyimagenet_files(), **{f"{ROOT}/{name}": data for name, data in change.items()}}
    source = write_zip(tmp_path / "t.zip", {name: data for name, data in files.items() if data is not None})
    with pytest.raises(DataError, match=text):
        run(tmp_path, source)
    assert not (tmp_path / "data").exists()


def sorted_tree(*, level: str = "", keep: tuple[str, ...] = ()) -> dict[str, bytes]:
    """The validation images in val/<wnid>/ plus `level`, as the usual scripts move them; `keep` stay in val/images."""
    files = tinyimagenet_files()
    annotations = files[f"{ROOT}/val/val_annotations.txt"].decode()
    class_of = dict(line.split("\t")[:2] for line in annotations.splitlines())
    for name, wnid in class_of.items():
        if name not in keep:
            files[f"{ROOT}/val/{wnid}/{level}{name}"] = files.pop(f"{ROOT}/val/images/{name}")
    return files


@pytest.mark.parametrize("level", ["", "images/"])
@pytest.mark.parametrize("keep", [(), ("val_1.JPEG", "val_2.JPEG")])
@pytest.mark.parametrize("annotations", [True, False])
@pytest.mark.parametrize("empty_folder", [True, False])
def test_every_way_of_sorting_gives_the_same(
    tmp_path: Path, level: str, keep: tuple[str, ...], annotations: bool, empty_folder: bool
):
    source = write_folder(tmp_path / "sorted", sorted_tree(level=level, keep=keep))
    if empty_folder:
        (source / ROOT / "val/images").mkdir(exist_ok=True)
    if not annotations:
        (source / ROOT / "val/val_annotations.txt").unlink()
    if keep and not annotations:
        with pytest.raises(DataError, match=r"lacks val/val_annotations.txt"):
            run(tmp_path, source)
        return
    expected = run(tmp_path, write_zip(tmp_path / "t.zip", tinyimagenet_files()), "original")
    assert run(tmp_path, source).fingerprint == expected.fingerprint
    assert run(tmp_path, source / ROOT, "deeper").fingerprint == expected.fingerprint


@pytest.mark.parametrize(
    ("moved", "text"),
    [
        ("val_0.JPEG", rf"val/{WNIDS[1]}/val_0.JPEG is of class {WNIDS[0]} according to val_annotations.txt; move"),
        ("val_9.JPEG", rf"val/{WNIDS[1]}/val_9.JPEG has no line in val_annotations.txt; move the image away"),
    ],
)
def test_folders_that_contradict_the_annotations_are_refused(tmp_path: Path, moved: str, text: str):
    files = sorted_tree()
    files[f"{ROOT}/val/{WNIDS[1]}/{moved}"] = files.pop(f"{ROOT}/val/{WNIDS[0]}/val_0.JPEG")
    with pytest.raises(DataError, match=text):
        run(tmp_path, write_zip(tmp_path / "t.zip", files))


def test_an_image_that_was_copied_and_not_moved_is_refused(tmp_path: Path):
    files = sorted_tree() | {f"{ROOT}/val/images/val_0.JPEG": image_bytes(1, (64, 64), "JPEG")}
    with pytest.raises(DataError, match=rf"val/{WNIDS[0]}/val_0.JPEG twice; keep one of them"):
        run(tmp_path, write_zip(tmp_path / "t.zip", files))


def test_the_real_miniature(tmp_path: Path, shared_data: Path):
    entry = ENTRY.model_copy(update={"num_classes": 20, "train_images": 800, "test_images": 300})
    source = shared_data / "tiny-imagenet-mini.zip"
    manifest = prepare("tiny", entry, folder=tmp_path / "data", source=source, workers=2).manifest
    assert np.bincount(np.load(tmp_path / "data" / "train_labels.npy")).tolist() == [40] * 20
    assert manifest.splits["test"] == 300
