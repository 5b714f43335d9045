import dataclasses
import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from recu.base.errors import DataError
from recu.data.prepare import cifar
from recu.data.prepare.cifar import load_cifar_arrays, safe_unpickle
from recu.experiment.dataset_kinds import KINDS
from tests.unit.data.builders import cifar10_files, cifar100_files, python2_pickle, write_folder, write_tar


class Evil:
    def __reduce__(self):
        return os.system, ("touch /nonexistent/owned",)


def test_cifar10_in_file_order_with_channels_last(tmp_path: Path):
    content = load_cifar_arrays(write_tar(tmp_path / "c.tar.gz", cifar10_files(), "w:gz"), "cifar10")
    images, labels = content.splits["train"]
    assert images.shape == (20, 32, 32, 3) and labels.shape == (20,)
    assert content.splits["test"][0].shape == (4, 32, 32, 3)
    assert content.classes[0] == "airplane" and content.classes[9] == "truck"
    raw = np.random.default_rng(1).integers(0, 256, (4, 3072), dtype=np.uint8)  # data_batch_2
    red, green, blue = raw[0, 0], raw[0, 1024], raw[0, 2048]
    assert images[4, 0, 0].tolist() == [red, green, blue]
    assert images[4, 0, 1, 0] == raw[0, 1] and images[4, 1, 0, 0] == raw[0, 32]
    assert labels[4:8].tolist() == [1, 2, 3, 4]


def test_cifar100_uses_the_fine_labels(tmp_path: Path):
    content = load_cifar_arrays(write_tar(tmp_path / "c.tar.gz", cifar100_files(), "w:gz"), "cifar100")
    assert content.splits["train"][1].tolist() == [0, 7, 14, 21, 28]
    assert len(content.classes) == 100 and content.classes[7] == "f7"


def test_extracted_folder_gives_the_same(tmp_path: Path):
    archive = load_cifar_arrays(write_tar(tmp_path / "c.tar", cifar10_files()), "cifar10")
    root = write_folder(tmp_path / "data", cifar10_files())
    folder = load_cifar_arrays(root / KINDS["cifar10"].extracts_to, "cifar10")
    assert np.array_equal(archive.splits["train"][0], folder.splits["train"][0])


@pytest.mark.parametrize("value", [Evil(), {"data": Evil()}, [print], {"labels": Path("x")}])
def test_pickles_that_name_anything_else_are_refused(value: object):
    with pytest.raises(pickle.UnpicklingError, match="which no official file does"):
        safe_unpickle(pickle.dumps(value))


@pytest.mark.parametrize("data", [b"", b"\x80\x02}", b"garbage", python2_pickle({"a": 1})[:-3]])
def test_damaged_pickles_are_refused(data: bytes):
    with pytest.raises(pickle.UnpicklingError):
        safe_unpickle(data)


def test_a_malicious_part_is_named_and_runs_nothing(tmp_path: Path):
    files = {**cifar10_files(), "cifar-10-batches-py/data_batch_3": pickle.dumps(Evil())}
    with pytest.raises(DataError, match=r"cannot read cifar-10-batches-py/data_batch_3.*system"):
        load_cifar_arrays(write_tar(tmp_path / "c.tar", files), "cifar10")


def test_a_missing_part_is_named(tmp_path: Path):
    files = cifar10_files()
    del files["cifar-10-batches-py/data_batch_4"]
    with pytest.raises(DataError, match="lacks data_batch_4"):
        load_cifar_arrays(write_tar(tmp_path / "c.tar", files), "cifar10")


def test_a_part_that_is_there_twice_is_refused(tmp_path: Path):
    files = cifar10_files()
    again = {f"copy/{name}": data for name, data in files.items()}
    with pytest.raises(DataError, match=r"holds \w+ twice, the second as copy/cifar-10-batches-py/\w+; keep one"):
        load_cifar_arrays(write_tar(tmp_path / "c.tar", files | again), "cifar10")


def test_a_part_that_is_a_copy_of_another_is_refused(tmp_path: Path):
    """Test images that a network was trained on would give a number that says nothing."""
    files = cifar10_files()
    copied = pickle.loads(files["cifar-10-batches-py/data_batch_2"], encoding="latin1") | {"batch_label": "testing"}
    files["cifar-10-batches-py/test_batch"] = pickle.dumps(copied)
    with pytest.raises(DataError, match="test_batch holds the images of data_batch_2; fetch the official archive"):
        load_cifar_arrays(write_tar(tmp_path / "c.tar", files), "cifar10")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [1], b"labels": [2]}, "a key both as text and as bytes"),
        ({"labels": [1, 2]}, "no uint8 array 'data'"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "one label for each of 2"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, r"labels outside 0\.\.9"),
        ({"data": np.zeros((1, 100), np.uint8), "labels": [1]}, "3072 columns"),
    ],
)
def test_parts_of_another_form_are_refused(tmp_path: Path, content: dict, text: str):
    files = {**cifar10_files(), "cifar-10-batches-py/test_batch": pickle.dumps(content)}
    with pytest.raises(DataError, match=text):
        load_cifar_arrays(write_tar(tmp_path / "c.tar", files), "cifar10")


def repickled(*, key=str, labels=list, scalar=int, protocol: int = 2) -> dict[str, bytes]:
    """The miniature's parts, read and written anew by another program."""
    files = {}
    for name, data in cifar10_files().items():
        if name.endswith(".html"):
            continue
        content = safe_unpickle(data)
        for field in ("labels", "label_names"):
            if field == "labels" and field in content:
                content[field] = labels([scalar(label) for label in content[field]])
            elif field in content:
                content[field] = [key(name) for name in content[field]]
        files[name] = pickle.dumps({key(field): value for field, value in content.items()}, protocol=protocol)
    return files


def as_bytes(text: str) -> bytes:
    return text.encode()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "form",
    [{}, {"key": as_bytes}, {"labels": np.array}, {"labels": tuple}, {"scalar": np.int64}],
    ids=["official", "bytes-keys", "array-labels", "tuple-labels", "numpy-labels"],
)
def test_parts_written_anew_give_the_same_arrays_and_say_that_nothing_vouches_for_them(
    tmp_path: Path, protocol: int, form: dict
):
    expected = load_cifar_arrays(write_folder(tmp_path / "a", cifar10_files()), "cifar10")
    found = load_cifar_arrays(write_folder(tmp_path / "b", repickled(protocol=protocol, **form)), "cifar10")
    assert found.classes == expected.classes
    for split, (images, labels) in expected.splits.items():
        assert np.array_equal(images, found.splits[split][0]) and labels.tolist() == found.splits[split][1].tolist()
    assert found.notes == (
        "not checked: cifar-10-batches-py was written anew by another program, and no checksum of that is published",
    )


def as_published(files: dict[str, bytes], monkeypatch) -> None:
    """Take the miniature's parts for the published ones."""
    digests = {name.rpartition("/")[2]: hashlib.md5(data).hexdigest() for name, data in files.items()}
    layout = dataclasses.replace(cifar._LAYOUTS["cifar10"], md5=digests)
    monkeypatch.setitem(cifar._LAYOUTS, "cifar10", layout)


def test_one_altered_byte_of_a_published_part_is_noticed(tmp_path: Path, monkeypatch):
    files = cifar10_files()
    as_published(files, monkeypatch)
    assert load_cifar_arrays(write_folder(tmp_path / "good", files), "cifar10").notes == ()
    name = "cifar-10-batches-py/data_batch_3"
    position = files[name].index(b"data_batch_3") + 2000  # among the pixels
    files[name] = files[name][:position] + bytes([files[name][position] ^ 1]) + files[name][position + 1 :]
    with pytest.raises(DataError, match=r"data_batch_3 is not the published file \(MD5 .*though others are"):
        load_cifar_arrays(write_folder(tmp_path / "bad", files), "cifar10")


@pytest.mark.parametrize(
    "labels", [[0.0, 1.0], [True, False], np.zeros((2, 1), np.int64), np.zeros(2), "ab", [2**70, 0]]
)
def test_labels_that_are_no_whole_numbers_are_refused(tmp_path: Path, labels: object):
    content = {"data": np.zeros((2, 3072), np.uint8), "labels": labels}
    files = {**cifar10_files(), "cifar-10-batches-py/test_batch": pickle.dumps(content)}
    with pytest.raises(DataError, match=r"test_batch has (no list 'labels'|labels outside)"):
        load_cifar_arrays(write_folder(tmp_path / "c", files), "cifar10")
