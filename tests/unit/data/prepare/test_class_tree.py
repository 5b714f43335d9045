"""One rule for what counts as an image, where it lies and which class it has, in every form of a source."""

import io
import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from recu.base.errors import DataError
from recu.data.prepare import class_tree
from recu.data.prepare.class_tree import read_tree
from recu.data.prepare.preparation import prepare
from tests.unit.data.builders import class_tree as small_tree
from tests.unit.data.builders import dataset, image_bytes, write_folder, write_tar, write_zip

FORMS = ("folder", "tar", "zip")
E_ONE, E_TWO = unicodedata.normalize("NFC", "caf\u00e9"), unicodedata.normalize("NFD", "caf\u00e9")


def write(tmp_path: Path, form: str, files: dict[str, bytes]) -> Path:
    path = tmp_path / f"source.{form}"
    return {"folder": write_folder, "tar": write_tar, "zip": write_zip}[form](path, files)


def listed(tree: class_tree.ClassTree) -> dict[str, list[tuple[str, str]]]:
    return {split: [(image.class_name, image.file) for image in images] for split, images in tree.splits.items()}


@pytest.mark.parametrize("form", FORMS)
def test_images_in_folders_below_a_class_count(tmp_path: Path, form: str) -> None:
    files = {**small_tree(), "test/ant/more/9.png": image_bytes(9), "test/ant/more/still/9.png": image_bytes(9)}
    tree = read_tree(write(tmp_path, form, files), 2)
    ants = [("ant", "0.png"), ("ant", "1.png"), ("ant", "more/9.png"), ("ant", "more/still/9.png")]
    assert listed(tree)["test"] == [*ants, ("bee", "0.png"), ("bee", "1.png")]
    assert tree.notes == ()


@pytest.mark.parametrize("form", FORMS)
def test_what_file_managers_leave_never_counts_and_is_said(tmp_path: Path, form: str) -> None:
    files = small_tree()
    for name, content in small_tree().items():
        folder, _, last = name.rpartition("/")
        files |= {
            f"{folder}/@eaDir/{last}/SYNOPHOTO_THUMB_M.jpg": content,
            f"{folder}/.ipynb_checkpoints/{last}": content,
            f"__MACOSX/{folder}/._{last}": b"junk",
            f"{folder}/._{last}": b"junk",
            f"{folder}/Thumbs.db": content,
            f"{folder}/desktop.ini": b"junk",
            f"{folder}/LICENSE": b"BM is no bitmap",
        }
    files |= {"train/@eaDir/ant/0.png": image_bytes(1), "test/.thumbnails/0.png": image_bytes(1)}
    tree = read_tree(write(tmp_path, form, files), 2)
    assert listed(tree) == listed(read_tree(write_folder(tmp_path / "clean", small_tree()), 2))
    assert tree.notes == (
        "left out as no images: 4 .db, 4 .ini, 4 without a suffix",
        "left out hidden files and folders: 10 ._*, 5 @eaDir, 4 .ipynb_checkpoints, 1 .thumbnails",
    )


@pytest.mark.parametrize("form", FORMS)
def test_copies_that_programs_leave_beside_an_image_do_not_count(tmp_path: Path, form: str) -> None:
    copies = {f"test/ant/0.png{end}": image_bytes(3) for end in ("~", ".bak", ".orig", ".old")}
    tree = read_tree(write(tmp_path, form, small_tree() | copies | {"test/ant/0.THM": image_bytes(4)}), 2)
    assert listed(tree) == listed(read_tree(write_folder(tmp_path / "clean", small_tree()), 2))
    assert tree.notes == ("left out as no images: 1 .bak, 1 .old, 1 .orig, 1 .png~, 1 .thm",)


@pytest.mark.parametrize("form", FORMS)
def test_the_suffix_decides_or_the_first_bytes_do(tmp_path: Path, form: str) -> None:
    names = ("a.jfif", "b.JPE", "c.JPEG", "d", "e.jpeg2000", "f.png_1", "g.avif", "h.PnG", "i.jpg!large", "j.tmp")
    files = small_tree() | {f"test/ant/{name}": image_bytes(1, kind="JPEG") for name in names}
    tree = read_tree(write(tmp_path, form, files), 2)
    assert [image.file for image in tree.splits["test"] if image.class_name == "ant"] == ["0.png", "1.png", *names]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"])
def test_every_format_is_known_by_its_first_bytes(kind: str) -> None:
    feature = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}.get(kind)
    if feature and not features.check(feature):
        pytest.skip(f"this Pillow reads no {kind}")
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, kind)
    found = class_tree.image_format_of(stream.getvalue()[:64])
    assert found == kind and class_tree.unreadable_format(found) is None


UNUSABLE = {
    "x.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIF image; convert it"),
    "x": (b"\xff\x0a\0\0\0", "it is a JPEG XL image; convert it"),
    "x.psd": (b"8BPS\0\1", "it is a Photoshop image; convert it"),
    "x.NEF": (b"MM\0*\0\0", "it is a camera's raw image; convert it"),
    "x.png": (b"", "the file is empty; replace it"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", UNUSABLE)
def test_images_that_cannot_be_used_are_refused_not_left_out(tmp_path: Path, form: str, name: str) -> None:
    content, text = UNUSABLE[name]
    source = write(tmp_path, form, small_tree() | {f"test/ant/{name}": content})
    with pytest.raises(DataError, match=f"unreadable image .*test/ant/{name}: {text}"):
        read_tree(source, 2)


@pytest.mark.parametrize("form", FORMS)
def test_an_image_of_absurd_size_is_refused_before_it_is_read(tmp_path: Path, form: str, monkeypatch) -> None:
    monkeypatch.setattr(class_tree, "MAX_IMAGE_BYTES", 1000)
    source = write(tmp_path, form, small_tree() | {"test/ant/9.png": bytes(1001)})
    with pytest.raises(DataError, match=r"9\.png.* 1001 bytes, more than the 1000"):
        read_tree(source, 2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("top", ["", "flowers/", "data/v1/", "ILSVRC/Data/CLS-LOC/"])
@pytest.mark.parametrize("names", [("train", "val"), ("Train", "Test"), ("TRAIN", "valid"), ("training", "validation")])
def test_the_splits_lie_somewhat_deeper_and_have_other_names(
    tmp_path: Path, form: str, top: str, names: tuple[str, str]
) -> None:
    train, test = names
    files = {
        name.replace("train/", f"{train}/").replace("test/", f"{test}/"): data for name, data in small_tree().items()
    }
    source = write(tmp_path, form, {f"{top}{name}": data for name, data in files.items()})
    assert {split: len(images) for split, images in read_tree(source, 2).splits.items()} == {"train": 6, "test": 4}


@pytest.mark.parametrize("form", FORMS)
def test_annotations_beside_the_images_are_no_second_split(tmp_path: Path, form: str) -> None:
    files = {f"Data/{name}": content for name, content in small_tree().items()}
    files |= {f"Annotations/{name}.xml": b"<x/>" for name in small_tree()}
    assert len(read_tree(write(tmp_path, form, files), 2).splits["train"]) == 6


@pytest.mark.parametrize("form", FORMS)
def test_an_unlabelled_test_folder_is_left_out_and_said(tmp_path: Path, form: str) -> None:
    files = {name.replace("test/", "val/"): content for name, content in small_tree().items()}
    files |= {f"test/{number}.png": image_bytes(number) for number in range(3)}
    tree = read_tree(write(tmp_path, form, files), 2)
    assert len(tree.splits["test"]) == 4
    assert tree.notes == ("left out test: its 3 images lie in no class folders",)


BAD = [
    ({"val/ant/0.png": image_bytes(1)}, "has both '(test|val)' and '(test|val)'.*: move one away"),
    ({"Train/ant/0.png": image_bytes(1)}, "has both 'T?t?rain' and 'T?t?rain'"),
    (
        {"test/Ant/0.png": image_bytes(1)},
        "class 'Ant' is among the test images but not the train .*, which have 'ant'",
    ),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("change", "text"), BAD)
def test_contradictions_are_one_line(tmp_path: Path, form: str, change: dict, text: str) -> None:
    with pytest.raises(DataError, match=text):
        read_tree(write(tmp_path, form, small_tree() | change), 2)


@pytest.mark.parametrize("augmentation", ["crop_flip", "resized_crop_lighting"])
def test_a_folder_with_links_to_the_meant_splits_is_read_as_the_message_advises(
    tmp_path: Path, augmentation: str
) -> None:
    source = write_folder(tmp_path / "three", small_tree() | {"val/ant/0.png": image_bytes(1)})
    entry, meant = dataset(augmentation=augmentation), tmp_path / "meant"
    with pytest.raises(DataError, match="or give a folder with links to the folders that are meant"):
        prepare("x", entry, folder=tmp_path / "data", source=source, workers=0)
    meant.mkdir()
    for split in ("train", "test"):
        (meant / split).symlink_to(source / split)
    manifest = prepare("x", entry, folder=tmp_path / "data", source=meant, workers=0).manifest
    assert manifest.splits == {"train": 6, "test": 4}


@pytest.mark.parametrize("form", FORMS)
def test_splits_of_two_datasets_are_not_mixed(tmp_path: Path, form: str) -> None:
    files = {f"{name.split('/')[0]}-set/{name}": content for name, content in small_tree().items()}
    with pytest.raises(DataError, match="'test-set/test' and 'train-set/train', expected them side by side"):
        read_tree(write(tmp_path, form, files), 2)


@pytest.mark.parametrize("form", FORMS)
def test_a_dataset_in_a_folder_called_like_a_split_is_not_measured_on_its_training_images(tmp_path: Path, form: str):
    source = write(tmp_path, form, {f"test/{name}": data for name, data in small_tree().items()})
    with pytest.raises(
        DataError, match=r"test holds test and train, which are called like splits.*give the folder test"
    ):
        read_tree(source, 2, needed=("test",))


@pytest.mark.parametrize("form", FORMS)
def test_a_flat_validation_folder_says_what_to_do(tmp_path: Path, form: str) -> None:
    files = {name: content for name, content in small_tree().items() if name.startswith("train")}
    files |= {f"val/{number}.JPEG": image_bytes(number) for number in range(5)}
    source = write(tmp_path, form, files)
    with pytest.raises(
        DataError, match=r"val has no class folders .*classes of its 5 images .*sort them into val/<class>"
    ):
        read_tree(source, 2)


@pytest.mark.parametrize("form", FORMS)
def test_one_class_name_spelled_in_two_unicode_forms_is_one_class(tmp_path: Path, form: str) -> None:
    files = {f"train/{E_ONE}/0.png": image_bytes(1), f"test/{E_TWO}/0.png": image_bytes(2)}
    assert read_tree(write(tmp_path, form, files), 1).classes == (E_ONE,)


@pytest.mark.parametrize("form", FORMS)
def test_two_class_folders_that_read_the_same_are_refused(tmp_path: Path, form: str) -> None:
    files = {f"{split}/{name}/0.png": image_bytes(1) for split in ("train", "test") for name in (E_ONE, E_TWO)}
    with pytest.raises(DataError, match=r"two class folders that read the same, 'cafe?\\.*' and 'cafe?\\.*'; put"):
        read_tree(write(tmp_path, form, files), 2)


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_names_that_are_no_utf8_are_listed_and_their_classes_can_be_written_down(tmp_path: Path, form: str) -> None:
    odd = os.fsdecode(b"caf\xe9")
    files = {
        f"{split}/{odd}/{odd}{number}.png": image_bytes(number) for split in ("train", "test") for number in (1, 2)
    }
    tree = read_tree(write(tmp_path, form, files), 1)
    assert tree.classes == ("caf\\xe9",)
    assert listed(tree)["test"] == [("caf\\xe9", f"{odd}1.png"), ("caf\\xe9", f"{odd}2.png")]


def test_zips_of_other_programs_are_read(tmp_path: Path) -> None:
    files = {name.replace("ant", "caf\u00e9"): content for name, content in small_tree().items()}
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name.replace("/", "\\")), content)
    unmarked = tmp_path / "unmarked.zip"
    write_zip(unmarked, files)
    data = bytearray(unmarked.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag that says UTF-8
        position = data.find(mark)
        while position >= 0:
            data[position + offset + 1] &= ~8
            position = data.find(mark, position + 1)
    unmarked.write_bytes(data)
    expected = read_tree(write_folder(tmp_path / "folder", files), 2)
    for name in ("windows.zip", "unmarked.zip"):
        found = read_tree(tmp_path / name, 2)
        assert (found.classes, listed(found)) == (expected.classes, listed(expected))


def test_a_link_that_leads_nowhere_is_named_itself(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", small_tree())
    (source / "test/ant/7.png").symlink_to("../gone.png")
    with pytest.raises(DataError, match=r"test/ant/7\.png is a link to \.\./gone\.png, which does not exist"):
        read_tree(source, 2)


def test_linked_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    elsewhere = write_folder(tmp_path / "elsewhere", small_tree())
    (tmp_path / "source").mkdir()
    for split in ("train", "test"):
        (tmp_path / "source" / split).symlink_to(elsewhere / split)
    assert len(read_tree(tmp_path / "source", 2).splits["test"]) == 4
    (elsewhere / "test/ant/again").symlink_to(elsewhere / "test")
    with pytest.raises(DataError, match="test/ant/again links back to a folder that holds it"):
        read_tree(tmp_path / "source", 2)


@pytest.mark.parametrize("augmentation", ["crop_flip", "resized_crop_lighting"])
def test_all_forms_prepare_to_the_same_in_both_storages(tmp_path: Path, augmentation: str) -> None:
    files = small_tree() | {
        "test/ant/more/9.png": image_bytes(9),
        "test/ant/@eaDir/0.png/x.jpg": image_bytes(9),
        "test/ant/8": image_bytes(8),
        "test/ant/Thumbs.db": b"x",
        "test/ant/.8.png": b"x",
    }
    entry = dataset(augmentation=augmentation)
    prepared = [
        prepare("x", entry, folder=tmp_path / form, source=write(tmp_path, form, files), workers=0) for form in FORMS
    ]
    manifests = [each.manifest for each in prepared]
    assert [manifest.splits for manifest in manifests] == [{"train": 6, "test": 6}] * 3
    assert len({manifest.fingerprint for manifest in manifests}) == 1
    assert {manifest.notes for manifest in manifests} == {
        ("left out as no images: 1 .db", "left out hidden files and folders: 1 .8.png, 1 @eaDir")
    }
    assert np.load(tmp_path / "tar" / "test_labels.npy").tolist() == [0, 0, 0, 0, 1, 1]
