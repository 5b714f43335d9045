import hashlib
import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from recu.config import Archive, Dataset
from recu.data import preparation
from recu.data.manifest import read_manifest
from recu.data.preparation import prepare
from recu.errors import DataError, OutputError

from .builders import cifar10_files, class_tree, dataset, write_folder, write_tar

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
        run(tmp_path / "data", None, official(cifar, url="http://localhost:9/x"))


def test_what_cannot_be_downloaded_says_where_to_get_it(tmp_path: Path):
    with pytest.raises(DataError, match="ask your colleague"):
        run(tmp_path / "data", None, dataset(obtain="ask your colleague"))


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


def test_shipped_entries_are_valid_and_complete():
    entries = yaml.safe_load((Path(__file__).parents[3] / "params" / "datasets.yaml").read_text())
    parsed = {name: Dataset.model_validate_json(json.dumps(entry)) for name, entry in entries.items()}
    assert set(parsed) == {"digits", "cifar10", "cifar100", "cifar10-jpeg", "tinyimagenet", "imagenet"}
    assert parsed["cifar10"].mean == parsed["cifar10-jpeg"].mean == parsed["imagenet"].mean
    assert parsed["digits"].augmentation == "crop"
    assert parsed["digits"].published_as is None and parsed["cifar10-jpeg"].published_as is None
    assert all(entry.obtain for name, entry in parsed.items() if name != "digits")
