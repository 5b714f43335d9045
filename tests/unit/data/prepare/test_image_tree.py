"""Images that stay files: what an archive may hold and a file system may not is named, before anything is extracted."""

from pathlib import Path

import pytest

from recu.base.errors import DataError
from recu.data.index import read_index
from recu.data.prepare import image_tree
from recu.data.prepare.preparation import prepare
from tests.unit.data.builders import class_tree, dataset, image_bytes, write_tar, write_zip

AS_FILES = dataset(augmentation="resized_crop_lighting")


@pytest.mark.parametrize("write", [write_tar, write_zip])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/ant/0.png/z.png"], "cannot extract train/ant/0.png/z.png: train/ant/0.png is an image too, expected"),
        (["train/ant/a/b.png/c/d.png", "train/ant/a/b.png"], "train/ant/a/b.png/c/d.png: train/ant/a/b.png is an im"),
        ([f"train/ant/{'n' * 252}.png"], r"cannot extract train/ant/n+.png: a name in it has 256 bytes, expected 255"),
        ([f"test/ant/{'é' * 130}/0.png"], "a name in it has 260 bytes, expected 255 or fewer; shorten it and pack aga"),
    ],
)
def test_members_that_cannot_be_files_are_named_before_any_is_extracted(tmp_path, monkeypatch, write, names, message):
    more = {name: image_bytes(number) for number, name in enumerate(names, 100)}
    source = write(tmp_path / "archive", class_tree() | more)
    monkeypatch.setattr(image_tree, "tqdm", None)
    with pytest.raises(DataError, match=message) as caught:
        prepare("mini", AS_FILES, folder=tmp_path / "data/mini", source=source, workers=0)
    assert str(source) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_names_that_a_file_system_takes_are_extracted(tmp_path: Path):
    longest = f"train/ant/{'n' * 251}.png"
    files = class_tree() | {longest: image_bytes(100), "train/ant/0/z.png": image_bytes(101)}
    source = write_tar(tmp_path / "archive", files)
    prepared = prepare("mini", AS_FILES, folder=tmp_path / "mini", source=source, workers=0)
    index = read_index(prepared.folder, "train")
    assert f"images/{longest}" in index.paths and all(index.path(number).is_file() for number in range(8))
