"""`recu new`: write a working starting point of a binariser, a network or a suite, with a test."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from recu.base.errors import ConfigError, OutputError
from recu.base.files import atomic_write_text

_BINARISER = '''"""{title}: which paper, and what it binarises how."""

import torch.nn.functional as F
from torch import Tensor, nn

from recu.binarisers.estimators import sign_identity, sign_polynomial
from recu.binarisers.protocol import LatentWeights, LayerCost


class {title}(nn.Conv2d):
    """Convolution of sign(activation) with sign(weight), times mean|w| of each filter."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)

    def forward(self, activation: Tensor) -> Tensor:
        whole = F.conv2d(sign_polynomial(activation), sign_identity(self.weight), None, self.stride, self.padding)
        return whole * self.scale().view(-1, 1, 1)

    def scale(self) -> Tensor:
        return self.weight.abs().mean((1, 2, 3))

    def layer_cost(self) -> LayerCost:
        """One bit a weight, 32 for each filter's scale; binary weights and activations."""
        return LayerCost.of_filters(self.weight, binary=True, derived_values=self.out_channels)

    def latent_weights(self) -> LatentWeights:
        """The binary weights are the signs of the weights themselves; for diagnostics and exports."""
        return LatentWeights(self.weight, self.weight, scale=self.scale())
'''
_NETWORK = '''"""{title}: what it is made of."""

from torch import Tensor, nn

from recu.nn.layers import Convolution


class {title}(nn.Module):
    """One binary convolution between a stem and a classifier.

    Args:
        num_classes: length of the logits.
        convolution: class of the binarised convolutions, by stage and binariser.
    """

    fixed_graph = True  # forward applies the same layers to every input
    shortcut = "none"  # how residual connections are laid out, as tables show it

    def __init__(self, num_classes: int, convolution: Convolution) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = convolution(16, 32, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.bn2(self.conv2(self.bn1(self.conv1(images)))).mean((2, 3)))
'''
_SUITE = """title: {title}
description: What it shows, in one sentence.
dataset: digits
seeds: [1]
hyperparameters: {{epochs: 1, warm_up: false}}
methods:
  vanilla: {{}}
rows:
  - model: resnet20_1w1a
"""
_TEST_OF_CODE = '''"""{name}: whatever a {kind} must do here."""

from recu.models.checks import {check}


def test_{name}() -> None:
    {check}("{name}:{title}")
'''
_TEST_OF_SUITE = '''"""Suite {name}: every name and value in it is right."""

from recu.experiment.paths import find_params
from recu.experiment.resolving import load_experiments


def test_{name}() -> None:
    assert load_experiments(find_params(), ("{name}",))
'''
_KINDS = {
    "binariser": ({"{name}.py": _BINARISER}, "check_binariser", "recu train --binariser {name}:{title} {first}"),
    "network": ({"{name}.py": _NETWORK}, "check_network_code", "recu train --model {name}:{title} {first}"),
    "suite": ({"params/suites/{name}.yaml": _SUITE}, "", "snakemake --cores all --config suites={name}"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument("kind", choices=tuple(_KINDS), help="what to begin")
    parser.add_argument("name", help="of the file, a Python name such as my_sign")


def run(arguments: argparse.Namespace) -> None:
    """Write the files into the working directory, never over others, and say how to go on."""
    kind, name = arguments.kind, arguments.name
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"name is {name!r}, expected small letters, digits and '_', a letter first")
    if kind == "suite" and not Path("params/suites").is_dir():
        raise ConfigError("there is no params/suites here: call it in the folder that holds params/")
    files, check, command = _KINDS[kind]
    words = {"kind": kind, "name": name, "check": check, "title": "".join(map(str.capitalize, name.split("_")))}
    words["first"] = "--dataset digits --epochs 1 --no-warm_up"
    if kind == "binariser":
        words["first"] += " --model resnet20_1w1a"
    files = files | {"test_{name}.py": _TEST_OF_CODE if check else _TEST_OF_SUITE}
    written = {Path(file.format(**words)): text.format(**words) for file, text in files.items()}
    there = [str(file) for file in written if file.exists()]
    if there:
        raise OutputError(
            f"{' and '.join(there)} {'exist' if len(there) > 1 else 'exists'}: choose another name, or move it away"
        )
    for file, text in written.items():
        atomic_write_text(file, text)
    print(f"written: {', '.join(map(str, written))}")
    print(f"test:    pytest test_{name}.py")
    print(f"run:     {command.format(**words)}")
