"""The loaders of large images that are compared read the same files and deliver the same amount."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import engines, image_files
from benchmarks.reference import image_files as reference
from recu.base.errors import DataError
from recu.data.load.torchvision_loader import FileImages, TorchvisionLoader, View
from tests.unit.data.builders import DALI_EXISTS, write_tar

CPU = torch.device("cpu")


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    files = {
        "README.txt": b"about",
        "loose.JPEG": jpeg(9),
        "n02/b.JPEG": jpeg(2),
        "n01/a.jpg": jpeg(1),
        "n01/notes.txt": b"no image",
        "n01/c.jpeg": jpeg(3),
    }
    return write_tar(tmp_path / "images.tar", files)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "extracted").mkdir()
    return tmp_path / "extracted"


def test_few_images_are_taken_again_from_the_front(source: Path, folder: Path):
    index = image_files.extract_images(source, folder, 7)
    assert index.labels.tolist() == [1, 0, 0, 1, 0, 0, 1] and len(set(index.paths)) == 3
    assert [(index.root / path).read_bytes() for path in index.paths[3:6]] == [jpeg(2), jpeg(1), jpeg(3)]


def test_of_many_images_the_first_are_taken(source: Path, folder: Path):
    index = image_files.extract_images(source, folder, 2)
    assert index.labels.tolist() == [1, 0] and len(list(folder.iterdir())) == 2


def test_folders_are_read_too(tmp_path: Path, folder: Path):
    for name in ("n01/a.JPEG", "n02/b.JPEG"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True)
        (tmp_path / "tree" / name).write_bytes(jpeg(1))
    assert image_files.extract_images(tmp_path / "tree", folder, 2).labels.tolist() == [0, 1]


def test_sources_that_cannot_be_measured(tmp_path: Path, folder: Path):
    broken = write_tar(tmp_path / "broken.tar", {"n01/a.JPEG": jpeg(1)[:500]})
    with pytest.raises(DataError, match=r"unreadable image .*broken\.tar: n01/a\.JPEG"):
        image_files.extract_images(broken, folder, 2)
    empty = write_tar(tmp_path / "empty.tar", {"a.JPEG": jpeg(1)})
    with pytest.raises(DataError, match=r"no JPEG in a class folder; expected <class>/<name>\.JPEG"):
        image_files.extract_images(empty, folder, 2)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("train", [True, False])
def test_each_call_delivers_a_whole_epoch(source: Path, folder: Path, train: bool, workers: int):
    index = image_files.extract_images(source, folder, 5)
    inputs = image_files.build_inputs(index, train=train, batch_size=3, workers=workers, device=CPU)
    assert list(inputs) == ["reference", "shipped", *(["dali"] if DALI_EXISTS else [])]
    assert {name: [load(), load()] for name, load in inputs.items()} == {name: [5, 5] for name in inputs}


def test_the_reference_shows_the_test_views_of_the_package(source: Path, folder: Path):
    index = image_files.extract_images(source, folder, 3)
    paths = [index.root / path for path in index.paths]
    plain = reference.build_loader(paths, index.labels.tolist(), 3, train=False, workers=0)
    view = View(image_files.AUGMENTATION, image_files.TEST_VIEW, image_files.IMAGE_SIZE)
    ours = TorchvisionLoader(
        FileImages(index), view, mean=engines.MEAN, std=engines.STD, batch_size=3, device=CPU, seed=None
    )
    (theirs, their_labels), (images, labels) = next(iter(plain)), next(ours.batches(0))
    levels = (theirs - images) * torch.tensor(engines.STD).view(3, 1, 1) * 255
    assert torch.equal(labels, their_labels) and levels.abs().max() <= 2.01


def test_the_reference_augments_in_training(source: Path, folder: Path):
    index = image_files.extract_images(source, folder, 1)
    plain = reference.build_loader([index.root / index.paths[0]], [0], 1, train=True, workers=0)
    (first, _), (second, _) = next(iter(plain)), next(iter(plain))
    assert first.shape == (1, 3, 224, 224) and not torch.equal(first, second)


def test_without_dali_the_others_are_measured_and_one_line_says_so(source, folder, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    index = image_files.extract_images(source, folder, 2)
    assert list(image_files.build_inputs(index, train=True, batch_size=2, workers=0, device=CPU)) == [
        "reference",
        "shipped",
    ]
    assert "DALI is not installed (`pip install nvidia-dali-cuda130`)" in caplog.text and len(caplog.records) == 1
