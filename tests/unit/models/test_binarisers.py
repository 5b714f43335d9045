"""Every binariser of the table, at each of its stages, in a network of each kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recu.base.errors import ConfigError
from recu.binarisers.protocol import set_epoch_values, stated_cost
from recu.binarisers.recu import set_tau
from recu.experiment.binarisers import available_binarisers, find_binariser
from recu.models import ModelName, build_model
from recu.models.build import convolution_of, further_state
from recu.models.checks import check_binariser
from recu.models.cost import measure_cost
from recu.nn.inference import inference_form

NETWORKS = (
    ModelName("cifar", "resnet20_1w1a", None),
    ModelName("cifar", "resnet18A_1w1a", None),
    *(
        pytest.param(ModelName(*name), marks=pytest.mark.slow)
        for name in (
            ("cifar", "resnet18_1w1a", "2021-03"),
            ("cifar", "vgg_small_1w1a", None),
            ("imagenet", "resnet18_1w1a", None),
            ("reactnet", "resnet18_1w1a", None),
        )
    ),
)
STAGED = [(name, stage) for name in available_binarisers() for stage in find_binariser(name, family="").stages if stage]
every_binariser = pytest.mark.parametrize(("binariser", "stage"), STAGED)


def build(entry: ModelName, binariser: str, stage: int, classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    where = {"family": entry.family, "variant": entry.variant, "num_classes": classes}
    return build_model(entry.name, **where, stage=stage, binariser=binariser)


def images(count: int = 4) -> torch.Tensor:
    """As training and evaluation lay them out."""
    drawn = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return drawn.contiguous(memory_format=torch.channels_last)


def binarised(model: nn.Module, binariser: str, stage: int) -> list[nn.Module]:
    kind = convolution_of("cifar", stage, binariser)
    return [layer for layer in model.modules() if type(layer) is kind]


@every_binariser
@pytest.mark.parametrize("entry", NETWORKS, ids=lambda entry: ".".join(filter(None, entry)))
def test_a_step_reaches_every_parameter_and_evaluation_is_the_plain_one(entry, binariser, stage) -> None:
    model = build(entry, binariser, stage)
    assert len(binarised(model, binariser, stage)) >= 5
    set_tau(model, 0.9)
    set_epoch_values(model, 1, 2)
    model(images()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    model.eval()
    with torch.no_grad():
        expected = model(images())
        assert torch.isfinite(expected).all()
        assert torch.equal(inference_form(model)(images()), expected)


@pytest.mark.parametrize("binariser", available_binarisers())
def test_every_binariser_learns_is_saved_and_is_continued_to_the_same_bits(binariser) -> None:
    check_binariser(binariser)


@every_binariser
def test_costs_are_those_of_what_is_binary(binariser, stage) -> None:
    entry = NETWORKS[0]
    cost, real = (measure_cost(build(entry, name, at), 32) for name, at in ((binariser, stage), ("recu", 0)))
    layers = binarised(build(entry, binariser, stage), binariser, stage)
    assert {stated_cost(layer).binary for layer in layers} == {stage == 2}, "stage 2 alone is binary"
    everything = real.floating_point_operations
    assert cost.binary_operations + cost.floating_point_operations == everything
    assert cost.binary_operations == (everything - 442_688 if stage == 2 else 0)
    weights = sum(layer.weight.numel() for layer in layers)
    extra = cost.checkpoint_bytes - (real.checkpoint_bytes - (4 * weights - weights // 8 if stage == 2 else 0))
    scales = sum(layer.out_channels for layer in layers)
    expected = {"ir-net": scales, "reste": len(layers), "sign": scales, "biper": scales, "recu": scales}
    if binariser in expected:
        assert extra == 4 * (0 if (binariser, stage) == ("recu", 1) else expected[binariser])


def test_stages_add_the_state_that_they_say() -> None:
    assert further_state("cifar", "recu", 1, 2) == further_state("imagenet", "recu", 0, 2) == ("alpha", "tau")
    assert further_state("cifar", "biper", 1, 2) == ()
    assert further_state("reactnet", "biper", 0, 1) == ("alpha", "f")
    assert further_state("birealnet", "recu", 1, 2) == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"binariser": "irnet"}, "unknown binariser 'irnet'; did you mean 'ir-net'"),
        ({"binariser": "ir-net", "stage": 1}, r"binariser 'ir-net' has no stage 1, expected 0 or 2"),
        (
            {"binariser": "sign", "family": "birealnet", "name": "birealnet18"},
            "networks of family 'birealnet' are the competitor's, with its own binariser: leave binariser out",
        ),
    ],
)
def test_what_cannot_be_built_is_one_line(arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(**({"name": "resnet20_1w1a", "family": "cifar", "num_classes": 4} | arguments))
