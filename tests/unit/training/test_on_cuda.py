"""What can be known of a GPU without one: fake tensors on it say on which device every operation computes.

Backward passes are left out, which fake tensors do not carry out on a machine without CUDA; `tests/gpu` runs them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recu.models import ModelName, available_models, build_model
from recu.training.device import lay_out
from recu.training.sums import RunningSums
from tests.unit.data.builders import memory_loader

CUDA = torch.device("cuda:0")
CLASSES = 10

every_network = pytest.mark.parametrize(
    "entry", available_models(stage=2), ids=lambda entry: ".".join(filter(None, entry))
)


class Devices(TorchDispatchMode):
    """Counts the operations whose results lie elsewhere than on the GPU, or come back to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: Counter[str] = Counter()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "prim":  # asks a tensor for its device
            return result
        self.operations += 1
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if any(tensor.device.type != "cuda" for tensor in made) or not made:
            self.elsewhere[str(func)] += 1
        return result


@pytest.fixture
def fake() -> Iterator[None]:
    with FakeTensorMode():
        yield


def network_of(entry: ModelName) -> nn.Module:
    with CUDA:
        return build_model(entry.name, family=entry.family, variant=entry.variant, num_classes=CLASSES)


@every_network
@pytest.mark.usefixtures("fake")
def test_a_network_and_its_losses_compute_on_the_gpu_alone(entry: ModelName) -> None:
    network, sums = network_of(entry), RunningSums(CUDA)
    images = lay_out(torch.empty(4, 3, 32, 32, device=CUDA))
    labels = torch.empty(4, dtype=torch.int64, device=CUDA)
    with Devices() as seen:
        logits = network.train()(images)
        sums.add(F.cross_entropy(logits, labels).detach(), logits.detach(), labels, 0)
        with torch.inference_mode():
            assert network.eval()(images).shape == (4, CLASSES)
    assert seen.operations > 50 and not seen.elsewhere


@pytest.mark.usefixtures("fake")
def test_images_in_memory_stay_on_the_gpu_and_an_epoch_moves_its_draws_once() -> None:
    loader = memory_loader(CUDA, count=20)
    batches = loader.batches(0)
    first = next(batches)
    with Devices() as seen:
        rest = list(batches)
    assert {tensor.device for batch in (first, *rest) for tensor in batch} == {CUDA}
    assert len(rest) == 1 and seen.operations > 4 and not seen.elsewhere


@pytest.mark.usefixtures("fake")
def test_what_would_wait_for_the_gpu_is_seen() -> None:
    with Devices() as seen:
        torch.empty(2, device=CUDA).sum()
        assert not seen.elsewhere
        torch.empty(2, device=CUDA).cpu()
        torch.zeros(2)
    assert len(seen.elsewhere) == 2
