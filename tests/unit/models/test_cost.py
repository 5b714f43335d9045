"""Costs are counted from the network by the published convention, without touching it."""

import functools
import re
import runpy
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from recu.base.errors import ConfigError
from recu.binarisers.protocol import LayerCost, stated_cost
from recu.models import ModelName, available_models, build_model
from recu.models.cost import Cost, check_costs, measure_cost
from recu.nn import (
    BinaryConv2d,
    CompetitorBinaryConv2d,
    RealConv2d,
    RescaledSignActivationConv2d,
    SignActivationConv2d,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "costs.md"


def build_on_meta(*args, **options) -> nn.Module:
    with torch.device("meta"):
        return build_model(*args, **options)


def image_size(family: str) -> int:
    return 32 if family == "cifar" else 224


@functools.cache
def measure_registered(entry: ModelName, stage: int) -> Cost:
    model = build_on_meta(entry.name, family=entry.family, num_classes=10, variant=entry.variant, stage=stage)
    return measure_cost(model, image_size(entry.family))


def small_network(convolution: type[nn.Conv2d]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        convolution(4, 5, 3, stride=2, padding=1),
        nn.PReLU(5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 2),
    )


# By hand, at 8x8: stem 4*8*8 outputs of 3*3*3; second convolution 5*4*4 outputs of 4*3*3; linear 2 outputs of 5.
STEM, SECOND, LINEAR = 256 * 27, 80 * 36, 2 * 5
# Stem 108, BatchNorm 4 + 4 learnt and 4 + 4 running, PReLU 5, linear 10 + 2: all but the second convolution's 180.
OTHER_PARAMETERS, OTHER_VALUES = 108 + 8 + 5 + 12, 108 + 16 + 5 + 12


@pytest.mark.parametrize(
    ("convolution", "expected"),
    [
        # 180 bits are 22.5 bytes; 5 alphas are learnt.
        (BinaryConv2d, Cost(
            parameters=OTHER_PARAMETERS + 180 + 5,
            checkpoint_bytes=4 * OTHER_VALUES + 23 + 4 * 5,
            binary_operations=SECOND,
            floating_point_operations=STEM + LINEAR,
        )),
        # 5 scales mean|w| are stored, not learnt.
        (CompetitorBinaryConv2d, Cost(
            parameters=OTHER_PARAMETERS + 180,
            checkpoint_bytes=4 * OTHER_VALUES + 23 + 4 * 5,
            binary_operations=SECOND,
            floating_point_operations=STEM + LINEAR,
        )),
        *(
            (real, Cost(
                parameters=OTHER_PARAMETERS + 180,
                checkpoint_bytes=4 * OTHER_VALUES + 4 * 180,
                binary_operations=0,
                floating_point_operations=STEM + SECOND + LINEAR,
            ))
            for real in (RealConv2d, SignActivationConv2d, RescaledSignActivationConv2d)
        ),
    ],
)  # fmt: skip
def test_hand_computed_network(convolution: type[nn.Conv2d], expected: Cost) -> None:
    assert measure_cost(small_network(convolution), 8) == expected


def test_operations_weigh_64_binary_ones_as_one() -> None:
    cost = Cost(parameters=1, checkpoint_bytes=1, binary_operations=96, floating_point_operations=10)
    assert cost.operations == 11.5


def test_groups_and_repeated_layers() -> None:
    grouped = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
    cost = measure_cost(nn.Sequential(grouped, grouped), 4)
    assert cost.floating_point_operations == 2 * (3 * 16) * 9
    assert (cost.parameters, cost.checkpoint_bytes) == (27, 4 * 27)


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("entry", available_models(stage=2), ids=lambda entry: "-".join(filter(None, entry)))
def test_every_registered_network(entry: ModelName, stage: int) -> None:
    cost, full_precision = measure_registered(entry, stage), measure_registered(entry, 0)
    total = cost.binary_operations + cost.floating_point_operations
    assert total == full_precision.floating_point_operations
    assert full_precision.binary_operations == 0
    if stage == 2:
        assert cost.binary_operations > 0.5 * total
        assert cost.checkpoint_bytes < full_precision.checkpoint_bytes / 3
    else:
        assert (cost.binary_operations, cost.checkpoint_bytes) == (0, full_precision.checkpoint_bytes)


@pytest.mark.parametrize(("family", "name"), [("reactnet", "resnet18_1w1a"), ("birealnet", "birealnet18")])
def test_published_operations_of_resnet18(family: str, name: str) -> None:
    cost = measure_cost(build_on_meta(name, family=family, num_classes=1000), 224)
    # By hand from the structure: 16 binary 3x3 convolutions; stem, three 1x1 shortcuts, classifier.
    stage1 = 4 * 56 * 56 * 64 * 64 * 9
    later_stages = 3 * 28 * 28 * 128 * (64 + 3 * 128) * 9
    assert cost.binary_operations == stage1 + later_stages
    assert cost.floating_point_operations == 112 * 112 * 64 * 3 * 49 + 3 * 28 * 28 * 128 * 64 + 512 * 1000
    # Published: 1.63e8, which is 1.6399e8 truncated to three digits.
    assert int(cost.operations / 1e6) == 163


@pytest.mark.parametrize(
    ("builder", "parameters", "operations"),
    # torchvision states these parameters and GFLOPS (its multiply-accumulates) in its table of weights.
    [("resnet18", 11_689_512, 1.814e9), ("resnet34", 21_797_672, 3.664e9), ("resnet50", 25_557_032, 4.089e9)],
)
def test_torchvision_teachers(builder: str, parameters: int, operations: float) -> None:
    with torch.device("meta"):
        cost = measure_cost(torchvision.models.get_model(builder), 224)
    assert cost.parameters == parameters
    assert cost.binary_operations == 0
    assert cost.operations == pytest.approx(operations, abs=5e5)


@pytest.mark.parametrize("training", [True, False])
def test_network_is_left_as_it_was(training: bool) -> None:
    model = build_model("resnet20_1w1a", family="cifar", num_classes=10).double().train(training)
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()

    measure_cost(model, 32)

    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(value.device.type == "cpu" for value in model.state_dict().values())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_frozen_teacher_counts_its_parameters() -> None:
    model = small_network(BinaryConv2d)
    assert measure_cost(model.requires_grad_(False), 8) == measure_cost(model.requires_grad_(True), 8)


def test_is_binary_needs_both_operands_binary() -> None:
    kinds = (BinaryConv2d, CompetitorBinaryConv2d, RealConv2d, SignActivationConv2d, RescaledSignActivationConv2d)
    binary = {kind for kind in kinds if stated_cost(kind(4, 4, 3)).binary}
    assert binary == {BinaryConv2d, CompetitorBinaryConv2d}


def test_wrong_image_size_is_one_readable_line() -> None:
    model = build_on_meta("vgg_small_1w1a", family="cifar", num_classes=10)
    with pytest.raises(ConfigError, match=r"does not accept images of 64x64 pixels .*image_size") as error:
        measure_cost(model, 64)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="image_size is 0, expected at least 1"):
        measure_cost(model, 0)


class Silent(BinaryConv2d):
    """A layer of one's own that inherits what `BinaryConv2d` says of itself."""

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        return super().forward(activation) * 0


class Stating(Silent):
    """As the error of `Silent` advises: it says itself what it costs, here a scale of 64 bits a filter more."""

    def layer_cost(self) -> LayerCost:
        return LayerCost.of_filters(self.weight, binary=True, values=(self.alpha,), derived_values=2 * len(self.weight))


def test_what_a_class_inherits_is_not_said_of_it_and_the_advice_helps() -> None:
    with pytest.raises(ConfigError, match=r"layer '2' \(Silent\) .* define layer_cost\(\) in the body of its class"):
        measure_cost(small_network(Silent), 8)
    with pytest.raises(ConfigError, match="layer '2'"):
        check_costs(small_network(Silent))
    check_costs(small_network(Stating))
    stated, known = measure_cost(small_network(Stating), 8), measure_cost(small_network(BinaryConv2d), 8)
    assert stated.checkpoint_bytes == known.checkpoint_bytes + 2 * 5 * 4
    assert stated.binary_operations == known.binary_operations == SECOND


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(4, 4, 2),
        nn.LazyConv2d(4, 1),
        nn.GroupNorm(2, 4),
        nn.SyncBatchNorm(4),
        nn.Embedding(4, 4),
        nn.MultiheadAttention(4, 2),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1)),
        type("Derived", (nn.Conv2d,), {})(4, 4, 1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layer_outside_the_convention_is_an_error(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), layer)
    with pytest.raises(
        ConfigError, match=rf"layer '1' \({type(layer).__name__}\) .* does not say what it costs"
    ) as error:
        measure_cost(model, 8)
    assert "\n" not in str(error.value)


class Functional(nn.Module):
    """Convolves with a weight of another layer, which is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.conv.weight)


def test_operations_of_which_nobody_says_whether_they_are_binary_are_an_error() -> None:
    class Silent(nn.Conv2d):
        def layer_cost(self) -> LayerCost:
            return LayerCost(bits=(self.weight,), operations_per_output=27)

    with pytest.raises(
        ConfigError, match=r"\(Silent\) states operations and not whether they are binary: give LayerCost"
    ):
        measure_cost(nn.Sequential(Silent(3, 4, 3, bias=False)), 8)


def test_a_convolution_outside_of_any_layer_is_an_error() -> None:
    with pytest.raises(ConfigError, match="calls conv2d outside of the layers that say what they cost"):
        measure_cost(Functional(), 8)


def test_a_tensor_that_layers_share_is_stored_once() -> None:
    first, second = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.Conv2d(3, 3, 3, padding=1, bias=False)
    second.weight = first.weight
    cost = measure_cost(nn.Sequential(first, second), 4)
    assert (cost.parameters, cost.checkpoint_bytes) == (81, 4 * 81)
    assert cost.floating_point_operations == 2 * 48 * 27


def test_documented_table_is_what_its_command_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    command = re.search(r"<<'EOF'\n(.*?)\nEOF\n", text, re.DOTALL)
    assert command
    script = tmp_path / "costs.py"
    script.write_text(command[1], encoding="utf-8")
    runpy.run_path(str(script))
    assert capsys.readouterr().out.strip() in text
