"""The authors' golden values, and the form for evaluation, on the GPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from recu.models import available_models, build_model
from recu.nn import set_tau
from recu.nn.inference import inference_form
from recu.training.device import lay_out, place
from recu.training.diagnostics import WeightDiagnostics
from tests.golden.cases import GoldenCase, golden_cases
from tests.golden.fill import fill, golden_input
from tests.golden.test_golden import RELATIVE, build_project

FLOAT32_TOLERANCE = 0.05
"""Of logits, as a part of their norm: a sign that falls otherwise changes a whole convolution's term."""

every_case = pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.stem)
every_network = pytest.mark.parametrize(
    "entry", available_models(stage=2), ids=lambda entry: ".".join(filter(None, entry))
)


@every_case
def test_golden_values_in_float64(case: GoldenCase, device, record) -> None:
    golden = case.values
    network = build_project(case).double()
    fill(network, golden["tau"])
    network = place(network, device).train()
    images = lay_out(golden_input(golden["batch"], golden["size"]).to(device))
    targets, optimiser = case.targets.to(device), case.optimiser(network)
    losses = []
    for step in range(3):
        optimiser.zero_grad()
        logits = network(images)
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        if step == 0:
            head = logits[:, :10].flatten().tolist()
            assert head == pytest.approx([value for row in golden["train_logits_head"] for value in row], rel=RELATIVE)
            gradients = {key: parameter.grad.norm().item() for key, parameter in network.named_parameters()}
            assert gradients == pytest.approx(golden["grad_l2"], rel=RELATIVE)
        optimiser.step()
        losses.append(loss.item())
    record(largest_error=max(abs(a / b - 1) for a, b in zip(losses, golden["three_step_losses"], strict=True)))
    assert losses == pytest.approx(golden["three_step_losses"], rel=RELATIVE)
    norms = {key: value.norm().item() for key, value in network.named_parameters()}
    assert norms == pytest.approx(golden["params_l2_after_3_steps"], rel=RELATIVE)


@every_case
def test_float32_against_float64(case: GoldenCase, device, record) -> None:
    logits = []
    for dtype in (torch.float32, torch.float64):
        network = build_project(case).double()
        fill(network, case.values["tau"])
        network = place(network.to(dtype), device).eval()
        images = lay_out(golden_input(case.values["batch"], case.values["size"]).to(device, dtype))
        with torch.inference_mode():
            logits.append(network(images).double())
    error = ((logits[0] - logits[1]).norm() / logits[1].norm()).item()
    record(relative_error=error)
    assert error < FLOAT32_TOLERANCE


@every_network
def test_the_form_for_evaluation_predicts_what_the_network_does(entry, device, record) -> None:
    torch.manual_seed(0)
    network = build_model(entry.name, family=entry.family, variant=entry.variant, num_classes=10)
    network = place(network, device)
    images = lay_out(torch.randn(64, 3, 32, 32, device=device))
    with torch.no_grad():
        network.train()(images)  # running statistics of something like these images
        plain = network.eval()(images)
        form = inference_form(network)(images)
    error = ((plain - form).norm() / plain.norm()).item()
    record(relative_error=error, other_predictions=int((plain.argmax(1) != form.argmax(1)).sum()))
    assert error < 1e-4 and torch.equal(plain.argmax(1), form.argmax(1))


def test_what_is_measured_of_binary_layers(device, record) -> None:
    found = []
    for where in (torch.device("cpu"), device):
        torch.manual_seed(0)
        network = place(build_model("resnet20_1w1a", family="cifar", num_classes=10), where)
        set_tau(network, 0.9)
        diagnostics = WeightDiagnostics(network)
        diagnostics.begin()
        for parameter in network.parameters():
            parameter.data.mul_(-1.0)
        found.append(diagnostics.measured(0, histograms=True))
    cpu, there = found
    assert set(there.flipped_share) == {1.0} and there.before == cpu.before
    for name, column in there.quantities.items():
        assert column == pytest.approx(getattr(cpu, name), rel=1e-4, abs=1e-4), name
    record(dead_share=there.of_network["dead_share"])
