"""What is opened is what was prepared, or it is refused."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recu.base.errors import AlteredData, DataError
from recu.base.files import hash_file
from recu.data import Prepared, build_loaders, prepare
from recu.data.index import read_index
from recu.data.manifest import fingerprint_of, read_manifest
from recu.data.opening import check_contents, open_arrays, open_index, open_prepared
from recu.data.stamps import read_local

from .builders import class_tree, dataset, image_bytes, large_dataset, write_folder, write_imagenet, write_tar


@pytest.fixture
def arrays(tmp_path: Path) -> Prepared:
    source = write_tar(tmp_path / "x.tar", class_tree())
    return prepare("mini", dataset(), folder=tmp_path / "mini", source=source, workers=0)


@pytest.fixture
def files(tmp_path: Path) -> Prepared:
    """Images in a tree of their own."""
    source = write_folder(tmp_path / "tree", class_tree())
    entry = dataset(augmentation="resized_crop_lighting")
    return prepare("big", entry, folder=tmp_path / "big", source=source, workers=0)


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """Names of the files that are hashed from here on."""
    from recu.data import opening, stamps

    seen = []
    hash_stream = stamps.hash_stream

    def note(stream):
        seen.append(Path(stream.name).name)
        return hash_stream(stream)

    monkeypatch.setattr(opening, "hash_stream", note)
    monkeypatch.setattr(stamps, "hash_stream", note)
    return seen


def test_the_fingerprint_covers_content_normalisation_size_and_test_view():
    content = {"train": "1", "test": "2"}
    entries = [
        dataset(),
        dataset(mean=(0.5, 0.4, 0.2)),
        dataset(std=(0.2, 0.25, 0.2)),
        dataset(image_size=16),
        dataset(test_view="resize_centre"),
    ]
    fingerprints = [fingerprint_of(content, entry.identity()) for entry in entries]
    fingerprints += [fingerprint_of(other, dataset().identity()) for other in ({"test": "2"}, {**content, "test": "3"})]
    assert len(set(fingerprints)) == len(fingerprints)
    assert fingerprint_of(content, dataset(title="Other", augmentation="crop").identity()) == fingerprints[0]


def test_the_same_images_are_the_same_data_whatever_they_came_in_and_were_called(tmp_path: Path, arrays: Prepared):
    renamed = {name.replace("/0.", "/00 first."): content for name, content in class_tree().items()}
    tree = write_folder(tmp_path / "other", renamed)
    again = prepare("mini", dataset(), folder=tmp_path / "again", source=tree, workers=0)
    assert again.manifest.fingerprint == arrays.manifest.fingerprint


def test_images_of_exchanged_labels_are_other_data(tmp_path: Path, arrays: Prepared):
    swapped = {"ant": "bee", "bee": "ant"}
    tree = {}
    for name, content in class_tree().items():
        split, label, file = name.split("/")
        tree[f"{split}/{swapped[label] if split == 'test' else label}/{file}"] = content
    source = write_tar(tmp_path / "y.tar", tree)
    other = prepare("mini", dataset(), folder=tmp_path / "other", source=source, workers=0).manifest
    assert other.content["train"] == arrays.manifest.content["train"]
    assert other.content["test"] != arrays.manifest.content["test"]


@pytest.mark.parametrize("name", ["train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy"])
@pytest.mark.parametrize("keeps_its_time", [False, True])
def test_altered_arrays_are_refused(arrays: Prepared, name: str, keeps_its_time: bool):
    file = arrays.folder / name
    status = file.stat()
    array = np.load(file)
    np.save(file, array[::-1].copy())
    if keeps_its_time:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size
    with pytest.raises(AlteredData, match=rf"{name} is no longer what was prepared .*; run `recu prepare mini`"):
        open_arrays(arrays, name.split("_")[0])


def test_arrays_that_another_preparation_replaced_are_refused(tmp_path: Path, arrays: Prepared):
    other = write_tar(tmp_path / "y.tar", class_tree(classes=("ant", "cow")))
    prepare("mini", dataset(), folder=arrays.folder, source=other, workers=0)
    with pytest.raises(AlteredData, match="is no longer what was prepared"):
        build_loaders(
            arrays,
            dataset(),
            batch_size=2,
            batch_size_test=2,
            loader="auto",
            seed=1,
            device="cpu",
            workers=0,
        )


@pytest.fixture
def built(tmp_path: Path, monkeypatch) -> Callable[[str, str], Prepared]:
    """Prepares twelve images by a builder of one's own, whose last lines are given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "source").touch()

    def build(name: str, lines: str) -> Prepared:
        (tmp_path / f"{name}.py").write_text(
            "import numpy as np\n"
            "from recu.data.prepare.content import store_arrays, stored_arrays\n"
            "def build(request, out):\n"
            "    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)\n"
            "    labels = np.arange(6) % 2\n"
            "    splits = {'train': images[:6], 'test': images[6:]}\n" + lines
        )
        entry = dataset(kind=f"{name}:build")
        return prepare("own", entry, folder=tmp_path / name, source=tmp_path / "source", workers=0)

    return build


def test_images_given_in_fortran_order_are_read_as_they_were_given(built):
    end = "    return store_arrays(('a', 'b'), {name: (%s, labels) for name, each in splits.items()}, out)\n"
    columns, rows = built("own_columns", end % "np.asfortranarray(each)"), built("own_rows", end % "each")
    assert np.array_equal(open_arrays(columns, "test").images, open_arrays(rows, "test").images)
    assert columns.manifest.fingerprint == rows.manifest.fingerprint


def test_a_file_in_fortran_order_is_refused(arrays: Prepared):
    file = arrays.folder / "test_images.npy"
    np.save(file, np.asfortranarray(np.load(file)))
    files = arrays.manifest.files | {file.name: hash_file(file)}
    older = Prepared(arrays.folder, arrays.manifest.model_copy(update={"files": files}))
    with pytest.raises(DataError, match=r"test_images.npy is in Fortran order, expected C order, .*; run `recu"):
        open_arrays(older, "test")


def test_opened_arrays_stay_what_they_were_when_the_folder_is_replaced(tmp_path: Path, arrays: Prepared):
    images, labels, file = open_arrays(arrays, "test")
    before = np.array(images)
    other = write_tar(tmp_path / "y.tar", class_tree(classes=("ant", "cow")))
    prepare("mini", dataset(), folder=arrays.folder, source=other, workers=0)
    assert np.array_equal(images, before) and len(labels) == len(before)
    file.check()


@pytest.mark.parametrize("loader", ["memory", "torchvision"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_written_into_mapped_images_is_noticed_in_the_next_batch(arrays: Prepared, loader: str, split: str):
    """It shows in the mapping at once: a training would go on, on images that its fingerprint is not of."""
    sizes = {"batch_size": 2, "batch_size_test": 1}
    loaders = build_loaders(arrays, dataset(), **sizes, loader=loader, seed=1, device="cpu", workers=0)
    batches = getattr(loaders, split).batches(0)
    next(batches)
    file = arrays.folder / f"{split}_images.npy"
    os.utime(file, (1, 1))
    next(batches)  # the content decides
    status = file.stat()
    with file.open("r+b") as stream:
        stream.seek(-100, os.SEEK_END)
        stream.write(bytes(100))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(AlteredData, match=rf"{split}_images.npy is no longer what was prepared .*; run `recu prepare"):
        list(batches)


@pytest.mark.parametrize("loader", ["memory", "torchvision"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_mapped_file_that_is_cut_off_is_not_read_any_more(arrays: Prepared, loader: str, split: str):
    """Reading what is no longer there would end the process without a word (SIGBUS)."""
    sizes = {"batch_size": 2, "batch_size_test": 1}
    loaders = build_loaders(arrays, dataset(), **sizes, loader=loader, seed=1, device="cpu", workers=0)
    batches = getattr(loaders, split).batches(0)
    next(batches)
    os.truncate(arrays.folder / f"{split}_images.npy", 0)
    for begun in (batches, getattr(loaders, split).batches(0)):
        with pytest.raises(AlteredData, match=rf"{split}_images.npy is no longer what was prepared .*; run `recu prep"):
            next(begun)


def test_nothing_is_hashed_again_until_a_file_looks_otherwise_and_then_once(arrays: Prepared, hashed: list[str]):
    check_contents(arrays)
    assert hashed == []
    os.utime(arrays.folder / "test_images.npy", (1, 1))
    check_contents(arrays)
    assert hashed == ["test_images.npy"]
    check_contents(arrays)
    assert hashed == ["test_images.npy"]


def test_a_copied_folder_is_read_once_more(tmp_path: Path, arrays: Prepared, files: Prepared, hashed: list[str]):
    for prepared, entry in ((arrays, dataset()), (files, dataset(augmentation="resized_crop_lighting"))):
        hashed.clear()
        copy = Path(shutil.copytree(prepared.folder, tmp_path / f"copy of {prepared.folder.name}"))
        opened = open_prepared(copy, entry)
        check_contents(opened)
        own = {"train_labels.npy", "test_labels.npy"} | ({"train_images.npy"} if prepared is arrays else {"files.json"})
        assert own <= set(hashed), "stamps are not believed of another path"
        hashed.clear()
        check_contents(opened)
        assert hashed == []


@pytest.mark.parametrize("lost", [b"", b"{", b"[]", b'{"source": 1, "files": {"test_labels.npy": []}}', None])
def test_what_is_known_of_this_machine_can_be_lost(arrays: Prepared, lost: bytes | None):
    file = arrays.folder / "local.json"
    file.unlink() if lost is None else file.write_bytes(lost)
    check_contents(arrays)
    assert set(read_local(arrays.folder).files) == set(arrays.manifest.files)


def test_stamps_of_other_content_are_not_believed(arrays: Prepared):
    """As where one process remembers a file while another replaces it."""
    file = arrays.folder / "test_labels.npy"
    np.save(file, np.load(file)[::-1].copy())
    local = json.loads((arrays.folder / "local.json").read_text())
    status = file.stat()
    stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    local["files"]["test_labels.npy"] = ["0" * 64, *stamp]
    (arrays.folder / "local.json").write_text(json.dumps(local))
    with pytest.raises(AlteredData, match="SHA-256 differs"):
        check_contents(arrays)


def altered(prepared: Prepared, split: str, number: int, content: bytes | None = None) -> Path:
    path = read_index(prepared.folder, split).path(number)
    path.write_bytes(image_bytes(99) if content is None else content)
    return path


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_rewritten_image_file_is_refused_when_opened(files: Prepared, split: str):
    path = altered(files, split, 1)
    with pytest.raises(
        AlteredData, match=rf"{path} is no longer the image that was prepared.*; run `recu prepare big`"
    ):
        open_index(files, split)
    open_index(files, "test" if split == "train" else "train")


def test_images_that_were_only_touched_are_compared_once(files: Prepared, hashed: list[str]):
    path = read_index(files.folder, "test").path(0)
    os.utime(path, (1, 1))
    open_index(files, "test")
    assert hashed == [path.name]
    hashed.clear()
    open_index(files, "test")
    assert hashed == []


def test_a_missing_image_is_named(files: Prepared):
    path = read_index(files.folder, "train").path(0)
    path.unlink()
    with pytest.raises(AlteredData, match=rf"cannot read {path}: No such file"):
        open_index(files, "train")


@pytest.mark.parametrize("skip_unreadable", [False, True])
@pytest.mark.parametrize("what", ["rewritten", "replaced", "removed"])
def test_an_image_that_changes_during_an_epoch_is_never_used_nor_left_out(files: Prepared, skip_unreadable, what: str):
    entry = dataset(augmentation="resized_crop_lighting")
    common = {"loader": "auto", "seed": 1, "device": "cpu", "workers": 0}
    train = build_loaders(
        files, entry, batch_size=2, batch_size_test=1, skip_unreadable=skip_unreadable, **common
    ).train
    batches = train.batches(0)
    next(batches)
    for number in range(train.num_images):
        path = read_index(files.folder, "train").path(number)
        if what == "rewritten":
            path.write_bytes(image_bytes(99))
        elif what == "replaced":
            (path.parent / "new").write_bytes(image_bytes(99))
            (path.parent / "new").replace(path)
        else:
            path.unlink()
    with pytest.raises(AlteredData, match=r"is no longer the image that was prepared|is gone"):
        list(batches)
    assert train.skipped == 0


def test_an_image_that_is_touched_during_an_epoch_is_used(files: Prepared):
    index = open_index(files, "test")
    before = index.read(0)
    os.utime(index.path(0), (1, 1))
    assert index.read(0) == before


def test_other_data_than_expected_is_refused(arrays: Prepared):
    assert open_prepared(arrays.folder, dataset(), expected=arrays.manifest.fingerprint).manifest == arrays.manifest
    with pytest.raises(DataError, match=r"holds other data .*0000.*--forcerun prepare"):
        open_prepared(arrays.folder, dataset(), expected="0" * 64)


def test_data_that_was_removed_is_prepared_again_from_its_source(tmp_path):
    with pytest.raises(
        DataError, match=r"run `recu prepare mini` with its source, .* `snakemake .*--forcerun prepare`"
    ):
        open_prepared(tmp_path / "mini", dataset())


def test_numbers_expected_later_are_compared(arrays: Prepared):
    with pytest.raises(DataError, match="has 4 test images, expected 5"):
        open_prepared(arrays.folder, dataset(test_images=5))
    open_prepared(arrays.folder, dataset(test_images=4, train_images=6))


def sealed(prepared: Prepared, name: str, array: np.ndarray) -> Prepared:
    """Prepared data with another file, vouched for as if it had been prepared so."""
    from recu.base.files import hash_file

    np.save(prepared.folder / name, array)
    files = prepared.manifest.files | {name: hash_file(prepared.folder / name)}
    return Prepared(prepared.folder, prepared.manifest.model_copy(update={"files": files}))


@pytest.mark.parametrize("labels", [[0, 0, 1, 2], [0, 0, 1, -1], [0, 0, 1, 2**40]])
def test_labels_out_of_range_are_refused(arrays: Prepared, labels: list[int]):
    with pytest.raises(DataError, match=r"labels outside 0\.\.1"):
        open_arrays(sealed(arrays, "test_labels.npy", np.array(labels)), "test")


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 0, 1, 1, 1]])
def test_labels_and_images_of_different_number_are_refused(arrays: Prepared, files: Prepared, labels: list[int]):
    with pytest.raises(DataError, match=f"4 test images and {len(labels)} labels"):
        open_arrays(sealed(arrays, "test_labels.npy", np.array(labels)), "test")
    with pytest.raises(DataError, match=f"4 paths, {len(labels)} labels"):
        open_index(sealed(files, "test_labels.npy", np.array(labels)), "test")


def test_images_whose_place_is_gone_are_found_again_as_advised(tmp_path: Path, files: Prepared):
    (tmp_path / "tree").rename(tmp_path / "moved")
    entry = dataset(augmentation="resized_crop_lighting")
    with pytest.raises(DataError, match=r"which does not exist: .*`recu prepare big --source FOLDER`"):
        open_index(files, "test")
    again = prepare("big", entry, folder=files.folder, source=tmp_path / "moved", workers=0)
    assert again.manifest.fingerprint == files.manifest.fingerprint
    assert open_index(again, "test").root == (tmp_path / "moved").resolve()


def test_extracted_images_are_checked_too(tmp_path: Path):
    source = write_imagenet(tmp_path / "archives", validation=7)
    prepared = prepare("im", large_dataset(), folder=tmp_path / "im", source=source, workers=0)
    check_contents(prepared)
    altered(prepared, "test", 0, b"x")
    with pytest.raises(AlteredData, match="run `recu prepare im`"):
        check_contents(prepared)
    again = prepare("im", large_dataset(), folder=tmp_path / "im", source=None, workers=0)
    assert again.manifest == prepared.manifest
    check_contents(prepared)


@pytest.mark.parametrize("storage", ["arrays", "files"])
@pytest.mark.parametrize("what", ["labels", "classes"])
def test_an_altered_file_whose_hash_was_put_into_the_manifest_too_is_refused(request, storage: str, what: str):
    """The fingerprint follows from the files, so it cannot stand for other ones."""
    prepared = request.getfixturevalue(storage)
    manifest = json.loads((prepared.folder / "manifest.json").read_bytes())
    if what == "classes":
        manifest["classes"].reverse()
    else:
        np.save(prepared.folder / "test_labels.npy", np.load(prepared.folder / "test_labels.npy")[::-1])
        manifest["files"]["test_labels.npy"] = hash_file(prepared.folder / "test_labels.npy")
    (prepared.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"run `recu prepare (mini|big)`"):
        check_contents(Prepared(prepared.folder, read_manifest(prepared.folder)))
