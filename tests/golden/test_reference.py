"""The project's networks against the plain reference, float64, to 1e-9: loss, logits and every gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.reference import build_reference
from recu.models import build_model
from tests.golden.cases import GoldenCase, golden_cases
from tests.golden.fill import fill, golden_input

TOLERANCE = 1e-9
SIZE = 64  # of images for the ImageNet-like networks: the formulas are the same at every size


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.stem)
def test_fast_networks_equal_the_reference(case: GoldenCase) -> None:
    size = min(SIZE, case.values["size"])
    arguments = {"family": case.family, "num_classes": case.values["num_classes"], "variant": case.variant}
    images = golden_input(case.values["batch"], size)
    fast, fast_logits, fast_loss = _train_once(build_model(case.model, **arguments), case, images)
    plain, plain_logits, plain_loss = _train_once(build_reference(case.model, **arguments), case, images)

    assert fast_loss.item() == pytest.approx(plain_loss.item(), rel=TOLERANCE)
    assert (fast_logits - plain_logits).norm() <= TOLERANCE * plain_logits.norm()
    gradients = {key: parameter.grad for key, parameter in plain.named_parameters()}
    for key, parameter in fast.named_parameters():
        scale = gradients[key].norm()
        if key.endswith(".alpha"):
            # BatchNorm behind the layer cancels all but a millionth of alpha's gradient, so that its rounding
            # is that of the terms; the gradient of the layer's weight is of their size.
            scale = torch.maximum(scale, gradients[key.replace(".alpha", ".weight")].norm())
        assert (parameter.grad - gradients[key]).norm() <= TOLERANCE * scale, key


def _train_once(
    model: nn.Module, case: GoldenCase, images: torch.Tensor
) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    model = model.double().train()
    fill(model, case.values["tau"])
    logits = model(images)
    loss = F.cross_entropy(logits, case.targets)
    loss.backward()
    return model, logits.detach(), loss.detach()
