"""Layers of other binarisers against numbers computed once with their authors' layers in float64."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from recu.binarisers.biper import BiPerConv2d, PeriodicWeightConv2d
from recu.binarisers.irnet import IRNetConv2d
from recu.binarisers.reste import ReSTEConv2d
from tests.golden.fill import hash_uniform

LAYERS = {
    "ir-net": IRNetConv2d,
    "reste": ReSTEConv2d,
    "biper.stage1": PeriodicWeightConv2d,
    "biper.stage2": BiPerConv2d,
}
CASES = json.loads((Path(__file__).parent / "binarisers/layers.json").read_text())
RELATIVE = 1e-6


def layer_of(name: str, case: dict) -> nn.Module:
    geometry = {key: case[key] for key in ("stride", "padding")}
    layer = LAYERS[name](case["input"][1], case["out_channels"], case["kernel"], **geometry).double()
    with torch.no_grad():
        layer.weight.copy_(0.2 * hash_uniform("weight", layer.weight.shape))
        if hasattr(layer, "alpha"):
            layer.alpha.copy_(0.55 + hash_uniform("alpha", layer.alpha.shape))
        schedule = ("t",) if name == "ir-net" else ("o",) if name == "reste" else ()
        for buffer in schedule:
            layer.get_buffer(buffer).fill_(case["setting"][buffer])
    return layer


def differences(name: str, case: dict) -> dict[str, float]:
    """Largest difference of each quantity, relative to its norm."""
    layer = layer_of(name, case)
    images = (4 * hash_uniform("input", case["input"])).requires_grad_()
    output = layer(images)
    (output * hash_uniform("grad", output.shape)).sum().backward()
    found: dict[str, Tensor] = {"output": output.detach(), "grad_input": images.grad}
    found |= {f"grad_{key}": parameter.grad for key, parameter in layer.named_parameters()}
    with torch.no_grad():
        found["eval_output"] = layer.eval()(images)
    worst = {}
    for key, value in found.items():
        if key in case:
            expected = torch.tensor(case[key], dtype=torch.float64)
            worst[key] = float((value.flatten() - expected.flatten()).norm() / expected.norm())
            continue
        norm, head = case[f"{key}_l2"], torch.tensor(case[f"{key}_head"], dtype=torch.float64)
        worst[key] = max(abs(float(value.norm()) - norm), float((value.flatten()[:10] - head).abs().max())) / norm
    return worst


@pytest.mark.parametrize(("name", "number"), [(name, n) for name, cases in CASES.items() for n in range(len(cases))])
def test_a_layer_gives_the_authors_numbers(name: str, number: int) -> None:
    found = differences(name, CASES[name][number])
    assert len(found) == (5 if name.startswith("biper") else 4)
    assert {key: value for key, value in found.items() if value > RELATIVE} == {}
