import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from recu.base.errors import DataError, OutputError
from recu.data import Prepared, build_loaders, prepare_beside
from recu.data.manifest import read_manifest
from recu.data.opening import check_contents
from recu.data.prepare import preparation
from recu.data.prepare.content import Request
from recu.data.prepare.preparation import prepare
from recu.data.stamps import Local, read_local
from recu.experiment import own
from recu.experiment.schema import Archive, Dataset
from tests.unit.data.builders import (
    cifar10_files,
    class_tree,
    dataset,
    image_bytes,
    large_dataset,
    write_folder,
    write_imagenet,
    write_tar,
    write_zip,
)

DIGITS = dataset(kind="digits", num_classes=10, image_size=32, train_images=1437, test_images=360)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(folder: Path, source: Path | None, entry: Dataset | None = None):
    return prepare("mini", entry or dataset(), folder=folder, source=source, workers=0).manifest


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_tar(tmp_path / "mini.tar", class_tree())


def test_digits_are_a_stratified_deterministic_split(tmp_path: Path):
    manifest = run(tmp_path / "a", None, DIGITS)
    again = run(tmp_path / "b", None, DIGITS)
    assert manifest.splits == {"train": 1437, "test": 360}
    assert manifest.fingerprint == again.fingerprint
    # Fixed for ever: another value here would mean other images for the same name.
    assert manifest.content == {
        "train": "f74b5337e13c5aae59e6f0e6b5561d7788510eac0864b879648f9d37c3941fec",
        "test": "b31ea0f2e8e3c7bb4cd687b6c701b807b0bf38d21d94f06fa7ebaea646f01ce6",
    }
    counts = np.bincount(np.load(tmp_path / "a" / "test_labels.npy"))
    assert counts.min() >= 35 and counts.max() <= 37
    images = np.load(tmp_path / "a" / "train_images.npy")
    assert images.shape == (1437, 32, 32, 3) and images.dtype == np.uint8 and images.max() == 255


def test_prepared_data_is_recognised_without_reading_the_source(tmp_path: Path, archive: Path, monkeypatch):
    folder = tmp_path / "data"
    first = run(folder, archive)
    monkeypatch.setattr(preparation, "_build", None)
    start = time.perf_counter()
    assert run(folder, archive) == first
    assert run(folder, None) == first
    assert time.perf_counter() - start < 0.5


def test_a_touched_source_of_the_same_content_is_recognised(tmp_path: Path, archive: Path, monkeypatch):
    folder = tmp_path / "data"
    run(folder, archive)
    os.utime(archive, (1, 1))
    monkeypatch.setattr(preparation, "_build", None)
    run(folder, archive)


def test_another_source_is_prepared_again(tmp_path: Path, archive: Path):
    folder = tmp_path / "data"
    first = run(folder, archive)
    other = write_tar(tmp_path / "other.tar", class_tree(per_class={"train": 4, "test": 2}))
    second = run(folder, other)
    assert second.splits["train"] == 8 and second.fingerprint != first.fingerprint
    assert read_manifest(folder) == second


def test_an_image_replaced_in_a_folder_is_noticed(tmp_path: Path):
    root = write_folder(tmp_path / "tree", class_tree())
    first = run(tmp_path / "data", root)
    write_folder(root, {"train/ant/0.png": class_tree()["train/bee/1.png"]})
    assert run(tmp_path / "data", root).fingerprint != first.fingerprint


def test_changed_settings_are_prepared_again(tmp_path: Path, archive: Path):
    folder = tmp_path / "data"
    run(folder, archive)
    assert run(folder, archive, dataset(image_size=16)).stored_size == 16
    assert np.load(folder / "train_images.npy").shape == (6, 16, 16, 3)


def test_a_truncated_array_is_prepared_again(tmp_path: Path, archive: Path):
    folder = tmp_path / "data"
    expected = run(folder, archive)
    path = folder / "train_images.npy"
    path.write_bytes(path.read_bytes()[:-1])
    assert run(folder, archive) == expected
    assert len(np.load(path)) == 6


def test_the_manifest_names_no_machine_path(tmp_path: Path, archive: Path):
    run(tmp_path / "data", archive)
    text = (tmp_path / "data" / "manifest.json").read_text()
    assert str(tmp_path) not in text and '"mini.tar"' in text


@pytest.mark.parametrize("bad", ["truncated", "unreadable image"])
def test_failure_leaves_earlier_data_and_nothing_else(tmp_path: Path, archive: Path, bad: str):
    folder = tmp_path / "data" / "mini"
    run(folder, archive)
    before = snapshot(folder)
    files = {**class_tree(), "train/ant/0.png": b"broken"} if bad == "unreadable image" else class_tree()
    other = write_tar(tmp_path / "other.tar", files)
    if bad == "truncated":
        other.write_bytes(other.read_bytes()[:3000])
    with pytest.raises(DataError, match=bad):
        run(folder, other)
    assert snapshot(folder) == before
    assert {path.name for path in folder.parent.iterdir()} <= {"mini", ".mini.lock"}


def test_leftovers_of_killed_preparations_are_cleared_and_a_half_swap_is_mended(tmp_path: Path, archive: Path):
    folder = tmp_path / "data"
    manifest = run(folder, archive)
    (tmp_path / ".data.12-ab.preparing").mkdir()
    folder.rename(tmp_path / ".data.0f.old")
    foreign = tmp_path / ".data.other.12-ab.preparing"
    foreign.mkdir()
    assert run(folder, archive) == manifest
    assert not (tmp_path / ".data.12-ab.preparing").exists() and foreign.exists()


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path, archive: Path):
    folder = tmp_path / "data"
    write_folder(folder, {"thesis.tex": b"years of work"})
    with pytest.raises(DataError, match=r"no prepared data \(thesis.tex\)"):
        run(folder, archive)
    assert snapshot(folder) == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"train_images": 7}, "has 6 train images, expected 7"),
        ({"test_images": 1}, "has 4 test images, expected 1"),
        ({"num_classes": 3}, "has 2 class folders, expected 3"),
    ],
)
def test_wrong_numbers_are_refused(tmp_path: Path, archive: Path, changes: dict, text: str):
    with pytest.raises(DataError, match=text):
        run(tmp_path / "data", archive, dataset(**changes))
    assert not (tmp_path / "data").exists()


def official(archive: Path, checksum: str | None = None, size: int | None = None, url: str = "") -> Dataset:
    checksum = checksum or "md5:" + hashlib.md5(archive.read_bytes()).hexdigest()
    published = Archive(url=url, filename=archive.name, checksum=checksum, size_bytes=size)
    return dataset(kind="cifar10", num_classes=10, image_size=32, archives=(published,), obtain="fetch it")


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    return write_tar(tmp_path / "cifar.tar.gz", cifar10_files(), "w:gz")


def test_cifar10_from_archive_folder_with_archive_and_extracted_folder(tmp_path: Path, cifar: Path):
    entry = official(cifar)
    extracted = write_folder(tmp_path / "extracted", cifar10_files())
    holder = tmp_path / "holder"
    holder.mkdir()
    (holder / cifar.name).write_bytes(cifar.read_bytes())
    manifests = [run(tmp_path / f"d{index}", source, entry) for index, source in enumerate((cifar, holder, extracted))]
    assert len({manifest.fingerprint for manifest in manifests}) == 1
    assert manifests[0].splits == {"train": 20, "test": 4}


def test_an_archive_kept_beside_is_used_without_a_download(tmp_path: Path, cifar: Path):
    kept = tmp_path / "data" / "archives" / cifar.name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(cifar.read_bytes())
    assert run(tmp_path / "data" / "mini", None, official(cifar, url="http://localhost:9/x")).splits["test"] == 4


def test_a_wrong_checksum_is_refused(tmp_path: Path, cifar: Path):
    text = r"cifar.tar.gz is whole, but another archive .*give that one, or give a folder .*md5 .* and 00"
    with pytest.raises(DataError, match=text):
        run(tmp_path / "data", cifar, official(cifar, checksum="md5:00"))


def test_a_truncated_official_archive_says_how_much_is_there(tmp_path: Path, cifar: Path):
    data = cifar.read_bytes()
    entry = official(cifar, size=len(data))
    cifar.write_bytes(data[:-100])
    with pytest.raises(
        DataError, match=rf"truncated: {len(data) - 100} of {len(data)} bytes; fetch it again, or give a folder that"
    ):
        run(tmp_path / "data", cifar, entry)
    extracted = write_folder(tmp_path, cifar10_files()) / "cifar-10-batches-py"
    with pytest.raises(DataError, match=f"fetch it again, or give {extracted}, which lies beside it"):
        run(tmp_path / "data", tmp_path, entry)
    assert run(tmp_path / "data", extracted, entry).splits["test"] == 4, "the advice, followed"


def test_a_kept_archive_that_is_damaged_is_fetched_again_as_the_message_says(tmp_path: Path, cifar: Path):
    entry = official(cifar, url=cifar.as_uri(), size=cifar.stat().st_size)
    kept = tmp_path / "data" / "archives" / cifar.name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(cifar.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"truncated: .* move it away, then the same command fetches it again"):
        run(tmp_path / "data" / "mini", None, entry)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"<!DOCTYPE html><html></html>", "is an HTML page .*, not cifar.tar.gz; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer .*, not cifar.tar.gz"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive, not cifar.tar.gz"),
    ],
)
def test_what_is_not_the_published_archive_is_said(tmp_path: Path, cifar: Path, content: bytes, text: str):
    entry = official(cifar)
    cifar.write_bytes(content)
    with pytest.raises(DataError, match=text):
        run(tmp_path / "data", cifar, entry)


def test_an_unreachable_download_says_what_to_do(tmp_path: Path, cifar: Path):
    with pytest.raises(DataError, match=r"cannot download http://localhost:9/x.*fetch it.*--data_path"):
        run(tmp_path / "new" / "data", None, official(cifar, url="http://localhost:9/x"))
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_downloaded_says_where_to_get_it(tmp_path: Path):
    with pytest.raises(DataError, match="program: ask your colleague, and give its path with --data_path"):
        run(tmp_path / "data", None, dataset(obtain="ask your colleague"))
    with pytest.raises(DataError, match=r"program: get its files, and give .* workflow with sources: \{mini: PATH\}"):
        run(tmp_path / "data", None, dataset(obtain=""))


@pytest.mark.parametrize("augmentation", ["crop_flip", "resized_crop_lighting"])
def test_a_test_split_that_is_the_training_split_is_refused(tmp_path: Path, augmentation: str):
    tree = write_folder(tmp_path / "tree", class_tree(per_class={"train": 2}))
    (tree / "val").symlink_to(tree / "train")
    with pytest.raises(DataError, match="tree: its test images are its training images; give other ones"):
        run(tmp_path / "data", tree, dataset(augmentation=augmentation))


@pytest.mark.parametrize("augmentation", ["crop_flip", "resized_crop_lighting"])
def test_test_images_that_are_training_images_too_are_counted(tmp_path: Path, augmentation: str):
    tree = class_tree()
    tree["test/ant/9.png"] = tree["train/ant/0.png"]
    tree["test/bee/9.png"] = tree["train/ant/1.png"]
    source, entry = write_folder(tmp_path / "tree", tree), dataset(augmentation=augmentation)
    notes = prepare("x", entry, folder=tmp_path / "x", source=source, workers=0).manifest.notes
    assert "test images that are training images too: 2 of 6" in notes
    clean = prepare("y", entry, folder=tmp_path / "y", source=write_folder(tmp_path / "t", class_tree()), workers=0)
    assert not any("too" in note for note in clean.manifest.notes)


def test_a_missing_source_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"missing.tar does not exist"):
        run(tmp_path / "data", tmp_path / "missing.tar")


def test_digits_take_no_source(tmp_path: Path, archive: Path):
    with pytest.raises(DataError, match="leave out its source"):
        run(tmp_path / "data", archive, DIGITS)


def test_an_unusable_target_is_an_output_error(tmp_path: Path, archive: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write prepared data"):
        run(tmp_path / "file" / "data", archive)


def _prepare_in_process(folder: Path, archive: Path, queue) -> None:
    queue.put(run(folder, archive).fingerprint)


def test_two_processes_prepare_once_and_agree(tmp_path: Path, archive: Path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (tmp_path / "data", archive, queue)
    processes = [context.Process(target=_prepare_in_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    fingerprints = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(60)
    assert len(fingerprints) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"data", ".data.lock", "mini.tar"}


LARGE = dataset(augmentation="resized_crop_lighting")


@pytest.mark.parametrize("entry", [dataset(), LARGE], ids=["arrays", "files"])
def test_a_moved_source_is_taken_up_as_the_same_data(tmp_path: Path, entry: Dataset):
    root = write_folder(tmp_path / "old", class_tree())
    first = run(tmp_path / "data", root, entry)
    again = run(tmp_path / "data", root.rename(tmp_path / "new"), entry)
    assert again.fingerprint == first.fingerprint
    check_contents(Prepared(tmp_path / "data", again))
    assert read_local(tmp_path / "data").source.path == str((tmp_path / "new").resolve())


@pytest.mark.parametrize("entry", [dataset(), LARGE], ids=["arrays", "files"])
def test_a_copy_of_the_same_names_sizes_and_times_but_other_content_is_other_data(tmp_path: Path, entry: Dataset):
    root = write_folder(tmp_path / "a", {**class_tree(), "test/ant/0.png": image_bytes(1, kind="BMP")})
    first = run(tmp_path / "data", root, entry)
    copy = Path(shutil.copytree(root, tmp_path / "b"))
    file = copy / "test/ant/0.png"
    file.write_bytes(image_bytes(2, kind="BMP"))
    shutil.copystat(root / "test/ant/0.png", file)
    assert file.stat().st_size == (root / "test/ant/0.png").stat().st_size
    second = run(tmp_path / "data", copy, entry)
    assert second.content["test"] != first.content["test"] and second.content["train"] == first.content["train"]
    # The same at the very same place.
    shutil.rmtree(root)
    copy.rename(root)
    assert run(tmp_path / "data", root, entry).fingerprint == second.fingerprint


def test_an_archive_that_was_replaced_by_one_of_its_size_and_time_is_other_data(tmp_path: Path, archive: Path):
    first = run(tmp_path / "data", archive)
    status = archive.stat()
    write_tar(archive, {**class_tree(), "test/ant/0.png": class_tree()["test/ant/1.png"]})
    assert archive.stat().st_size == status.st_size
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(tmp_path / "data", archive).fingerprint != first.fingerprint


@pytest.mark.parametrize("entry", [dataset(), LARGE], ids=["arrays", "files"])
def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path, entry: Dataset, monkeypatch):
    root = write_folder(tmp_path / "tree", class_tree())
    convert = preparation._convert

    def meanwhile(*arguments):
        result = convert(*arguments)
        write_folder(root, {"train/ant/9.png": image_bytes(9)})
        return result

    monkeypatch.setattr(preparation, "_convert", meanwhile)
    with pytest.raises(DataError, match="changed while it was read"):
        run(tmp_path / "data", root, entry)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("entry", [dataset(), LARGE], ids=["arrays", "files"])
def test_altered_data_is_made_again_also_without_its_source_given(tmp_path: Path, entry: Dataset):
    root, folder = write_folder(tmp_path / "tree", class_tree()), tmp_path / "data"
    first = run(folder, root, entry)
    for source in (root, None):
        labels = np.load(folder / "test_labels.npy")
        np.save(folder / "test_labels.npy", labels[::-1].copy())
        assert run(folder, source, entry) == first
        assert np.array_equal(np.load(folder / "test_labels.npy"), labels)


def test_without_a_source_that_is_still_there_the_message_asks_for_it(tmp_path: Path):
    root, folder = write_folder(tmp_path / "tree", class_tree()), tmp_path / "data"
    run(folder, root)
    (folder / "test_labels.npy").unlink()
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"was made from .*tree, which is not there any more: .*--source"):
        run(folder, None)
    run(folder, tmp_path / "elsewhere")


def test_only_the_mean_or_the_test_view_changed_nothing_is_decoded_and_the_fingerprint_differs(tmp_path: Path, archive):
    folder = tmp_path / "data"
    fingerprints = set()
    for entry in (dataset(), dataset(mean=(0.1, 0.1, 0.1)), dataset(test_view="resize_centre")):
        manifest = run(folder, archive, entry)
        fingerprints.add(manifest.fingerprint)
        assert read_manifest(folder) == manifest
        inode = (folder / "train_images.npy").stat().st_ino
    assert len(fingerprints) == 3 and inode == (folder / "train_images.npy").stat().st_ino


@pytest.mark.parametrize("target", ["there", "there but not yet", "a/b/not there"])
def test_a_link_stays_one(tmp_path: Path, archive: Path, target: str):
    (tmp_path / "there").mkdir()
    folder = tmp_path / "data" / "mini"
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / target)
    first = run(folder, archive)
    assert folder.is_symlink() and (tmp_path / target / "test_images.npy").is_file()
    run(folder, archive, dataset(image_size=16))
    assert folder.is_symlink() and read_manifest(folder).fingerprint != first.fingerprint
    assert [path.name for path in folder.parent.iterdir()] == ["mini"]


def test_a_folder_that_cannot_be_renamed_is_filled(tmp_path: Path, archive: Path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == folder)
    inode = folder.stat().st_ino
    for entry in (dataset(), dataset(image_size=16)):
        manifest = run(folder, archive, entry)
        check_contents(Prepared(folder, manifest))
        assert folder.stat().st_ino == inode and read_manifest(folder) == manifest


@pytest.mark.parametrize("entry", [dataset(), LARGE], ids=["arrays", "files"])
def test_numbers_expected_later_are_compared(tmp_path: Path, entry: Dataset):
    root = write_folder(tmp_path / "tree", class_tree())
    run(tmp_path / "data", root, entry)
    later = entry.model_copy(update={"test_images": 5})
    for source in (root, None):
        with pytest.raises(DataError, match="has 4 test images, expected 5"):
            run(tmp_path / "data", source, later)
    write_folder(root, {"test/ant/9.png": image_bytes(9)})
    assert run(tmp_path / "data", root, later).splits["test"] == 5


TEST_ONLY = {name: content for name, content in class_tree().items() if name.startswith("test/")}


@pytest.mark.parametrize("entry", [dataset(), LARGE], ids=["arrays", "files"])
@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
def test_test_images_are_enough_where_nothing_else_is_needed(tmp_path: Path, entry: Dataset, form: str):
    write = {"folder": write_folder, "tar": write_tar, "zip": write_zip}[form]
    source = write(tmp_path / "source", TEST_ONLY)
    with pytest.raises(DataError, match=r"has no train images.*recu prepare NAME --only_test`"):
        run(tmp_path / "data", source, entry)
    prepared = prepare("mini", entry, folder=tmp_path / "data", source=source, workers=0, needed=("test",))
    whole = run(tmp_path / "whole", write(tmp_path / "all", class_tree()), entry)
    assert prepared.manifest.splits == {"test": 4}
    assert prepared.manifest.content == {"test": whole.content["test"]}
    loaders = build_loaders(
        prepared,
        entry,
        batch_size=2,
        batch_size_test=4,
        loader="auto",
        seed=1,
        device="cpu",
        workers=0,
        splits=("test",),
    )
    assert next(loaders.test.batches(0))[1].tolist() == [0, 0, 1, 1]
    with pytest.raises(DataError, match="holds the test images only"):
        build_loaders(
            prepared,
            entry,
            batch_size=2,
            batch_size_test=4,
            loader="auto",
            seed=1,
            device="cpu",
            workers=0,
        )
    # Training images that come later are seen.
    assert run(tmp_path / "data", tmp_path / "all", entry) == whole


def test_prepared_data_is_no_source_of_itself(tmp_path: Path):
    folder = tmp_path / "data" / "im"
    source = write_imagenet(tmp_path / "archives")
    prepare("im", large_dataset(), folder=folder, source=source, workers=0)
    for inner in (folder, folder / "images"):
        with pytest.raises(DataError, match=r"is where im is prepared"):
            prepare("im", large_dataset(), folder=folder, source=inner, workers=0)
    assert (folder / "images").is_dir()


def test_cifar_needs_its_test_batch_only(tmp_path: Path):
    files = {name: content for name, content in cifar10_files().items() if "data_batch_" not in name}
    entry = dataset(kind="cifar10", num_classes=10, image_size=32)
    source = write_folder(tmp_path / "cifar", files)
    with pytest.raises(DataError, match=r"lacks data_batch_1, .*--only_test"):
        run(tmp_path / "data", source, entry)
    prepared = prepare("mini", entry, folder=tmp_path / "data", source=source, workers=0, needed=("test",))
    assert prepared.manifest.splits == {"test": 4}


def beside(tmp_path: Path, source: Path | None, entry: Dataset | None = None, **more) -> Prepared:
    return prepare_beside("mini", entry or dataset(), data_dir=tmp_path / "data", source=source, workers=0, **more)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two sources of one form."""
    other = class_tree(classes=("cow", "dog"))
    return write_folder(tmp_path / "A", class_tree()), write_folder(tmp_path / "B", other)


def test_another_source_gets_a_folder_of_its_own(tmp_path: Path, two):
    first, second = (beside(tmp_path, source) for source in two)
    assert first.folder == tmp_path / "data/mini" and re.fullmatch("mini@[0-9a-f]{8}", second.folder.name)
    assert first.manifest.fingerprint != second.manifest.fingerprint
    for prepared in (first, second):
        check_contents(prepared)
    assert beside(tmp_path, two[0]) == first and beside(tmp_path, two[1]) == second and beside(tmp_path, None) == first


@pytest.mark.parametrize("entry", [dataset(image_size=16), dataset(mean=(0.1, 0.1, 0.1))], ids=["size", "mean"])
def test_other_settings_never_replace_what_is_prepared(tmp_path: Path, two, entry: Dataset):
    run(tmp_path / "data/mini", two[0])
    before = snapshot(tmp_path / "data/mini")
    for source in (two[0], None):
        other = beside(tmp_path, source, entry)
        assert other.manifest.identity == entry.identity()
        check_contents(other)
    assert snapshot(tmp_path / "data/mini") == before


def test_a_source_that_changed_gets_a_folder_of_its_own(tmp_path: Path, two):
    first = beside(tmp_path, two[0])
    write_folder(two[0], {"test/ant/0.png": image_bytes(9)})
    assert beside(tmp_path, two[0]).manifest.fingerprint != first.manifest.fingerprint
    check_contents(first)


def test_altered_data_is_refused_where_it_must_not_be_replaced(tmp_path: Path, two):
    prepared = beside(tmp_path, two[0])
    labels = prepared.folder / "test_labels.npy"
    np.save(labels, np.load(labels)[::-1].copy())
    with pytest.raises(DataError, match=r"is no longer what was prepared .*; run `recu prepare mini`"):
        beside(tmp_path, None)
    check_contents(beside(tmp_path, two[0]))
    run(tmp_path / "data/mini", None)
    assert beside(tmp_path, None) == prepared
    (tmp_path / "data/mini").rename(tmp_path / "far")
    (tmp_path / "data/mini").symlink_to(tmp_path / "far")
    np.save(labels, np.load(labels)[::-1].copy())
    with pytest.raises(DataError, match=r"run `recu prepare mini`"):
        beside(tmp_path, None)


def test_training_on_test_images_alone_is_refused_in_one_line(tmp_path: Path):
    source = write_folder(tmp_path / "A", TEST_ONLY)
    with pytest.raises(DataError, match="has no train images"):
        beside(tmp_path, source)
    beside(tmp_path, source, needed=("test",))
    with pytest.raises(DataError, match="holds the test images only, enough to evaluate but not to train"):
        beside(tmp_path, None)


def _beside_in_process(tmp_path: Path, source: Path, queue) -> None:
    prepared = beside(tmp_path, source)
    check_contents(prepared)
    queue.put((source.name, prepared.manifest.classes))


def test_two_sources_at_once_each_get_what_their_own_preparation_returned(tmp_path: Path, two):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_beside_in_process, args=(tmp_path, source, queue)) for source in two * 2]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert sorted(found) == sorted([("A", ("ant", "bee")), ("B", ("cow", "dog"))] * 2)


OWN_BUILDER = """
import numpy as np
from own_levels import LOWEST
from recu.data.prepare.content import store_arrays
def build(request, out):
    with open("calls", "a") as calls:
        calls.write("x")
    images = np.random.default_rng(0).integers(LOWEST, 256, (10, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(10) % 2
    return store_arrays(("a", "b"), {"train": (images[:6], labels[:6]), "test": (images[6:], labels[6:])}, out)
"""


class OwnKind:
    """A kind of dataset of one's own, whose code is as it would be in a process that begins now."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.write()
        self.entry = dataset(kind="own_numbers:build")

    def write(self, *, note: str = "", lowest: int = 0) -> None:
        (self._folder / "own_numbers.py").write_text(OWN_BUILDER + note)
        (self._folder / "own_levels.py").write_text(f"LOWEST = {lowest}\n")
        own._loaded.cache_clear()
        for name in ("own_numbers", "own_levels"):
            sys.modules.pop(name, None)

    @property
    def calls(self) -> int:
        return len((self._folder / "calls").read_text())


@pytest.fixture
def own_kind(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file of the same size and second would stay as it was
    (tmp_path / "numbers").touch()
    yield OwnKind(tmp_path)
    own._loaded.cache_clear()


def test_other_code_of_ones_own_kind_is_run_again_and_its_content_decides(tmp_path: Path, own_kind: OwnKind):
    def prepared() -> tuple[str, int]:
        return run(tmp_path / "mini", tmp_path / "numbers", own_kind.entry).fingerprint, own_kind.calls

    first, _ = prepared()
    assert prepared() == (first, 1)
    own_kind.write(note="# the same images\n")
    assert prepared() == prepared() == (first, 2)
    own_kind.write(lowest=9)  # in another file, which the builder imports
    other, calls = prepared()
    assert other != first and calls == 3


def test_data_of_ones_own_kind_that_says_nothing_of_its_code_is_prepared_again(tmp_path: Path, own_kind: OwnKind):
    arguments = (tmp_path / "mini", tmp_path / "numbers", own_kind.entry)
    first = run(*arguments)
    forget_code(tmp_path / "mini")
    assert run(*arguments) == first and run(*arguments) == first and own_kind.calls == 2


def test_data_of_the_packages_kinds_says_nothing_of_code_and_stays(tmp_path: Path, archive: Path, monkeypatch):
    first = run(tmp_path / "mini", archive)
    forget_code(tmp_path / "mini")
    monkeypatch.setattr(preparation, "_build", None)
    assert run(tmp_path / "mini", archive) == first


def forget_code(folder: Path) -> None:
    """Leave local.json as it was before it told of code."""
    local = json.loads((folder / "local.json").read_text())
    local.pop("code", None)
    (folder / "local.json").write_text(json.dumps(local))


def test_other_code_never_replaces_what_is_prepared_for_others(tmp_path: Path, own_kind: OwnKind):
    first = beside(tmp_path, tmp_path / "numbers", own_kind.entry)
    own_kind.write(lowest=9)
    for source in (tmp_path / "numbers", None):
        second = beside(tmp_path, source, own_kind.entry)
        assert second.folder != first.folder and second.manifest.fingerprint != first.manifest.fingerprint
    assert own_kind.calls == 2
    check_contents(first)


def test_what_other_code_left_unfinished_is_not_continued(tmp_path: Path, own_kind: OwnKind):
    work = tmp_path / ".mini.partial"
    request = Request("mini", own_kind.entry, tmp_path / "numbers", 0, ("train", "test"))
    for code, kept in (("1" * 64, False), ("1" * 64, True), ("2" * 64, False), (None, False)):
        left = work / "left"
        left.touch() if work.exists() else None
        preparation._resumable_folder(request, tmp_path / "mini", Local(None, {}, code))
        assert left.exists() == kept


def test_shipped_entries_are_valid_and_complete():
    entries = yaml.safe_load((Path(__file__).parents[4] / "params" / "datasets.yaml").read_text())
    parsed = {name: Dataset.model_validate_json(json.dumps(entry)) for name, entry in entries.items()}
    assert set(parsed) == {"digits", "cifar10", "cifar100", "cifar10-jpeg", "tinyimagenet", "imagenet"}
    assert parsed["cifar10"].mean == parsed["cifar10-jpeg"].mean == parsed["imagenet"].mean
    assert parsed["digits"].augmentation == "crop"
    assert parsed["digits"].published_as is None and parsed["cifar10-jpeg"].published_as is None
    assert all(entry.obtain for name, entry in parsed.items() if name != "digits")
