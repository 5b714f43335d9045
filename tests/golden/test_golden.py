"""Every network against the authors' program, float64, relative 1e-6: keys, logits, gradients, three steps.

The same numbers must come from the project's networks and from the textbook ones that benchmarks compare
with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.reference import build_reference
from recu.models import build_model
from tests.golden.cases import GoldenCase, golden_cases
from tests.golden.fill import fill, golden_input

RELATIVE = 1e-6

Build = Callable[[GoldenCase], nn.Module]


def build_project(case: GoldenCase) -> nn.Module:
    return build_model(case.model, **_arguments(case))


def build_textbook(case: GoldenCase) -> nn.Module:
    return build_reference(case.model, **_arguments(case))


def _arguments(case: GoldenCase) -> dict[str, Any]:
    return {
        "family": case.family,
        "num_classes": case.values["num_classes"],
        "variant": case.variant,
        "stage": case.stage,
    }


def _parameters() -> list:
    return [pytest.param(build_project, case, id=f"project-{case.stem}") for case in golden_cases()] + [
        pytest.param(
            build_textbook,
            case,
            id=f"reference-{case.stem}",
            marks=pytest.mark.slow if case.values["size"] > 32 else (),
        )
        for case in golden_cases()
    ]


every_network = pytest.mark.parametrize(("build", "case"), _parameters())


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_there_are_golden_files() -> None:
    assert len(golden_cases()) >= 6


@every_network
def test_state_dict(build: Build, case: GoldenCase) -> None:
    model = build(case)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert list(shapes.items()) == list(case.values["state_dict"].items())
    assert sum(parameter.numel() for parameter in model.parameters()) == case.values["n_parameters"]


@every_network
def test_logits_loss_gradients_and_three_optimiser_steps(build: Build, case: GoldenCase) -> None:
    golden = case.values
    model = build(case).double()
    fill(model, golden["tau"])
    images = golden_input(golden["batch"], golden["size"])

    model.eval()
    with torch.no_grad():
        logits = model(images)
    assert logits[:, :10].tolist() == _approximately(golden["eval_logits_head"])
    assert logits.norm().item() == pytest.approx(golden["eval_logits_l2"], rel=RELATIVE)

    model.train()
    logits = model(images)
    loss = F.cross_entropy(logits, case.targets)
    loss.backward()
    assert logits[:, :10].tolist() == _approximately(golden["train_logits_head"])
    assert loss.item() == pytest.approx(golden["train_loss"], rel=RELATIVE)
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    assert gradients.keys() == golden["grad_l2"].keys() == golden["grad_head"].keys()
    for key, gradient in gradients.items():
        norm = golden["grad_l2"][key]
        assert gradient.norm().item() == pytest.approx(norm, rel=RELATIVE), key
        # alpha's gradient is a sum of large terms that cancel in the BatchNorm behind it: single elements
        # far below the tensor's own scale carry its rounding, so the scale counts beside the element.
        scale = norm / math.sqrt(gradient.numel())
        head = gradient.flatten()[:3].tolist()
        assert head == pytest.approx(golden["grad_head"][key], rel=RELATIVE, abs=RELATIVE * scale), key

    optimiser, losses = case.optimiser(model), [loss.item()]
    optimiser.step()
    for _ in range(2):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(images), case.targets)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == pytest.approx(golden["three_step_losses"], rel=RELATIVE)
    parameters = {key: value.norm().item() for key, value in model.named_parameters()}
    assert parameters == pytest.approx(golden["params_l2_after_3_steps"], rel=RELATIVE)
    buffers = {key: value.double().norm().item() for key, value in model.named_buffers()}
    expected = golden["buffers_l2_after_3_steps"]
    assert {key: buffers[key] for key in expected} == pytest.approx(expected, rel=RELATIVE)


def _approximately(rows: list[list[float]]) -> list:
    return [pytest.approx(row, rel=RELATIVE) for row in rows]
