"""ReCU step by step: standardisation, Q(tau), the clamp, rescaling, the schedule of tau."""

import math
import re

import pytest
import torch
from torch import nn

from recu.base.errors import ConfigError
from recu.binarisers.recu import (
    BinaryConv2d,
    quantile_threshold,
    recu_clamp,
    rescale_per_sample,
    set_tau,
    standardise_weight,
    tau_at,
)
from recu.experiment.paths import PROJECT_DIR
from recu.models import build_model


def _weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.3


def test_every_filter_has_mean_zero_and_the_laplacian_deviation() -> None:
    standardised = standardise_weight(_weight(5, 4, 3, 3) * torch.arange(1.0, 6.0).view(5, 1, 1, 1))
    assert standardised.mean((1, 2, 3)).abs().max() < 1e-12
    assert standardised.std((1, 2, 3)).tolist() == pytest.approx([2 * math.sqrt(2)] * 5, rel=1e-4)


def test_the_variance_is_unbiased_and_gets_the_epsilon() -> None:
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64).view(1, 2, 1, 1)
    expected = 2 * math.sqrt(2) / math.sqrt(2 + 1e-5)  # mean 2, unbiased variance 2
    assert standardise_weight(weight).flatten().tolist() == pytest.approx([-expected, expected], rel=1e-14)


def test_standardisation_is_differentiated_through_mean_and_deviation() -> None:
    assert torch.autograd.gradcheck(standardise_weight, _weight(2, 2, 2, 2).requires_grad_())


@pytest.mark.parametrize("tau", [0.6, 0.85, 0.99])
def test_threshold_uses_the_mean_over_the_whole_tensor(tau: float) -> None:
    weight = torch.tensor([[1.0, -3.0], [5.0, -7.0]], dtype=torch.float64).view(2, 2, 1, 1)
    threshold = quantile_threshold(weight, torch.tensor(tau, dtype=torch.float64))
    assert threshold.item() == pytest.approx(-4.0 * math.log(2 - 2 * tau), rel=1e-12)


def test_threshold_is_the_tau_quantile_of_a_laplacian() -> None:
    sample = torch.distributions.Laplace(0.0, 2.0).icdf(torch.linspace(0.0005, 0.9995, 1000).double())
    threshold = quantile_threshold(sample.view(1, -1, 1, 1), torch.tensor(0.9).double())
    assert (sample < threshold).double().mean().item() == pytest.approx(0.9, abs=0.002)


def test_tau_one_clamps_nothing_even_where_all_weights_are_zero() -> None:
    one = torch.tensor(1.0)
    weight = _weight(3, 2, 3, 3) * 100
    assert torch.equal(recu_clamp(weight, one), weight)
    assert torch.equal(recu_clamp(torch.zeros(1, 2, 1, 1), one), torch.zeros(1, 2, 1, 1))


def test_gradient_is_one_inside_and_zero_outside_the_clamp() -> None:
    weight = torch.tensor([0.5, -0.5, 9.0, -9.0]).view(1, 4, 1, 1).requires_grad_()
    clamped = recu_clamp(weight, torch.tensor(0.85))
    clamped.sum().backward()
    threshold = -4.75 * math.log(0.3)
    assert clamped.flatten().tolist() == pytest.approx([0.5, -0.5, threshold, -threshold], rel=1e-6)
    assert weight.grad.flatten().tolist() == [1.0, 1.0, 0.0, 0.0]


def test_each_sample_is_divided_by_its_own_deviation_and_keeps_its_mean() -> None:
    sample = torch.tensor([1.0, 3.0], dtype=torch.float64).view(1, 2, 1, 1)
    rescaled = rescale_per_sample(torch.cat([sample, 10 * sample]))
    first, second = (1 / (2 + 1e-5) ** 0.5, 10 / (200 + 1e-5) ** 0.5)
    assert rescaled.flatten().tolist() == pytest.approx([first, 3 * first, second, 3 * second], rel=1e-14)


def test_it_is_differentiated_through_the_deviation() -> None:
    activation = torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(rescale_per_sample, activation.requires_grad_())


def test_every_binary_convolution_gets_the_value_and_they_are_counted() -> None:
    model = build_model("resnet20_1w1a", family="cifar", num_classes=10)
    assert set_tau(model, 0.9) == 18
    values = [module.tau for module in model.modules() if isinstance(module, BinaryConv2d)]
    assert all(value == torch.tensor(0.9) and value.shape == () for value in values)


def test_a_network_without_binary_convolutions_is_left_alone() -> None:
    assert set_tau(nn.Conv2d(3, 3, 3), 0.9) == 0


@pytest.mark.parametrize("tau", [0.5, 0.0, 1.01, float("nan")])
def test_a_tau_outside_its_range_is_refused(tau: float) -> None:
    with pytest.raises(ConfigError, match="tau"):
        set_tau(BinaryConv2d(2, 2, 1), tau)


class OwnConvolution(nn.Module):
    """Not derived from a layer of the package; its buffer says that it follows the schedule."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("tau", torch.tensor(1.0))


@pytest.mark.parametrize("layer", [type("Derived", (BinaryConv2d,), {})(2, 2, 3), OwnConvolution()])
def test_a_layer_of_ones_own_follows_the_schedule(layer: nn.Module) -> None:
    assert set_tau(nn.Sequential(layer, nn.Identity()), 0.9) == 1
    assert layer.tau == torch.tensor(0.9)


def test_the_loop_of_the_method_page_trains_latent_weights_alpha_and_tau() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (PROJECT_DIR / "docs/method.md").read_text(), re.DOTALL)
    torch.manual_seed(1)
    done: dict = {}
    exec(code, done)
    (layer,) = (each for each in done["network"] if isinstance(each, BinaryConv2d))
    assert float(layer.tau) == pytest.approx(tau_at(2, 3, 0.85, 0.99))
    assert layer.weight.grad.abs().max() > 0 and layer.alpha.grad.abs().max() > 0 and bool(done["loss"].isfinite())
