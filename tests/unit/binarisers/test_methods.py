"""The binarisers beside ReCU: their schedules, their signs and what every one of them promises."""

import math

import pytest
import torch
import torch.nn.functional as F

from recu.base.errors import ConfigError
from recu.binarisers.biper import FREQUENCY, BiPerConv2d, FasterBiPerConv2d, PeriodicWeightConv2d
from recu.binarisers.irnet import IRNetConv2d, power_of_two_scale, t_at, tanh_gradient
from recu.binarisers.protocol import set_epoch_values
from recu.binarisers.recu import BinaryConv2d
from recu.binarisers.reste import ReSTEConv2d, o_at, power_gradient
from recu.binarisers.sign import SignConv2d, clipped_gradient

BINARY = (IRNetConv2d, ReSTEConv2d, BiPerConv2d, SignConv2d)
EPOCHS = 400
TEN = (0, 1, 7, 50, 99, 100, 200, 250, 333, 399)


@pytest.mark.parametrize("epoch", TEN)
def test_t_and_k_of_ir_net(epoch: int) -> None:
    t = t_at(epoch, EPOCHS)
    assert t == pytest.approx(math.exp(math.log(10) * (4 * epoch / EPOCHS - 3)), rel=1e-12)
    slope_at_zero = float(tanh_gradient(torch.zeros((), dtype=torch.float64), torch.tensor(t, dtype=torch.float64)))
    assert slope_at_zero == pytest.approx(max(1.0, t), rel=1e-12), "k t, k = max(1/t, 1)"


@pytest.mark.parametrize("epoch", TEN)
def test_o_of_reste(epoch: int) -> None:
    expected = 3.0 - 2.0 * math.cos(math.pi / 2 * epoch / EPOCHS)
    assert o_at(epoch, EPOCHS) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("epoch", TEN)
def test_f_of_biper_stays(epoch: int) -> None:
    assert BiPerConv2d.epoch_values(epoch, EPOCHS) == PeriodicWeightConv2d.epoch_values(epoch, EPOCHS) == {"f": 20.0}
    assert FasterBiPerConv2d.epoch_values(epoch, EPOCHS) == {"f": 30.0}


@pytest.mark.parametrize("kind", [IRNetConv2d, ReSTEConv2d, BiPerConv2d])
def test_an_epoch_outside_of_the_training_is_refused(kind: type) -> None:
    for epoch, epochs in ((-1, 4), (5, 4), (0, 0)):
        with pytest.raises(ConfigError, match="expected at least one epoch"):
            kind.epoch_values(epoch, epochs)


def test_a_networks_layers_are_given_the_values_of_an_epoch() -> None:
    model = torch.nn.Sequential(IRNetConv2d(2, 2, 3), ReSTEConv2d(2, 2, 3), BinaryConv2d(2, 2, 3), SignConv2d(2, 2, 3))
    assert set_epoch_values(model, 100, EPOCHS) == {"t": t_at(100, EPOCHS), "o": o_at(100, EPOCHS)}
    assert float(model[0].t) == pytest.approx(0.01) and float(model[1].o) == pytest.approx(o_at(100, EPOCHS))
    assert float(model[2].tau) == 1.0, "set with the recipe's range, by recu.binarisers.recu"


def test_a_schedule_of_a_buffer_that_is_not_there_is_refused() -> None:
    class Own(SignConv2d):
        @staticmethod
        def epoch_values(epoch: int, epochs: int) -> dict[str, float]:
            return {"s": epoch / epochs}

    with pytest.raises(ConfigError, match=r"Own.epoch_values gives 's', which is none of its buffers: register_buffer"):
        set_epoch_values(Own(2, 2, 3), 0, 1)


def test_gradients_at_points_and_edges() -> None:
    x = torch.tensor([-1.6, -1.5, -1.0, -0.1, 0.0, 0.05, 0.2, 1.0, 1.5, 1.5001], dtype=torch.float64)
    o = torch.tensor(3.0, dtype=torch.float64)
    chord = 0.1 ** (1 / 3) / 0.1
    expected = [0, 1.5 ** (-2 / 3) / 3, 1 / 3, chord, chord, chord, 0.2 ** (-2 / 3) / 3, 1 / 3, 1.5 ** (-2 / 3) / 3, 0]
    assert power_gradient(x, o).tolist() == pytest.approx(expected, rel=1e-12)
    assert clipped_gradient(x).tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]


def test_the_scale_of_ir_net_is_the_power_of_two_next_to_the_mean_magnitude() -> None:
    weight = torch.stack([torch.full((2, 2, 2), value) for value in (0.8, 0.7, 3.0, 0.1)])
    assert power_of_two_scale(weight).tolist() == [1.0, 0.5, 4.0, 0.125]


@pytest.mark.parametrize("kind", BINARY)
def test_zero_and_padding_stay_zero(kind: type) -> None:
    torch.manual_seed(0)
    layer = kind(3, 4, 3, padding=1)
    assert torch.equal(layer(torch.zeros(2, 3, 5, 5)).detach(), torch.zeros(2, 4, 5, 5))
    images = torch.randn(1, 3, 5, 5)
    padded = F.pad(images, (1, 1, 1, 1))
    inside = kind(3, 4, 3)
    inside.load_state_dict(layer.state_dict())
    assert torch.equal(layer.eval()(images), inside.eval()(padded))


@pytest.mark.parametrize("kind", BINARY)
def test_values_are_whole_numbers_times_a_scale(kind: type) -> None:
    torch.manual_seed(0)
    layer = kind(8, 4, 3, padding=1).double().eval()
    with torch.no_grad():
        out = layer(torch.randn(2, 8, 6, 6, dtype=torch.float64))
    for channel in out.unbind(1):
        step = channel[channel != 0].abs().min()
        assert torch.allclose(channel / step, (channel / step).round(), atol=1e-9)


def test_stage_2_of_biper_has_the_state_of_stage_1_and_its_signs() -> None:
    torch.manual_seed(0)
    first, second = PeriodicWeightConv2d(3, 4, 3).double().eval(), BiPerConv2d(3, 4, 3).double().eval()
    second.load_state_dict(first.state_dict())
    assert set(first.state_dict()) == {"weight", "alpha", "f"} and float(first.f) == FREQUENCY
    assert torch.equal(torch.sign(first.used_weight()), second.used_weight())
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    assert not torch.allclose(first(images), second(images))


def test_the_f_that_no_command_names_begins_from_other_signs() -> None:
    usual, faster = BiPerConv2d(4, 4, 3), FasterBiPerConv2d(4, 4, 3)
    assert float(faster.f) == 30.0
    faster.load_state_dict(usual.state_dict())  # of stage 1, whose f is 20 until an epoch begins
    assert torch.equal(faster.used_weight(), usual.used_weight())
    assert set_epoch_values(faster, 0, EPOCHS) == {"f": 30.0}
    assert torch.equal(faster.used_weight(), torch.sign(torch.sin(30.0 * usual.weight)))


def test_without_gradients_nothing_is_computed_for_them() -> None:
    def never(_x):
        raise AssertionError

    from recu.binarisers.estimators import sign_with_gradient

    with torch.no_grad():
        assert sign_with_gradient(torch.tensor([-2.0, 0.0, 3.0]), never).tolist() == [-1, 0, 1]


@pytest.mark.parametrize("kind", [IRNetConv2d, BinaryConv2d])
def test_a_filter_of_one_weight_has_no_deviation(kind: type) -> None:
    with pytest.raises(ValueError, match="two weights or more"):
        kind(1, 2, 1)


@pytest.mark.parametrize(
    ("kind", "bits", "values", "derived", "binary"),
    [
        (IRNetConv2d, 8 * 3 * 9, 0, 8, True),
        (ReSTEConv2d, 8 * 3 * 9, 0, 1, True),
        (SignConv2d, 8 * 3 * 9, 0, 8, True),
        (BiPerConv2d, 8 * 3 * 9, 8, 0, True),
        (PeriodicWeightConv2d, 0, 8 * 3 * 9 + 8, 0, False),
    ],
)
def test_a_layer_says_what_it_stores_and_computes(kind, bits, values, derived, binary) -> None:
    cost = kind(3, 8, 3).layer_cost()
    assert sum(tensor.numel() for tensor in cost.bits) == bits
    assert sum(tensor.numel() for tensor in cost.values) == values
    assert (cost.derived_values, cost.binary, cost.operations_per_output) == (derived, binary, 27)
