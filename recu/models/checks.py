"""What every network and every binariser must do, one's own ones too: learn, be saved, be continued, say its cost."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from recu.base.errors import ConfigError
from recu.binarisers.protocol import set_epoch_values
from recu.binarisers.recu import set_tau
from recu.experiment.binarisers import USUAL, find_binariser
from recu.experiment.networks import find_network
from recu.models.build import build_model
from recu.models.cost import measure_cost
from recu.nn.inference import inference_form

_CLASSES, _IMAGES = 5, 4


def check_binariser(name: str, *, family: str = "cifar", model: str = "resnet20_1w1a", size: int = 32) -> None:
    """Build a network with a binariser at each of its stages and find out whether it can be trained here.

    Args:
        name: as `binariser` of a recipe.
        family: of the network to try it in.
        model: its name.
        size: side of its images in pixels.

    Raises:
        ConfigError: naming what it does not do.
    """
    for stage in find_binariser(name, family=family).stages:
        if stage:
            _check(name, family, model, size, stage, f"binariser {name!r} at stage {stage}")


def check_network_code(model: str, *, family: str = "cifar", size: int = 32) -> None:
    """The same for a network, at each of its stages with the usual binariser."""
    for stage in find_network(model, family=family).stages:
        _check(USUAL, family, model, size, stage, f"model {model!r} at stage {stage}")


def _check(binariser: str, family: str, model: str, size: int, stage: int, what: str) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return build_model(model, family=family, num_classes=_CLASSES, stage=stage, binariser=binariser)

    try:
        cost = measure_cost(build(), size)
        _require(stage == 2 or not cost.binary_operations, "says that operations with real weights are binary")
        _check_learning(build, size)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error


def _check_learning(build: Callable[[], nn.Module], size: int) -> None:
    images = torch.randn(_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(1))
    images = images.contiguous(memory_format=torch.channels_last)  # as training and evaluation lay them out
    whole, parts = build(), build()
    _step(whole, images, 0)
    _step(parts, images, 0)
    continued = build()
    for parameter in continued.parameters():
        nn.init.zeros_(parameter)
    continued.load_state_dict(copy.deepcopy(parts.state_dict()))
    for network in (whole, continued):
        _step(network, images, 1)
        network.eval()
    with torch.no_grad():
        expected = whole(images)
        _require(bool(expected.isfinite().all()), "gives values that are not finite in evaluation")
        _require(expected.shape == (_IMAGES, _CLASSES), f"gives {tuple(expected.shape)} for logits (images, classes)")
        same = torch.equal(continued(images), expected)
        _require(same, "goes on differently from its saved state: what it keeps must be parameters or buffers")
        _require(torch.equal(inference_form(whole)(images), expected), "has another form for evaluation")


def _step(network: nn.Module, images: torch.Tensor, epoch: int) -> None:
    set_tau(network, 0.9)
    set_epoch_values(network, epoch, 2)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    logits = network(images)
    _require(logits.requires_grad, "gives nothing that can be learnt from")
    optimizer.zero_grad()
    logits.square().mean().backward()
    for name, parameter in network.named_parameters():
        if parameter.grad is None:
            raise ConfigError(f"gives {name} no gradient")
        _require(bool(torch.isfinite(parameter.grad).all()), f"gives {name} a gradient that is not finite")
    optimizer.step()


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ConfigError(problem)
