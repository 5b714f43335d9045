"""Every network of the registry at every stage: builds, runs, learns, and shares its keys between stages."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.reference.networks import BUILDERS
from recu.base.errors import ConfigError
from recu.experiment.networks import TORCHVISION_TEACHERS, TORCHVISION_UNPUBLISHED, check_network
from recu.models import ModelName, available_models, build_model
from recu.nn import BinaryConv2d, set_tau

ENTRIES = available_models(stage=2)


def _name(entry: ModelName) -> str:
    return "-".join(part for part in entry if part)


def _build(entry: ModelName, stage: int = 2, classes: int = 7) -> nn.Module:
    torch.manual_seed(0)
    return build_model(entry.name, family=entry.family, num_classes=classes, variant=entry.variant, stage=stage)


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("entry", ENTRIES, ids=_name)
def test_forward_and_backward(entry: ModelName, stage: int) -> None:
    model = _build(entry, stage)
    set_tau(model, 0.9)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    logits = model(images)
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    model.eval()
    with torch.no_grad():
        assert torch.isfinite(model(images)).all()


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.name.endswith("18_1w1a")], ids=_name)
def test_mixed_precision(entry: ModelName) -> None:
    """A layer may see an activation of one type and a gradient of another, as ReActNet's behind their shifts."""
    model = _build(entry)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    logits.float().square().sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


_LIKE_ANOTHER = ("resnet34_1w1a", "resnet18B_1w1a", "resnet18C_1w1a")  # but deeper or wider


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.name not in _LIKE_ANOTHER], ids=_name)
def test_a_network_takes_the_image_sizes_that_the_table_says_and_no_others(entry: ModelName) -> None:
    # Without binarisation, which changes no shape, so that nothing has to be compiled.
    model = _build(entry, stage=0).eval()
    for size in (8, 9, 28, 31, 32, 39, 40, 64):
        images = torch.randn(1, 3, size, size)
        expected = {"name": entry.name, "family": entry.family, "variant": entry.variant, "stage": 0}
        try:
            check_network(**expected, image_size=size)
        except ConfigError as error:
            assert f"the dataset's are {size}" in str(error)
            with torch.no_grad(), pytest.raises(RuntimeError):
                model(images)
            continue
        with torch.no_grad():
            assert torch.isfinite(model(images)).all(), size


def test_vgg_small_says_which_images_it_takes() -> None:
    with pytest.raises(ConfigError, match=r"takes images of 32 to 39 pixels a side, the dataset's are 64: .* to 32 in"):
        check_network("vgg_small_1w1a", family="cifar", variant=None, stage=2, image_size=64)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_for_any_size_gives_the_bits_of_the_fixed_one_at_the_usual_size(layout: torch.memory_format) -> None:
    left, halved = (torch.randn(3, 64, size, size).contiguous(memory_format=layout) for size in (4, 8))
    assert torch.equal(F.avg_pool2d(left, left.shape[-2:]), F.avg_pool2d(left, 4))
    assert torch.equal(F.avg_pool2d(halved, 2, ceil_mode=True), F.avg_pool2d(halved, 2))


@pytest.mark.parametrize("entry", ENTRIES, ids=_name)
def test_stages_share_keys_and_shapes_but_for_alpha_and_tau(entry: ModelName) -> None:
    with torch.device("meta"):  # no values are looked at
        models = [_build(entry, stage) for stage in (0, 1, 2)]
    states = [{key: value.shape for key, value in model.state_dict().items()} for model in models]
    assert states[0] == states[1]
    common = {key: shape for key, shape in states[2].items() if not key.endswith((".alpha", ".tau"))}
    assert common == states[0]
    binary = sum(isinstance(module, BinaryConv2d) for module in models[2].modules())
    assert len(states[2]) - len(common) >= 2 * binary
    if entry in BUILDERS:  # a network of one's own may have a binariser of one's own, with other state
        assert len(states[2]) - len(common) == 2 * binary
        assert (binary == 0) == (entry.family == "birealnet")


def test_the_networks_named_in_the_paper_and_its_programs_are_there() -> None:
    assert set(BUILDERS) <= set(ENTRIES)
    assert {key[:2] for key in BUILDERS if key[2] is None} == {
        ("birealnet", "birealnet18"),
        ("cifar", "resnet18A_1w1a"),
        ("cifar", "resnet18B_1w1a"),
        ("cifar", "resnet18C_1w1a"),
        ("cifar", "resnet18_1w1a"),
        ("cifar", "resnet20_1w1a"),
        ("cifar", "resnet34_1w1a"),
        ("cifar", "vgg_small_1w1a"),
        ("imagenet", "resnet18_1w1a"),
        ("imagenet", "resnet34_1w1a"),
        ("reactnet", "resnet18_1w1a"),
        ("reactnet", "resnet34_1w1a"),
    }


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("resnet18A_1w1a", (32, 32, 64, 128)),
        ("resnet18B_1w1a", (32, 64, 128, 256)),
        ("resnet18C_1w1a", (64, 64, 128, 256)),
        ("resnet34_1w1a", (64, 128, 256, 512)),
    ],
)
def test_widths_of_the_cifar_variants(name: str, widths: tuple[int, ...]) -> None:
    state = build_model(name, family="cifar", num_classes=10).state_dict()
    assert tuple(state[f"layer{i}.0.conv1.weight"].shape[0] for i in (1, 2, 3, 4)) == widths
    assert state["conv1.weight"].shape[0] == widths[0]


def test_depth_of_the_deeper_networks() -> None:
    def blocks(family: str) -> list[int]:
        state = build_model("resnet34_1w1a", family=family, num_classes=10).state_dict()
        return [len({key.split(".")[1] for key in state if key.startswith(f"layer{i}.")}) for i in range(1, 5)]

    assert blocks("cifar") == blocks("imagenet") == [3, 4, 6, 3]
    assert blocks("reactnet") == [6, 8, 12, 6]


def test_imagenet_blocks_start_as_the_identity() -> None:
    model = build_model("resnet18_1w1a", family="imagenet", num_classes=10)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all((norm.weight == 1e-8).all() and (norm.bias == 0).all() for norm in norms)
    assert (model.bn2.weight == 1).all()


@pytest.mark.parametrize(
    ("family", "name", "variant"),
    [("cifar", "resnet20_1w1a", None), ("cifar", "resnet18_1w1a", None), ("imagenet", "resnet18_1w1a", None)],
)
def test_kaiming_initialisation_reaches_binary_convolutions(family: str, name: str, variant: None) -> None:
    model = build_model(name, family=family, num_classes=10, variant=variant)
    weight = model.layer2[1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.05)


def test_vgg_initialisation() -> None:
    model = build_model("vgg_small_1w1a", family="cifar", num_classes=10)
    assert model.conv4.weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.02)
    assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert (model.fc.bias == 0).all()


def test_the_same_seed_gives_the_same_network() -> None:
    first, second = (_build(ModelName("cifar", "resnet20_1w1a", None)).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": "cifer"}, "did you mean 'cifar'"),
        ({"name": "resnet20"}, "did you mean 'resnet20_1w1a'"),
        ({"variant": "2021-3"}, "did you mean '2021-03'"),
        ({"name": "vgg_small_1w1a", "variant": "2021-03"}, "has no variant '2021-03'"),
        ({"stage": 3}, "has no stage 3"),
        ({"num_classes": 0}, "num_classes is 0"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(arguments: dict, message: str) -> None:
    right = {"name": "resnet20_1w1a", "family": "cifar", "num_classes": 10}
    with pytest.raises(ConfigError, match=message):
        build_model(**{**right, **arguments})


def test_listing_the_names_does_not_load_torch() -> None:
    program = "import sys, recu.models; recu.models.available_models(stage=2); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_teachers_that_planning_knows_are_those_whose_weights_torchvision_publishes():
    from torchvision import models

    names = models.list_models(module=models)
    published = [name for name in names if "IMAGENET1K_V1" in models.get_model_weights(name).__members__]
    assert sorted(TORCHVISION_TEACHERS) == sorted(published)
    assert sorted(TORCHVISION_UNPUBLISHED) == sorted(set(names) - set(published))
