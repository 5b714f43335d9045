"""The project's networks against the plain reference, float64, to 1e-9: keys, logits, loss and every gradient.

Every network of this package at every stage, those without a golden file included.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.reference import build_reference
from benchmarks.reference.networks import BUILDERS
from recu.models import ModelName, available_models, build_model
from tests.golden.fill import fill, golden_input

TOLERANCE = 1e-9
TAU = 0.9
CLASSES = 10
SIZES = {"cifar": 32}  # of images; the formulas are the same at every size
OTHER_SIZE = 64
TARGETS = torch.tensor([3, 7])

TRAINED = {"reactnet": (1, 2), "birealnet": (1, 2)}  # stages that the paper trains, where not stage 2 alone

NETWORKS = [name for name in available_models() if name in BUILDERS]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _cases() -> list:
    """Every network and stage; deep networks, and stages that the paper does not train, run with the slow tests."""
    return [
        pytest.param(
            network,
            stage,
            id=f"{'.'.join(filter(None, network))}-stage{stage}",
            marks=() if stage in TRAINED.get(network.family, (2,)) and "34" not in network.name else pytest.mark.slow,
        )
        for network in NETWORKS
        for stage in (0, 1, 2)
    ]


@pytest.mark.parametrize(("network", "stage"), _cases())
def test_networks_equal_the_reference(network: ModelName, stage: int) -> None:
    arguments = {"family": network.family, "num_classes": CLASSES, "variant": network.variant, "stage": stage}
    fast, plain = build_model(network.name, **arguments), build_reference(network.name, **arguments)
    assert [(key, value.shape) for key, value in fast.state_dict().items()] == [
        (key, value.shape) for key, value in plain.state_dict().items()
    ]
    images = golden_input(len(TARGETS), SIZES.get(network.family, OTHER_SIZE))
    fast_logits, fast_loss = _train_once(fast, images)
    plain_logits, plain_loss = _train_once(plain, images)

    assert fast_loss.item() == pytest.approx(plain_loss.item(), rel=TOLERANCE)
    assert (fast_logits - plain_logits).norm() <= TOLERANCE * plain_logits.norm()
    gradients = {key: parameter.grad for key, parameter in plain.named_parameters()}
    for key, parameter in fast.named_parameters():
        scale = gradients[key].norm()
        if key.endswith(".alpha"):
            # BatchNorm behind the layer cancels all but a millionth of alpha's gradient, so that its rounding
            # is that of the terms; the gradient of the layer's weight is of their size.
            scale = torch.maximum(scale, gradients[key.replace(".alpha", ".weight")].norm())
        assert (parameter.grad - gradients[key]).norm() <= TOLERANCE * scale, key

    with torch.no_grad():
        fast_logits, plain_logits = fast.eval()(images), plain.eval()(images)
    assert (fast_logits - plain_logits).norm() <= TOLERANCE * plain_logits.norm()


def _train_once(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    model.double().train()
    fill(model, TAU)
    logits = model(images)
    loss = F.cross_entropy(logits, TARGETS)
    loss.backward()
    return logits.detach(), loss.detach()
