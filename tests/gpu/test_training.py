"""Training on the GPU: one step of everything, no waiting for it, and the same bits after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from recu.base.files import hash_file
from recu.experiment import paths
from recu.models import available_models, build_model
from recu.training import build_optimizer
from recu.training.device import COMPILE_MODES, place
from recu.training.loop import train_steps
from recu.training.seeding import make_deterministic
from recu.training.sums import RunningSums
from tests.history import comparable, read_history
from tests.unit.data.builders import memory_loader

CLASSES = 10
COMPILED = [("cifar", "resnet20_1w1a"), ("imagenet", "resnet18_1w1a"), ("reactnet", "resnet18_1w1a")]

every_network = pytest.mark.parametrize(
    "entry", available_models(stage=2), ids=lambda entry: ".".join(filter(None, entry))
)


def train(network, device, *, precision="fp32", epochs=1) -> RunningSums:
    optimizer = build_optimizer(network, "sgd", 0.01, 0.9, 5e-4, "all")
    loader, sums = memory_loader(device), RunningSums(device)
    for epoch in range(epochs):
        for _ in train_steps(network, loader, optimizer, sums, epoch=epoch, precision=precision):
            pass
    assert sums.first_bad_step() is None
    return sums


@every_network
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_an_epoch_of_every_network(entry, precision, device, record) -> None:
    if precision != "fp32" and device.type == "cpu":
        pytest.skip("CPUs have no tf32, and bf16 takes minutes on most")
    torch.manual_seed(0)
    network = build_model(entry.name, family=entry.family, variant=entry.variant, num_classes=CLASSES)
    record(loss=train(place(network, device), device, precision=precision).read().loss)


@pytest.mark.parametrize(("family", "name"), COMPILED, ids=lambda each: each)
@pytest.mark.parametrize("compile_as", COMPILE_MODES)
def test_compiled_networks(family, name, compile_as, cuda, record) -> None:
    losses = []
    for form in (None, compile_as):
        torch.manual_seed(0)
        make_deterministic(compiles=form is not None)
        network = build_model(name, family=family, num_classes=CLASSES)
        begun = time.monotonic()
        losses.append(train(place(network, cuda, compile_as=form), cuda, epochs=2).read().loss)
    record(loss=losses[1], uncompiled=losses[0], seconds=time.monotonic() - begun)
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_nothing_waits_for_the_gpu_within_an_epoch(cuda) -> None:
    network = place(build_model("resnet20_1w1a", family="cifar", num_classes=CLASSES), cuda)
    optimizer = build_optimizer(network, "sgd", 0.01, 0.9, 5e-4, "all")
    steps = train_steps(network, memory_loader(cuda), optimizer, RunningSums(cuda), epoch=0)
    next(steps)  # the epoch's order and draws are moved there before the first batch
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(steps)) == 3
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_images_in_memory_lie_on_the_device(device) -> None:
    loader = memory_loader(device)
    assert {tensor.device for batch in loader.batches(0) for tensor in batch} == {device}
    assert loader._images.device == loader._labels.device == device


def command(folder: Path, device: torch.device) -> list[str]:
    words = ["train", "--dataset", "digits", "--model", "resnet20_1w1a", "--epochs", "3", "--seed", "7"]
    words += ["--gpus", "0" if device.type == "cuda" else "cpu", "--tracking_uri", "", "--save_minutes", "0.01"]
    return [sys.executable, "-m", "recu", *words, "--data_dir", str(folder.parent / "data"), "--save", str(folder)]


def test_a_training_that_is_stopped_and_goes_on_gives_the_same_bits(device, tmp_path, record) -> None:
    begun = time.monotonic()
    subprocess.run(command(tmp_path / "whole", device), check=True)
    record(seconds=time.monotonic() - begun)
    subprocess.run(command(tmp_path / "again", device), check=True)
    stopped = subprocess.Popen(command(tmp_path / "stopped", device))
    history = tmp_path / "stopped" / paths.HISTORY
    while stopped.poll() is None and not (history.exists() and history.read_text()):
        time.sleep(0.05)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait() == 75, "it was to be stopped before its end"
    subprocess.run(command(tmp_path / "stopped", device), check=True)
    whole = [comparable(row) for row in read_history(tmp_path / "whole" / paths.HISTORY)]
    for other in ("again", "stopped"):
        assert [comparable(row) for row in read_history(tmp_path / other / paths.HISTORY)] == whole
        assert hash_file(tmp_path / other / paths.BEST_CHECKPOINT) == hash_file(
            tmp_path / "whole" / paths.BEST_CHECKPOINT
        )
