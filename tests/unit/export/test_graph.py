"""Every registered network at every stage, with every binariser, as operations: the same numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from recu.base.errors import CheckpointError, ConfigError
from recu.binarisers.recu import BinaryConv2d
from recu.experiment.binarisers import package_binarisers
from recu.experiment.networks import ModelName, available_models, find_network
from recu.export.comparing import LIBRARY, compare
from recu.export.graph import operations_of
from recu.models import build_model
from recu.models.cost import measure_cost
from recu.nn.inference import inference_form
from recu.nn.layers import AveragePoolShortcut, HardTanh, SubsampleShortcut
from recu.runtime.network import Network, step_of
from recu.runtime.operations import OPERATIONS
from recu.runtime.reader import PackedError, parse
from recu.runtime.writer import packed_bytes
from recu.training.device import place
from tests.golden.fill import fill

CLASSES = 10
QUICK = ("resnet20_1w1a", "vgg_small_1w1a", "resnet18A_1w1a", "birealnet18")


def network(entry: ModelName, stage: int = 2, binariser: str = "recu") -> nn.Module:
    torch.manual_seed(0)
    model = build_model(
        entry.name,
        family=entry.family,
        variant=entry.variant,
        num_classes=CLASSES,
        stage=stage,
        binariser=binariser,
    )
    fill(model, 0.9)
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.BatchNorm1d)):
            layer.weight.data[::3] *= -1
    return place(model.eval(), torch.device("cpu"))


def batches(count: int) -> list:
    images = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    images[0] = 0  # a black image: many activations are equal, some of them zero
    return [(images, torch.zeros(count, dtype=torch.int64))]


def every_network() -> list:
    return [
        pytest.param(
            entry,
            stage,
            id=f"{'.'.join(filter(None, entry))}-stage{stage}",
            marks=pytest.mark.slow if "34" in entry.name or (stage < 2 and "18" in entry.name) else (),
        )
        for entry in available_models()
        for stage in find_network(entry.name, family=entry.family, variant=entry.variant).stages
    ]


@pytest.mark.parametrize(("entry", "stage"), every_network())
def test_the_packed_network_is_the_network_to_the_last_bit(entry, stage):
    model = network(entry, stage)
    operations = parse(packed_bytes({}, operations_of(model))).operations
    found = compare(inference_form(model), {"same": Network(operations, LIBRARY)}, batches(3))
    assert found["same"].unequal == 0 and found["same"].images == 3
    # Real weights take a second an image in NumPy. The first image is black, for the sake of signs.
    images = batches(3)[0][0][{0: slice(1, 2), 1: slice(2), 2: slice(3)}[stage]]
    check_one_by_one(operations, images.permute(0, 2, 3, 1).contiguous().numpy())
    assert operations[-1]["op"] == "linear" and {each["op"] for each in operations} <= OPERATIONS.keys()
    assert ("binary" in {each["op"] for each in operations}) == (stage == 2)


def check_one_by_one(operations: list[dict[str, Any]], images: np.ndarray) -> None:
    """Given the same values, every operation gives PyTorch's to the last bit, but for the rounding of sums of reals.

    What these last bits do to the logits of a random network says nothing: an activation within them of zero has
    another sign, which moves others.
    """
    values = [images]
    for operation in operations:
        taken = [values[value] for value in operation["of"]]
        library, own = (step_of(operation, made)(*taken) for made in (LIBRARY, OPERATIONS))
        if operation["op"] in ("convolution", "linear", "mean"):
            sizes = {key: np.abs(each) if isinstance(each, np.ndarray) else each for key, each in operation.items()}
            summed = step_of(sizes, OPERATIONS)(*map(np.abs, taken))
            assert (np.abs(own - library) <= 2**-20 * summed).all(), operation["op"]
        else:
            np.testing.assert_array_equal(own, library)
        values.append(library)


@pytest.mark.parametrize("binariser", package_binarisers())
@pytest.mark.parametrize("name", ["resnet20_1w1a", "vgg_small_1w1a"])
def test_every_binariser(name, binariser):
    entry = ModelName("cifar", name, None)
    for stage in (1, 2):
        try:
            model = network(entry, stage, binariser)
        except ConfigError:
            continue
        operations = parse(packed_bytes({}, operations_of(model))).operations
        found = compare(inference_form(model), {"same": Network(operations, LIBRARY)}, batches(2))
        assert found["same"].unequal == 0, stage


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, marks=pytest.mark.slow if entry.name.startswith("resnet34") else ())
        for entry in available_models(stage=2)
        if 2 in find_network(entry.name, family=entry.family, variant=entry.variant).stages
    ],
    ids=lambda entry: ".".join(filter(None, entry)),
)
def test_a_file_has_the_size_that_the_cost_columns_say(entry):
    model = network(entry)
    header = {"network": "a.b", "classes": [f"class {number}" for number in range(CLASSES)]}
    stated = measure_cost(model, 32).checkpoint_bytes
    # BatchNorm, four values a channel in the cost columns, is two here, or a threshold: see docs/costs.md.
    assert -0.08 * stated <= len(packed_bytes(header, operations_of(model))) - stated <= 0.02 * stated


def test_first_convolutions_of_a_block_end_in_thresholds():
    operations = operations_of(network(ModelName("cifar", "resnet18_1w1a", None)))
    ends = ["threshold" in each for each in operations if each["op"] == "binary"]
    assert ends == [True, False] * 8


def test_signs_of_weights_that_are_zero_are_kept():
    entry = ModelName("cifar", "resnet20_1w1a", None)
    model = network(entry)
    conv = model.layer1[0].conv1
    with torch.no_grad():
        conv.weight[3] = 0.25  # a filter of equal weights, whose mean is taken off
    operations = parse(packed_bytes({}, operations_of(model))).operations
    first = next(each for each in operations if each["op"] == "binary")
    assert not first["weight"][3].any() and first["weight"][2].all()
    found = compare(inference_form(model), {"same": Network(operations, LIBRARY)}, batches(2))
    assert found["same"].unequal == 0


class Own(nn.Module):
    """A network of one's own."""

    fixed_graph = True

    def __init__(self, conv: nn.Module, ends: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.ends, self.linear = conv, ends or nn.Identity(), nn.Linear(4, 2)

    def forward(self, x):
        x = self.ends(self.conv(x))
        return self.linear(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Honest(BinaryConv2d):
    layer_cost, latent_weights = BinaryConv2d.layer_cost, BinaryConv2d.latent_weights


class Doubling(Honest):
    layer_cost, latent_weights = BinaryConv2d.layer_cost, BinaryConv2d.latent_weights

    def forward(self, activation):
        return super().forward(activation) * 2


class Silent(BinaryConv2d):
    pass


class Unsaid(BinaryConv2d):
    layer_cost = BinaryConv2d.layer_cost


class Misshapen(BinaryConv2d):
    layer_cost = BinaryConv2d.layer_cost

    def latent_weights(self):
        return super().latent_weights()._replace(scale=self.alpha)


class Unfixed(nn.Module):
    def forward(self, x):
        return x


class Sharing(nn.Module):
    """A hardtanh in place whose input is read again, under another name perhaps."""

    fixed_graph = True

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        self.norm, self.between, self.hardtanh = nn.BatchNorm2d(4), between or nn.Identity(), HardTanh()

    def forward(self, x):
        x = self.norm(x)
        y = self.hardtanh(self.between(x))
        return y + self.between(x)


class Averaging(nn.Module):
    fixed_graph = True

    def __init__(self, **said: Any) -> None:
        super().__init__()
        self.said, self.linear = said, nn.Linear(3, 2)

    def forward(self, x):
        x = x.mean(**self.said)
        return self.linear(x.flatten(1))


@pytest.mark.parametrize("dim", [(2, 3), (3, 2), [-1, -2]])
@pytest.mark.parametrize("keepdim", [False, True])
def test_the_mean_of_pixels(dim, keepdim):
    model = Averaging(dim=dim, keepdim=keepdim).eval()
    operations = operations_of(model)
    assert [each["op"] for each in operations if each["op"] != "flatten"] == ["mean", "linear"]
    assert compare(model, {"same": Network(operations, LIBRARY)}, batches(3))["same"].unequal == 0


def test_a_binariser_of_ones_own_is_taken_at_its_word_and_held_to_it():
    operations_of(Own(Honest(3, 4, 3)).eval())
    with pytest.raises(ConfigError, match="Doubling computes something else than the signs"):
        operations_of(Own(Doubling(3, 4, 3)).eval())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Own(Silent(3, 4, 3)), "layer 'conv' .Silent. has no packed form"),
        (Own(nn.Conv2d(3, 4, 3, dilation=2)), "layer 'conv' .Conv2d. has no packed form"),
        (Own(nn.Conv2d(3, 4, 3), nn.Dropout()), "layer 'ends' .Dropout. has no packed form"),
        (Own(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2)), "layer 'ends' .AvgPool2d. has no packed form"),
        (Own(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), "has no packed form"),
        (
            Own(nn.Conv2d(3, 4, 3), AveragePoolShortcut(4, 2, 2)),
            "layer 'ends' .AveragePoolShortcut. has no packed form",
        ),
        (Own(nn.Conv2d(3, 4, 3), SubsampleShortcut(4, 2, 1)), "layer 'ends' .SubsampleShortcut. has no packed form"),
        (Own(nn.Conv2d(3, 4, 3), Sharing()), "overwrites a value that is read elsewhere"),
        (Own(nn.Conv2d(3, 4, 3), Sharing(nn.Flatten(1))), "overwrites a value that is read elsewhere"),
        (Own(Unsaid(3, 4, 3)), "Unsaid does not say what its binary weights are made of: add latent_weights"),
        (Own(Misshapen(3, 4, 3)), r"says weights .4, 3, 3, 3. and a scale .4, 1, 1., expected .4, 3, 3, 3. and .4,."),
        (Averaging(dim=(1, 2)), "mean has no packed form"),
        (Averaging(dim=3), "mean has no packed form"),
        (Averaging(), "mean has no packed form"),
        (Unfixed(), "Unfixed cannot be exported: its class does not say that it is fixed"),
    ],
)
def test_what_is_not_known_is_refused(model, message):
    with pytest.raises(ConfigError, match=message) as caught:
        operations_of(model.eval())
    assert "--to safetensors takes every network" in str(caught.value)


def test_a_network_in_training_mode_is_refused():
    part = Own(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    part.ends.train()
    for model in (Own(nn.Conv2d(3, 4, 3)), part):
        with pytest.raises(ValueError, match="evaluation mode only"):
            operations_of(model)


def test_a_network_of_numbers_that_are_not_finite_is_named():
    model = Averaging(dim=(2, 3)).eval()
    nn.init.constant_(model.linear.weight, 3e38)
    with pytest.raises(CheckpointError, match="the network gives no finite numbers"):
        compare(model, {"same": Network(operations_of(model), LIBRARY)}, [(torch.full((1, 3, 4, 4), 9.0), None)])


def test_an_operation_of_a_newer_version_is_refused():
    with pytest.raises(PackedError, match="has the operation 'attention', which this version does not know"):
        Network([{"op": "attention", "of": [0]}])
    with pytest.raises(PackedError, match="has an operation 'scale' of another form"):
        Network([{"op": "scale", "of": [0], "strength": 3}])


def test_values_are_forgotten_after_their_last_use():
    kept = []

    def spy(**_):
        def apply(*x):
            kept.append(sys_count(x[0]))
            return x[0] + 1

        return apply

    import sys

    def sys_count(x):
        return sys.getrefcount(x)

    images = np.zeros((1, 2, 2, 3), np.float32)
    result = Network([{"op": "a", "of": [0]}, {"op": "a", "of": [1]}, {"op": "a", "of": [2]}], {"a": spy})(images)
    np.testing.assert_array_equal(result, images + 3)
    assert kept[1] == kept[2]
