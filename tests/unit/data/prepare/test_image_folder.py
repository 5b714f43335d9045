import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recu.base.errors import DataError
from recu.data.decoding import EncodedChunk, decode_chunk, fit_square, map_in_processes
from recu.data.prepare.class_tree import place_of
from recu.data.prepare.content import Request
from recu.data.prepare.image_folder import decode_image_folder
from tests.unit.data.builders import class_tree, dataset, image_bytes, write_folder, write_tar, write_zip


def decode(source: Path, out: Path, *, size: int = 8, num_classes: int = 2, workers: int = 0):
    out.mkdir(exist_ok=True)
    request = Request("mini", dataset(num_classes=num_classes), source, workers, ("train", "test"))
    return decode_image_folder(request, out, size=size)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train/ant/1.png", ("", "train", "ant", "1.png")),
        ("top/val/bee/1.png", ("top", "val", "bee", "1.png")),
        ("train/test/1.png", ("", "train", "test", "1.png")),
        ("test/ant", ("", "test", "ant", "")),
    ],
)
def test_place_of(name: str, expected: tuple):
    place = place_of(name)
    assert (place.top, place.split_folder, place.class_name, place.file) == expected


@pytest.mark.parametrize(
    "name", ["README", "train", "a/b/c/d/train/ant/1.png", "train/.hidden/1.png", "__MACOSX/train/a/1.png"]
)
def test_place_of_what_belongs_to_no_class(name: str):
    assert place_of(name) is None


def test_every_form_gives_identical_arrays_in_class_and_name_order(tmp_path: Path):
    files = class_tree()
    shuffled = dict(reversed(files.items()))
    below_top = {f"mini/{name}": content for name, content in shuffled.items()}
    sources = [
        write_folder(tmp_path / "folder", files),
        write_tar(tmp_path / "x.tar", shuffled),
        write_tar(tmp_path / "x.tar.gz", below_top, "w:gz"),
        write_zip(tmp_path / "x.zip", below_top),
    ]
    results = [decode(source, tmp_path / f"out{index}") for index, source in enumerate(sources)]
    assert all(result == results[0] for result in results)
    assert results[0].classes == ("ant", "bee")
    assert np.load(tmp_path / "out0" / "train_labels.npy").tolist() == [0, 0, 0, 1, 1, 1]
    arrays = [np.load(tmp_path / f"out{index}" / "train_images.npy") for index in range(4)]
    assert all(np.array_equal(array, arrays[0]) for array in arrays)
    expected = np.asarray(Image.open(io.BytesIO(files["train/bee/1.png"])))
    assert np.array_equal(arrays[0][4], expected)


def test_the_digest_changes_with_one_pixel_and_with_a_name_that_moves_an_image(tmp_path: Path):
    files = class_tree()
    original = decode(write_tar(tmp_path / "a.tar", files), tmp_path / "a").digests["test"]
    changed = {**files, "test/ant/0.png": image_bytes(999)}
    renamed = {name.replace("test/ant/0", "test/ant/9"): content for name, content in files.items()}
    digests = {
        decode(write_tar(tmp_path / f"{index}.tar", variant), tmp_path / str(index)).digests["test"]
        for index, variant in enumerate((changed, renamed))
    }
    assert len(digests | {original}) == 3


def test_other_sizes_and_modes_become_square_rgb(tmp_path: Path):
    files = class_tree()
    files["train/ant/0.png"] = image_bytes(1, size=(20, 10))
    files["train/ant/1.png"] = image_bytes(2, mode="L")
    result = decode(write_tar(tmp_path / "a.tar", files), tmp_path / "out")
    images = np.load(tmp_path / "out" / "train_images.npy")
    assert images.shape == (6, 8, 8, 3) and result.notes == ("1 images had another size and were resized to 8x8",)
    assert np.array_equal(images[1, ..., 0], images[1, ..., 2])


def test_fit_square_keeps_the_aspect_and_takes_the_centre():
    image = Image.new("RGB", (40, 10))
    image.paste((255, 0, 0), (15, 0, 25, 10))
    assert np.asarray(fit_square(image, 10))[:, 1:-1, 0].min() == 255


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"train/ant/0.png": b"no image"}, "unreadable image .*train/ant/0.png"),
        ({"train/ant/0.png": image_bytes(1)[:60]}, "unreadable image .*train/ant/0.png"),
        ({"train/cow/0.png": image_bytes(1)}, "class 'cow' is among the train images but not the test images"),
        ({"test/cow/0.png": image_bytes(1)}, "class 'cow' is among the test images but not the train images"),
        ({"train/cow/x.txt": b"", "test/cow/0.png": image_bytes(1)}, "class folder train/cow has no images"),
        ({"val/ant/0.png": image_bytes(1)}, "both 'test' and 'val'"),
        ({"top/train/ant/0.png": image_bytes(1)}, "both 'train' and 'top/train'"),
        ({"train/cow/0.png": image_bytes(1), "test/cow/0.png": image_bytes(1)}, "3 class folders, expected 2"),
    ],
)
def test_bad_trees_are_named(tmp_path: Path, change: dict, text: str):
    with pytest.raises(DataError, match=text):
        decode(write_tar(tmp_path / "x.tar", {**class_tree(), **change}), tmp_path / "out")


def test_an_empty_class_folder_is_noticed(tmp_path: Path):
    root = write_folder(tmp_path / "data", class_tree())
    (root / "train" / "cow").mkdir()
    with pytest.raises(DataError, match="class folder train/cow has no images"):
        decode(root, tmp_path / "out")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_is_noticed(tmp_path: Path, split: str):
    files = {name: content for name, content in class_tree().items() if not name.startswith(split)}
    with pytest.raises(DataError, match=f"has no {split} images"):
        decode(write_tar(tmp_path / "x.tar", files), tmp_path / "out")


def test_the_same_member_twice_is_refused(tmp_path: Path):
    path = write_tar(tmp_path / "x.tar", class_tree())
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("train/ant/0.png")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    with pytest.raises(DataError, match=r"train/ant/0.png twice"):
        decode(path, tmp_path / "out")


@pytest.mark.parametrize("shape", [(20000, 1), (1, 20000)])
def test_a_long_and_narrow_image_is_cut_or_refused_by_name(tmp_path: Path, shape: tuple[int, int]):
    source = write_tar(tmp_path / "a.tar", class_tree() | {"train/ant/0.png": image_bytes(1, size=shape)})
    assert decode(source, tmp_path / "out").notes == ("1 images had another size and were resized to 8x8",)
    with pytest.raises(DataError, match=rf"train/ant/0.png: {shape[0]}x{shape[1]} pixels would be scaled to .*replace"):
        decode(source, tmp_path / "large", size=224)


def test_processes_give_what_one_process_gives():
    chunks = [EncodedChunk((f"{n}",), (image_bytes(n),), 8) for n in range(7)]
    alone = [decoded.images for decoded in map_in_processes(decode_chunk, chunks, 0)]
    together = [decoded.images for decoded in map_in_processes(decode_chunk, chunks, 2)]
    assert len(together) == 7 and all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_an_error_in_a_process_keeps_its_message():
    chunks = [EncodedChunk((f"file {n}",), (image_bytes(n) if n != 5 else b"bad",), 8) for n in range(7)]
    with pytest.raises(DataError, match="unreadable image file 5"):
        list(map_in_processes(decode_chunk, chunks, 2))
