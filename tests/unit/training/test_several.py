"""A training shared by several processes: what they see, stop at, save and continue."""

from pathlib import Path

import pytest
import torch

from recu.base.errors import Interrupted
from recu.data.load.loader import Share
from recu.data.load.memory import MemoryLoader
from recu.data.load.torchvision_loader import ArrayImages, TorchvisionLoader, View
from recu.experiment.augmentations import BATCH_AUGMENTATIONS
from recu.training.checkpoint import read_checkpoint
from recu.training.device import place
from recu.training.evaluation import evaluate
from recu.training.processes import ALONE
from tests.several import in_processes
from tests.unit.training.tiny import CPU, RECIPE, StopAfter, TinyLoader, TinyLoaders, TinyNet, never, same, tiny_trainer

pytestmark = pytest.mark.processes

IMAGES = torch.randint(0, 256, (26, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(26) % 10
STATISTICS = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "device": CPU}


def memory(share: Share, seed: int | None = 3) -> MemoryLoader:
    augmentation = None if seed is None else BATCH_AUGMENTATIONS["crop_flip"]
    return MemoryLoader(IMAGES, LABELS, batch_size=8, seed=seed, augmentation=augmentation, share=share, **STATISTICS)


def torchvision(share: Share, seed: int | None = 3) -> TorchvisionLoader:
    view = View("crop_flip", "resize", 8)
    return TorchvisionLoader(ArrayImages(IMAGES, LABELS), view, batch_size=8, seed=seed, share=share, **STATISTICS)


@pytest.mark.parametrize("kind", [memory, torchvision])
@pytest.mark.parametrize("processes", [2, 3, 4, 7])
def test_every_batch_holds_the_same_images_with_the_same_crops_and_flips(kind, processes):
    for start in (0, 2):
        whole = list(kind(Share()).batches(5, start))
        parts = zip(*(kind(Share(rank, processes)).batches(5, start) for rank in range(processes)), strict=True)
        for (images, labels), part in zip(whole, parts, strict=True):
            assert torch.equal(torch.cat([each for each, _ in part]), images)
            assert torch.equal(torch.cat([each for _, each in part]), labels)
            assert [len(each) for _, each in part][: len(labels.chunk(processes))] == [
                len(each) for each in labels.chunk(processes)
            ], "as DataParallel cuts it"


@pytest.mark.parametrize("kind", [memory, torchvision])
@pytest.mark.parametrize("processes", [2, 3, 5])
def test_every_test_batch_comes_to_one_process_as_a_whole(kind, processes):
    whole = list(kind(Share(), None).batches(0))
    for rank in range(processes):
        own = list(kind(Share(rank, processes), None).batches(0))
        assert len(own) == len(whole[rank::processes])
        assert all(torch.equal(a[0], b[0]) for a, b in zip(own, whole[rank::processes], strict=True))


class Shared(TinyLoader):
    """Every process's share of a `TinyLoader`."""

    share = Share()

    def batches(self, epoch, start=0):
        for step, (images, labels) in enumerate(super().batches(epoch, start), start):
            if self.training:
                part = self.share.part(len(labels))
                yield images[part.start : part.stop], labels[part.start : part.stop]
            elif step % self.share.processes == self.share.rank:
                yield images, labels


def shared_loaders(processes, **settings):
    loaders = TinyLoaders(Shared(**settings), Shared(num_images=17, batch_size=5, training=False))
    for loader in loaders:
        loader.share = processes.share
    return loaders


def measured(processes):
    torch.manual_seed(0)
    return vars(evaluate(place(TinyNet(), CPU, kernels="off"), shared_loaders(processes).test, processes=processes))


def test_an_evaluation_is_equal_to_the_bit_whatever_the_number_of_processes():
    alone = measured(ALONE)
    assert in_processes(3, measured) == [alone] * 3


def trained(processes, folder: str, stops: list[int], **settings):
    """Train, stopping after so many questions in one of the processes each time; the final checkpoint's weights."""
    folder = Path(folder)
    for turn, times in enumerate([*stops, None]):
        loaders = shared_loaders(processes, num_images=30)
        trainer = tiny_trainer(folder, loaders, processes=processes, **settings)
        file = folder / "checkpoint.pth.tar"
        found = processes.from_first(lambda file=file: read_checkpoint(file) if file.exists() else None)
        if found is not None:
            trainer.continue_from(found)
        stop = never if times is None or processes.rank != turn % processes.count else StopAfter(times)
        try:
            trainer.run(stop)
        except Interrupted as error:
            assert times is not None and "stopped by SIGTERM" in str(error)
    return dict(trainer._model.state_dict())


@pytest.mark.parametrize("processes", [2, 3])
def test_a_stop_of_one_process_stops_all_and_the_same_bits_come_out(tmp_path, processes):
    settings = {"sync_batch_norm": processes == 3}
    straight = in_processes(processes, trained, str(tmp_path / "straight"), [], **settings)
    stopped = in_processes(processes, trained, str(tmp_path / "stopped"), [2, 5, 1], **settings)
    assert all(same(state, straight[0]) for state in straight + stopped)
    states = [read_checkpoint(tmp_path / name / "checkpoint.pth.tar") for name in ("straight", "stopped")]
    assert same(states[0]["state_dict"], states[1]["state_dict"]) and same(*(each["optimizer"] for each in states))
    assert len(states[0]["recu"]["random_of_others"]) == processes - 1
    rows = [[{k: row[k] for k in ("train_loss", "test_loss")} for row in each["recu"]["history"]] for each in states]
    assert rows[0] == rows[1]
    measured = [each["recu"]["diagnostics"] for each in states]
    assert measured[0] == measured[1] and len(measured[0]) == 3 and "null" not in "".join(measured[0])


def test_one_process_writes(tmp_path):
    assert RECIPE["epochs"] == 3
    in_processes(2, trained, str(tmp_path), [])
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoint.previous.pth.tar",
        "checkpoint.pth.tar",
        "diagnostics.jsonl",
        "history.jsonl",
        "model_best.pth.tar",
    ]
