"""Networks that nobody thought of: random graphs of layers are evaluated as they compute, to the last bit."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from recu.nn import BinaryConv2d
from recu.nn.inference import inference_form
from tests.golden.fill import fill

CHANNELS, STEPS = 8, 14


class Random(nn.Module):
    """Each step reads results of any earlier ones, and may write over one of them, which others have read or will."""

    fixed_graph = True

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        makers = {
            "conv": lambda: BinaryConv2d(CHANNELS, CHANNELS, 3, padding=1),
            "pointwise": lambda: BinaryConv2d(CHANNELS, CHANNELS, 1),
            "norm": lambda: nn.BatchNorm2d(CHANNELS),
            "pool": lambda: nn.MaxPool2d(3, 1, 1),
            "hardtanh": nn.Hardtanh,
            "written over": lambda: nn.Hardtanh(inplace=True),
        }
        chances = [*makers, "conv", "conv", "norm", "norm", "add", "add", "add in place", "clamp"]
        self.layers = nn.ModuleDict()
        self.steps: list[tuple[str, int, int]] = []
        for number in range(STEPS):
            kind = draw.choice(chances)
            # Mostly what came last, as in networks that people write.
            first, second = (number if draw.random() < 0.6 else draw.randrange(number + 1) for _ in range(2))
            if kind in makers:
                earlier = [name for name in self.layers if name.startswith(kind)]
                name = draw.choice(earlier) if earlier and draw.random() < 0.2 else f"{kind}{number}"
                if name not in self.layers:
                    self.layers[name] = makers[kind]()
                kind = name
            self.steps.append((kind, first, second))
        self.read = sorted({STEPS, draw.randrange(STEPS + 1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = [F.hardtanh(x)]
        for kind, first, second in self.steps:
            if kind == "add":
                made = found[first] + found[second]
            elif kind == "add in place":
                made = found[first]
                made += found[second]
            elif kind == "clamp":
                made = found[first].clamp_(-0.5, 0.75)
            else:
                made = self.layers[kind](found[first])
            found.append(made)
        return torch.cat([found[number].flatten(1) for number in self.read], 1)


@pytest.mark.parametrize("seed", range(50))
@torch.inference_mode()
def test_a_random_network(seed: int) -> None:
    torch.manual_seed(seed)
    model = Random(seed)
    fill(model, 0.9)
    model.eval()
    batch = torch.randn(2, CHANNELS, 5, 6).contiguous(memory_format=torch.channels_last)
    expected = model(batch.clone())
    assert torch.equal(inference_form(model)(batch.clone()), expected)
