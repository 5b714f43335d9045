"""The list of images that stay files."""

import os
from pathlib import Path

import numpy as np
import pytest

from recu.base.errors import DataError
from recu.data import prepare
from recu.data.index import read_index, write_index
from recu.data.opening import open_index

from .builders import class_tree, dataset, image_bytes, write_folder

ENTRY = dataset(augmentation="resized_crop_lighting")
NAMES = [
    "a title\u2028of two lines.png",
    "form\x0cfeed.png",
    "new\nline.png",
    "next\x85line.png",
    "carriage\rreturn.png",
    " .png",
    "no utf \udcff.png",
]


def test_no_character_of_a_name_shifts_labels_against_images(tmp_path: Path):
    tree = class_tree(per_class={"train": 2, "test": 2})
    tree |= {f"test/ant/{name}": image_bytes(number) for number, name in enumerate(NAMES)}
    source = write_folder(tmp_path / "tree", tree)
    prepared = prepare("big", ENTRY, folder=tmp_path / "big", source=source, workers=0)
    index = open_index(prepared, "test")
    assert len(index.paths) == len(index.labels) == 4 + len(NAMES)
    for number, label in enumerate(index.labels):
        name = os.path.relpath(index.path(number), source)
        assert name.split("/")[1] == prepared.manifest.classes[label]
        assert index.read(number) == tree[name]


def test_paths_labels_and_hashes_of_different_number_are_refused(tmp_path: Path):
    source = write_folder(tmp_path / "tree", class_tree())
    folder = prepare("big", ENTRY, folder=tmp_path / "big", source=source, workers=0).folder
    (folder / "test_paths.bin").write_bytes((folder / "test_paths.bin").read_bytes() + b"more\0")
    with pytest.raises(DataError, match="5 paths, 4 labels and 4 hashes"):
        read_index(folder, "test")


def test_an_image_that_changes_while_it_is_hashed_is_refused(tmp_path: Path, monkeypatch):
    from recu.data import stamps

    source = write_folder(tmp_path / "tree", class_tree())
    hash_stream = stamps.hash_stream

    def grow(stream):
        digest = hash_stream(stream)
        with Path(stream.name).open("ab") as file:
            file.write(b"x")
        return digest

    monkeypatch.setattr(stamps, "hash_stream", grow)
    with pytest.raises(DataError, match=r"\.png changed while it was read"):
        prepare("big", ENTRY, folder=tmp_path / "big", source=source, workers=0)
    assert not (tmp_path / "big").exists()


def test_stamps_of_another_index_are_not_believed(tmp_path: Path):
    source = write_folder(tmp_path / "tree", class_tree())
    prepared = prepare("big", ENTRY, folder=tmp_path / "big", source=source, workers=0)
    index = open_index(prepared, "test")
    assert (index.stamps >= 0).all()
    file = prepared.folder / "test_stamps.bin"
    content = file.read_bytes()
    for other in (bytes([content[0] ^ 1]) + content[1:], content[:-1], b"", content + b"x"):
        file.write_bytes(other)
        assert (read_index(prepared.folder, "test").stamps == -1).all()
        assert np.array_equal(open_index(prepared, "test").stamps, index.stamps)
        assert file.read_bytes() == content


def test_the_content_is_that_of_labels_and_images_in_order(tmp_path: Path):
    from recu.data.index import IndexedFile

    write_folder(tmp_path, {"a/1": b"one", "b/2": b"two"})
    one, two = IndexedFile("ant", "a/1", 3), IndexedFile("bee", "b/2", 3)
    digests = [
        write_index(tmp_path, str(tmp_path), classes, {"test": files})["test"]
        for classes, files in (
            (("ant", "bee"), [one, two]),
            (("ant", "bee"), [two, one]),
            (("ant", "bee", "cow"), [one, two]),
            (("ant", "bee"), [one]),
            (("ant", "bee"), [IndexedFile("bee", "a/1", 3), two]),
        )
    ]
    assert digests[0] == digests[1] and len(set(digests)) == 4
