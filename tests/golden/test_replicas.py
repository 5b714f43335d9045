"""Several processes compute what the authors' `DataParallel` does: its golden values, and its arithmetic on one."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.kernels.exact import switch_off
from recu.models import build_model
from recu.training import build_optimizer
from recu.training.loop import train_steps
from recu.training.processes import ALONE, Processes
from recu.training.replicas import replicate, take_first_buffers
from recu.training.sums import RunningSums
from tests.golden.cases import OPTIMISERS
from tests.golden.fill import fill, golden_input
from tests.several import in_processes
from tests.unit.training.tiny import TinyNet

pytestmark = pytest.mark.processes

FILES = sorted((Path(__file__).parent / "replicas").glob("*.json"))
RELATIVE = 1e-6


def network(family: str, model: str, classes: int = 10) -> nn.Module:
    built = (TinyNet() if family == "tiny" else build_model(model, family=family, num_classes=classes)).double()
    fill(built, 0.9)
    if family == "tiny":
        switch_off(built)  # compiling, or loading what was compiled, would take every process many times its steps
    return built


class Batches:
    """A loader of one batch a step, always the same images."""

    def __init__(self, images: Tensor, labels: Tensor, steps: int, processes: Processes) -> None:
        part = processes.share.part(len(labels))
        self.batch_size, self.num_images = len(labels), steps * len(labels)
        self._batch, self._steps = (images[part.start : part.stop], labels[part.start : part.stop]), steps

    def batches(self, _epoch: int, _start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self._steps):
            yield self._batch


def three_steps(
    processes: Processes, family: str, model: str, labels: list[int], size: int, optimiser: str, synchronised: bool
) -> dict:
    """Three steps of the engine, with all that the golden files say of them."""
    bare = network(family, model)
    optimizer = build_optimizer(bare, *OPTIMISERS[optimiser])
    replica = replicate(bare, processes, synchronised=synchronised)
    images, targets = golden_input(len(labels), size), torch.tensor(labels)
    found: dict = {"losses": [], "logits": None, "gradients": None}
    loader = Batches(images, targets, 3, processes)
    sums = RunningSums(torch.device("cpu"))
    logits: list[Tensor] = []
    bare.register_forward_hook(lambda _module, _inputs, output: logits.append(output.detach()))
    before = 0.0
    for step in train_steps(replica, loader, optimizer, sums, epoch=0, processes=processes, synchronised=synchronised):
        whole = sums.over(processes)
        total = whole.read().loss * whole.n
        found["losses"].append((total - before) / len(labels))
        before = total
        if step == 1:
            found["logits"] = torch.cat(processes.gather(logits[0] if logits else torch.empty(0, 10).double()))
            found["gradients"] = {name: value.grad.clone() for name, value in bare.named_parameters()}
    take_first_buffers(bare, processes)
    return found | {"state": bare.state_dict()}


def data_parallel(family: str, model: str, labels: list[int], size: int, optimiser: str, replicas: int) -> dict:
    """The same as `nn.DataParallel` computes it: a copy of the network for each part, one loss over all logits."""
    bare = network(family, model).train()
    optimizer = build_optimizer(bare, *OPTIMISERS[optimiser])
    images, targets = golden_input(len(labels), size), torch.tensor(labels)
    losses, first = [], None
    for _ in range(3):
        parts = images.chunk(replicas)
        copies = [bare, *(copy.deepcopy(bare) for _ in parts[1:])]
        logits = torch.cat([each(part) for each, part in zip(copies, parts, strict=True)])
        loss = F.cross_entropy(logits, targets)
        for each in copies:
            each.zero_grad()
        loss.backward()
        for name, parameter in bare.named_parameters():
            parameter.grad = sum(each.get_parameter(name).grad for each in copies)
        first = first or (logits.detach(), {name: value.grad.clone() for name, value in bare.named_parameters()})
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses, "logits": first[0], "gradients": first[1], "state": bare.state_dict()}


def difference_of_the_first_step(found: dict, expected: dict) -> float:
    """Relative to the size of the logits, and of all gradients together."""
    assert found["gradients"].keys() == expected["gradients"].keys()
    # Of alpha's gradient alone rounding leaves little: it is a sum of large terms that cancel in the BatchNorm.
    gradients = (torch.cat([value.flatten() for value in each["gradients"].values()]) for each in (found, expected))
    return max(relative(found["logits"], expected["logits"]), relative(*gradients))


def largest_difference(found: dict, expected: dict) -> float:
    """As of the first step, and relative to the size of the losses and of each tensor of the state."""
    assert found["state"].keys() == expected["state"].keys()
    return max(
        difference_of_the_first_step(found, expected),
        relative(torch.tensor(found["losses"]), torch.tensor(expected["losses"])),
        *(relative(found["state"][name], value) for name, value in expected["state"].items()),
    )


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-6)).item()


def test_there_is_a_golden_file() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_golden_values(file: Path) -> None:
    golden = SimpleNamespace(**json.loads(file.read_text()))
    family, model = golden.network.split(".")
    arguments = (family, model, golden.targets, golden.size, golden.optimizer, False)
    for found in in_processes(golden.replicas, three_steps, *arguments):
        assert found["logits"][:, :10].tolist() == [
            pytest.approx(row, rel=RELATIVE) for row in golden.train_logits_head
        ]
        norms = {name: value.norm().item() for name, value in found["gradients"].items()}
        assert norms == pytest.approx(golden.grad_l2, rel=RELATIVE)
        assert found["losses"] == pytest.approx(golden.three_step_losses, rel=RELATIVE)
        norms = {name: value.double().norm().item() for name, value in found["state"].items()}
        expected = golden.params_l2_after_3_steps | golden.buffers_l2_after_3_steps
        assert {name: norms[name] for name in expected} == pytest.approx(expected, rel=RELATIVE)


LABELS = [index * 7 % 10 for index in range(80)]


@pytest.mark.parametrize(("replicas", "images"), [(2, 80), (3, 80), (4, 80), (7, 80), (4, 9)])
def test_a_batch_that_does_not_divide(replicas: int, images: int) -> None:
    """Of nine images four processes see three, three, three and none."""
    arguments = ("tiny", "", LABELS[:images], 8, "sgd_cifar")
    expected = data_parallel(*arguments, replicas)
    for found in in_processes(replicas, three_steps, *arguments, False):
        assert largest_difference(found, expected) < 1e-12


@pytest.mark.parametrize(("replicas", "images"), [(2, 80), (3, 80), (4, 9)])
def test_synchronised_equals_one_process(replicas: int, images: int) -> None:
    arguments = ("tiny", "", LABELS[:images], 8, "sgd_cifar")
    expected = three_steps(ALONE, *arguments, True)
    for found in in_processes(replicas, three_steps, *arguments, True):
        assert largest_difference(found, expected) < 1e-9
    assert largest_difference(data_parallel(*arguments, replicas), expected) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("synchronised", [False, True])
@pytest.mark.parametrize(
    ("family", "model"),
    [
        ("cifar", "resnet20_1w1a"),
        ("cifar", "vgg_small_1w1a"),
        ("imagenet", "resnet18_1w1a"),
        ("reactnet", "resnet18_1w1a"),
    ],
)
def test_every_family(family: str, model: str, synchronised: bool) -> None:
    """Nine images on four processes, one of which has none."""
    arguments = (family, model, LABELS[:9], 32, "sgd_imagenet")
    expected = three_steps(ALONE, *arguments, True) if synchronised else data_parallel(*arguments, 4)
    for found in in_processes(4, three_steps, *arguments, synchronised):
        assert difference_of_the_first_step(found, expected) < (1e-9 if synchronised else 1e-12)
        # Without a learning rate that suits them, weights grow to 1e13 in three steps, and rounding with them.
        assert largest_difference(found, expected) < (1e-9 if synchronised else 1e-8)
