import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from recu.base.errors import ConfigError, DataError
from recu.data import build_loaders, open_prepared, prepare
from recu.data.index import read_index
from tests.unit.data.builders import (
    DALI_EXISTS,
    class_tree,
    dataset,
    image_bytes,
    large_dataset,
    prepared_as_it_is,
    write_imagenet,
    write_tar,
)

needs_dali = pytest.mark.skipif(not DALI_EXISTS, reason="NVIDIA DALI exists for Linux on x86_64 and aarch64 only")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = write_imagenet(tmp_path / "archives", validation=7)
    prepare("im", large_dataset(), folder=tmp_path / "im", source=source, workers=0)
    return tmp_path / "im"


def build(folder: Path, entry=None, loader: str = "dali", **changes):
    arguments = {"batch_size": 5, "batch_size_test": 3, "seed": 1, "device": "cpu", "workers": 1}
    return build_loaders(
        open_prepared(folder, entry or large_dataset()),
        entry or large_dataset(),
        loader=loader,
        **{**arguments, **changes},
    )


class LateStream:
    """In the place of a GPU's stream: what it is given is done when somebody waits for it."""

    def __init__(self, *_: object) -> None:
        self.given: list[Callable[[], object]] = []

    def synchronize(self) -> None:
        while self.given:
            self.given.pop(0)()


class OnTheGpu:
    """A tensor on a GPU, as far as it is copied."""

    def __init__(self, memory: torch.Tensor, streams: list[LateStream]) -> None:
        self._memory, self._streams = memory, streams

    def clone(self) -> torch.Tensor:
        copy = torch.zeros_like(self._memory)
        self._streams[-1].given.append(lambda: copy.copy_(self._memory))
        return copy


@needs_dali
def test_on_a_gpu_a_batch_is_not_the_next_one_that_dali_writes_into_its_memory(folder: Path, monkeypatch):
    streams, memory = [LateStream()], torch.full((3, 4, 4, 3), 1, dtype=torch.uint8)

    @contextmanager
    def within(stream: LateStream) -> Iterator[None]:
        streams.append(stream)
        yield
        streams.pop()

    monkeypatch.setattr(torch.cuda, "Stream", LateStream)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: streams[-1])
    monkeypatch.setattr(torch, "from_dlpack", lambda _: OnTheGpu(memory, streams))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    output = SimpleNamespace(as_tensor=lambda: None)
    pipeline = SimpleNamespace(share_outputs=lambda: (output,), release_outputs=lambda: memory.fill_(2))
    loader = build(folder).test
    monkeypatch.setattr(loader, "_device", torch.device("cuda:0"))
    batch = loader._take(pipeline)
    streams[0].synchronize()
    assert batch.unique().tolist() == [1]


def collect(batches) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_without_dali_the_message_names_the_package_for_each_cuda(folder: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ConfigError, match=r"nvidia-dali-cuda130.*CUDA 13.*nvidia-dali-cuda110.*CUDA 11"):
        build(folder)


def test_decoded_datasets_are_refused(tmp_path: Path):
    archive = write_tar(tmp_path / "x.tar", class_tree())
    prepare("mini", dataset(), folder=tmp_path / "mini", source=archive, workers=0)
    with pytest.raises(ConfigError, match=r"choose .auto. or .*in place of --use_dali"):
        build(tmp_path / "mini", dataset(), batch_size=4)


@needs_dali
def test_each_image_once_with_its_label_and_the_last_batch_short(folder: Path):
    loaders = build(folder)
    batches = list(loaders.test.batches(0))
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    assert collect(batches)[1].tolist() == read_index(folder, "test").labels.tolist()
    assert sorted(collect(loaders.train.batches(0))[1].tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@needs_dali
def test_continuing_at_a_batch_gives_the_same_images(folder: Path):
    train = build(folder).train
    whole, rest = list(train.batches(1)), list(train.batches(1, start=1))
    assert len(rest) == 1 and torch.equal(rest[0][0], whole[1][0]) and torch.equal(rest[0][1], whole[1][1])


@needs_dali
@pytest.mark.parametrize("keep", [10, 400])
def test_a_corrupt_image_is_named_or_skipped_and_counted(folder: Path, keep: int):
    index = read_index(folder, "test")
    path = index.root / index.paths[4]
    path.write_bytes(path.read_bytes()[:keep])
    folder = prepared_as_it_is(folder)
    with pytest.raises(DataError, match=f"unreadable image .*{path.name}"):
        collect(build(folder).test.batches(0))
    test = build(folder, skip_unreadable=True).test
    _, labels = collect(test.batches(0))
    expected = index.labels.tolist()
    assert labels.tolist() == expected[:4] + expected[5:] and test.skipped == 1


@needs_dali
def test_an_image_cut_off_below_the_part_that_is_shown_is_noticed(folder: Path):
    index = read_index(folder, "train")
    for number, path in enumerate(index.paths):
        (index.root / path).write_bytes(image_bytes(number, (400, 400), "JPEG")[:-2000])
    train = build(prepared_as_it_is(folder), skip_unreadable=True).train
    # Every batch keeps its place, without images.
    assert [len(labels) for _, labels in train.batches(0)] == [0] * train.num_batches and train.skipped == 9


@needs_dali
@pytest.mark.parametrize("keep", [10, 400])
@pytest.mark.parametrize(("broken", "left"), [((3, 4, 5), [3, 0, 1]), ((0, 1, 2, 6), [0, 3, 0]), ((1, 4), [2, 2, 1])])
def test_a_batch_that_lost_images_moves_no_other(folder: Path, keep: int, broken: tuple, left: list):
    index = read_index(folder, "test")
    for number in broken:
        path = index.root / index.paths[number]
        path.write_bytes(path.read_bytes()[:keep])
    test = build(prepared_as_it_is(folder), skip_unreadable=True).test
    assert [len(labels) for _, labels in test.batches(0)] == left
    assert test.skipped == len(broken)
    assert [len(labels) for _, labels in test.batches(0, start=1)] == left[1:]


@needs_dali
@pytest.mark.parametrize(("split", "test_view"), [("train", None), ("test", None), ("test", "resize")])
def test_pixels_agree_with_torchvision_on_real_images(
    tmp_path: Path, shared_data: Path, split: str, test_view: str | None
):
    """Tolerance in levels of 0..255: a mean difference below 0.35, and no more than one value in a thousand off by
    over 3.

    DALI's anti-aliasing filter leaves out an outermost tap at some positions, so single values differ by up to 16. In
    training torchvision's images carry lighting noise, which darkens by up to one level and which DALI's have not.
    """
    with tarfile.open(shared_data / "imagenet-sample-100.tar") as tar:
        tar.extractall(tmp_path / "tree" / "train", filter="data")
    # The same images in either split, but for one: a test split that is the training split is refused.
    shutil.copytree(tmp_path / "tree" / "train", tmp_path / "tree" / "val")
    first = min((tmp_path / "tree" / "val").rglob("*.*"))
    first.write_bytes(max((tmp_path / "tree" / "val").rglob("*.*")).read_bytes())
    entry = large_dataset(num_classes=100, image_size=224, test_view=test_view)
    prepare("im", entry, folder=tmp_path / "im", source=tmp_path / "tree", workers=0)
    sizes = {"batch_size": 50, "batch_size_test": 64}
    (ours, labels), (theirs, their_labels) = (
        collect(getattr(build(tmp_path / "im", entry, loader, **sizes), split).batches(0))
        for loader in ("torchvision", "dali")
    )
    assert torch.equal(labels, their_labels) and len(labels) == 100
    levels = (theirs - ours) * torch.tensor(entry.std).view(3, 1, 1) * 255
    lighting = 1.01 if split == "train" else 0.01
    assert levels.mean() > -0.01 and levels.mean() < lighting
    assert levels.abs().mean() < 0.35 + (0.5 if split == "train" else 0)
    assert (levels.abs() > 3.5).float().mean() < 0.001
    assert levels.abs().max() < 17
