"""The switches of the method, each against a plain computation in float64, in every path a layer may take."""

import math

import pytest
import torch
from torch import Tensor

from recu.binarisers.protocol import stated_latent_weights
from recu.binarisers.recu import BinaryConv2d, set_tau, tau_at
from recu.models import build_model
from recu.models.build import convolution_of
from recu.models.cost import measure_cost
from recu.nn import convolve

AXES = (1, 2, 3)
SCALES = {"recu": 2.0, "recu-b1": 1.0, "recu-b4": 4.0}
VARIED = ("recu-centred", "recu-unstandardised", "recu-b1", "recu-b4")
every_variation = pytest.mark.parametrize("name", ("recu", *VARIED))


def plain(a: Tensor, conv: BinaryConv2d, name: str, *, training: bool) -> Tensor:
    """The formulas of the method, written once more; gradients by terms whose value is zero."""
    w, tau = conv.weight, conv.tau.item()
    if name != "recu-unstandardised":
        w = w - w.mean(AXES, keepdim=True)
    if name in SCALES:
        w = w / torch.sqrt(w.var(AXES, keepdim=True) + 1e-5) * (SCALES[name] * math.sqrt(2))
    if tau < 1:
        q = -w.detach().abs().mean() * math.log(2 - 2 * tau)
        w = torch.minimum(torch.maximum(w, -q), q)
    if training:
        a = a / torch.sqrt(a.var(AXES, keepdim=True) + 1e-5)
    within = a.clamp(-1, 1)
    curve = 2 * within - within * within.abs()  # of derivative 2 - 2|a|
    binary_a, binary_w = torch.sign(a) + curve - curve.detach(), torch.sign(w) + w - w.detach()
    return torch.nn.functional.conv2d(binary_a, binary_w, None, conv.stride, conv.padding) * conv.alpha


def layer(name: str) -> BinaryConv2d:
    torch.manual_seed(1)
    conv = convolution_of("cifar", 2, name)(3, 4, 3, padding=1).double()
    conv.weight.data.add_(0.1)  # so that centring matters
    return conv


def gradients(out: Tensor, *of: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return list(torch.autograd.grad((out * weights).sum(), of))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("tau", [0.8, 0.99, 1.0])
@every_variation
def test_values_and_gradients_are_those_of_the_formulas(name, tau, training) -> None:
    conv = layer(name).train(training)
    set_tau(conv, tau)
    activation = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    leaves = (activation, conv.weight, conv.alpha)
    expected = plain(activation, conv, name, training=training)
    for found in (conv(activation), convolve(conv, activation)):  # the layer itself, and what networks call
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(gradients(found, *leaves), gradients(expected, *leaves), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
        expected = plain(activation, conv, name, training=training)
    with torch.no_grad():
        assert torch.allclose(convolve(conv, activation), expected, rtol=1e-12, atol=1e-12)


def test_the_switches_do_something() -> None:
    signs = {name: torch.sign(stated_latent_weights(layer(name)).before) for name in ("recu", *VARIED)}
    assert not torch.equal(signs["recu-unstandardised"], signs["recu"])
    assert all(torch.equal(signs[name], signs["recu"]) for name in ("recu-centred", "recu-b1", "recu-b4"))
    activation = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    narrow, wide = layer("recu-b1"), layer("recu-b4")
    first, second = (gradients(conv(activation), conv.weight)[0] for conv in (narrow, wide))
    assert torch.allclose(4 * first, second, rtol=1e-6), "a scale changes gradients alone"


@pytest.mark.parametrize(("name", "b"), SCALES.items())
def test_a_scale_is_the_deviation_of_its_laplacian(name, b) -> None:
    before = stated_latent_weights(layer(name)).before
    assert before.std(AXES).tolist() == pytest.approx([b * math.sqrt(2)] * 4, rel=1e-3)


@pytest.mark.parametrize("name", VARIED)
def test_they_cost_what_recu_costs_and_have_its_keys(name) -> None:
    varied, usual = (
        build_model("resnet20_1w1a", family="cifar", num_classes=10, binariser=each) for each in (name, "recu")
    )
    assert measure_cost(varied, 32) == measure_cost(usual, 32)
    assert varied.state_dict().keys() == usual.state_dict().keys()


def test_a_fixed_tau_is_fixed_and_one_is_no_clamp() -> None:
    assert {tau_at(epoch, 600, 0.9, 0.9) for epoch in range(600)} == {0.9}
    assert {tau_at(epoch, 7, 1.0, 1.0) for epoch in range(7)} == {1.0}
    latent = stated_latent_weights(layer("recu"))  # tau is 1 until it is set
    assert latent.threshold == math.inf and torch.equal(latent.before, latent.after)
