"""Parameter groups by name, and the optimisers' settings."""

import pytest
import torch

from recu.base.errors import ConfigError
from recu.models import build_model
from recu.training import build_optimizer
from recu.training.optimizer import parameter_groups


def _decaying(model: torch.nn.Module, grouping: str) -> set[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 0.01, grouping)
    seen = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(seen) == sorted(names), "every parameter exactly once"
    return {names[id(parameter)] for group in groups if group["weight_decay"] == 0.01 for parameter in group["params"]}


def test_all_means_all() -> None:
    model = build_model("resnet20_1w1a", family="cifar", num_classes=10)
    assert _decaying(model, "all") == {name for name, _ in model.named_parameters()}
    assert len(parameter_groups(model, 0.01, "all")) == 1


def test_imagenet_grouping_goes_by_name() -> None:
    decaying = _decaying(build_model("resnet18_1w1a", family="imagenet", num_classes=10), "imagenet")
    assert {"conv1.weight", "layer1.0.conv1.alpha", "layer1.0.conv1.weight", "fc.weight", "fc.bias"} <= decaying
    assert not any("downsample" in name or "bn" in name for name in decaying)


def test_competitors_grouping_goes_by_dimensions_and_name() -> None:
    decaying = _decaying(build_model("birealnet18", family="birealnet", num_classes=10), "birealnet")
    assert {"layer1.0.move0.bias", "layer1.0.binary_conv.weight", "layer2.0.downsample.1.weight"} <= decaying
    assert not decaying & {"fc.weight", "fc.bias", "bn1.weight", "layer1.0.prelu.weight"}


@pytest.mark.parametrize(("name", "pytorchs"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)])
def test_the_optimisers_are_pytorchs_to_the_last_bit(name: str, pytorchs: type[torch.optim.Optimizer]) -> None:
    def run(build) -> tuple[list[torch.Tensor], dict]:
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
        optimizer = build(model)
        for step in range(4):
            if step == 2:
                state = optimizer.state_dict()
                optimizer = build(model)
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            model(torch.randn(4, 7)).square().sum().backward()
            optimizer.step()
        assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
        return list(model.parameters()), optimizer.state_dict()

    settings = {"lr": 0.1, "weight_decay": 0.01} | ({"momentum": 0.9} if name == "sgd" else {})
    ours, our_state = run(lambda model: build_optimizer(model, name, 0.1, 0.9, 0.01, "all"))
    theirs, their_state = run(lambda model: pytorchs(model.parameters(), **settings))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert our_state["param_groups"] == their_state["param_groups"]
    for index, values in their_state["state"].items():
        assert values.keys() == our_state["state"][index].keys()
        assert all(torch.equal(value, our_state["state"][index][key]) for key, value in values.items())


@pytest.mark.parametrize("foreach", [False, True])
def test_sgd_takes_the_textbook_step(foreach: bool) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = build_optimizer(model, "sgd", 0.1, 0.9, 0.5, "all")
    optimizer.param_groups[0]["foreach"] = foreach
    torch.nn.init.constant_(model.weight, 2.0)
    for expected in (2.0 - 0.1 * (3.0 + 0.5 * 2.0), None):
        model.weight.grad = torch.full((1, 1), 3.0)
        before = model.weight.item()
        optimizer.step()
        if expected is None:
            expected = before - 0.1 * (0.9 * 4.0 + 3.0 + 0.5 * before)
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)


def test_adam_adds_weight_decay_to_the_gradient() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = build_optimizer(model, "adam", 1e-3, 0.9, 1e-5, "all")
    assert isinstance(optimizer, torch.optim.Adam)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (1e-3, 1e-5, (0.9, 0.999))
    assert not group["decoupled_weight_decay"]


@pytest.mark.parametrize(
    ("name", "grouping", "message"),
    [("sdg", "all", "did you mean 'sgd'"), ("sgd", "imagenets", "did you mean 'imagenet'")],
)
def test_unknown_names_propose_the_right_one(name: str, grouping: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_optimizer(torch.nn.Linear(1, 1), name, 0.1, 0.9, 0.0, grouping)
