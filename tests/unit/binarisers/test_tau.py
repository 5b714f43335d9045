"""Setting tau in a network."""

import pytest
import torch
from torch import nn

from recu.base.errors import ConfigError
from recu.models import build_model
from recu.nn import BinaryConv2d, set_tau


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
