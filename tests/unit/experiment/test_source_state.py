"""How a local source looks to planning."""

import os
import shutil
from pathlib import Path

import pytest

from recu.data import prepare
from recu.experiment.schema import Archive, Dataset
from recu.experiment.source_state import Place, inside, look_at, source_facts
from tests.unit.data.builders import class_tree, dataset, large_dataset, write_folder, write_tar


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "tree", class_tree())


def state(source: Path, entry: Dataset | None = None) -> str:
    return look_at(entry or dataset(), source).state


def test_an_unchanged_source_looks_the_same_and_names_its_place(tree: Path):
    assert look_at(dataset(), tree) == look_at(dataset(), tree) == Place(str(tree.resolve()), state(tree))


@pytest.mark.parametrize("change", ["touched", "added", "removed", "renamed", "rewritten with its old time"])
def test_any_change_of_a_file_is_seen(tree: Path, change: str):
    before, file = state(tree), tree / "test/ant/0.png"
    if change == "touched":
        os.utime(file, (1, 1))
    elif change == "added":
        shutil.copy(file, file.with_name("9.png"))
    elif change == "removed":
        file.unlink()
    elif change == "renamed":
        file.rename(file.with_name("9.png"))
    else:
        times, content = file.stat(), file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert state(tree) != before


@pytest.mark.parametrize("splits", [("training", "validation"), ("Data/CLS-LOC/train", "Data/CLS-LOC/val")])
def test_of_class_folders_beside_archives_every_file_counts(tmp_path: Path, splits):
    """The folders are what is prepared then, wherever they lie and whatever they are called."""
    entry = large_dataset(
        archives=(Archive(url="", filename="ILSVRC2012_devkit_t12.tar.gz", checksum="md5:" + "0" * 32),)
    )
    names = {"train": splits[0], "test": splits[1]}
    tree = {
        name.replace(split, names[split], 1): data
        for name, data in class_tree().items()
        for split in names
        if name.startswith(split)
    }
    source = write_folder(tmp_path / "source", tree | {"ILSVRC2012_devkit_t12.tar.gz": b"kit"})
    before = state(source, entry)
    (source / splits[1] / "ant" / "0.png").unlink()
    assert state(source, entry) != before


def test_a_moved_folder_looks_the_same_at_another_place(tree: Path):
    before = look_at(dataset(), tree)
    after = look_at(dataset(), tree.rename(tree.with_name("moved")))
    assert after.state == before.state and after.path != before.path


def test_hidden_folders_and_links_to_nothing_or_back_do_no_harm(tree: Path):
    before = state(tree)
    write_folder(tree, {"@eaDir/x.png": b"x", ".cache/y": b"y"})
    assert state(tree) == before
    (tree / "loop").symlink_to(tree)
    (tree / "nothing").symlink_to(tree / "gone")
    assert state(tree) != before


def test_of_a_folder_with_imagenets_archives_only_these_count(tmp_path: Path):
    """All of them, whichever the entry names checksums of."""
    file = write_tar(tmp_path / "ILSVRC2012_img_val.tar", class_tree())
    before = state(tmp_path, large_dataset())
    (tmp_path / "notes.txt").write_text("x")
    assert state(tmp_path, large_dataset()) == before
    os.utime(file, (1, 1))
    assert state(tmp_path, large_dataset()) != before


def test_a_folder_stands_for_the_published_archive_in_it(tmp_path: Path):
    entry = dataset(archives=(Archive(url="", filename="a.tar", checksum="md5:0"),))
    assert inside(entry, tmp_path) == tmp_path
    file = write_tar(tmp_path / "a.tar", class_tree())
    assert inside(entry, tmp_path) == file


def test_a_source_that_is_gone_looks_as_when_its_data_was_prepared(tmp_path: Path, tree: Path):
    folder = tmp_path / "data" / "mini"
    prepare("mini", dataset(), folder=folder, source=tree, workers=0)
    before = source_facts(dataset(), tree, folder)
    shutil.rmtree(tree)
    assert source_facts(dataset(), tree, folder) == before
    assert source_facts(dataset(), tmp_path / "other", folder)["state"] == "missing"
    assert source_facts(dataset(), tree, tmp_path / "nothing prepared")["state"] == "missing"


def test_prepared_data_below_its_own_source_and_hidden_files_do_not_count(tree: Path):
    before = state(tree)
    prepare("mini", dataset(), folder=tree / "data" / "mini", source=tree, workers=0)
    write_folder(tree, {".DS_Store": b"x", "test/ant/.hidden": b"x"})
    assert state(tree) == before
    write_folder(tree, {"test/ant/seen.png": b"x"})
    assert state(tree) != before
