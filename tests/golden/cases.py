"""The golden files: one network each, with values computed by the authors' program in float64."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recu.training import build_optimizer

FOLDER = Path(__file__).parent
VARIANT_SUFFIX = "-2021-03"

# name in the file -> name, lr, momentum, weight decay, grouping
OPTIMISERS = {
    "sgd_cifar": ("sgd", 0.1, 0.9, 5e-4, "all"),
    "sgd_imagenet": ("sgd", 0.1, 0.9, 1e-4, "imagenet"),
    "adam": ("adam", 1e-3, 0.9, 1e-5, "imagenet"),
    "adam_reactnet": ("adam", 2.5e-3, 0.9, 1e-5, "birealnet"),
}


@dataclass(frozen=True)
class GoldenCase:
    """One file FAMILY[-2021-03][.step1|.step2].MODEL.json; stage 2 where it does not say."""

    stem: str

    @property
    def family(self) -> str:
        return self.stem.partition(".")[0].removesuffix(VARIANT_SUFFIX)

    @property
    def variant(self) -> str | None:
        return VARIANT_SUFFIX[1:] if self.stem.partition(".")[0].endswith(VARIANT_SUFFIX) else None

    @property
    def stage(self) -> int:
        return 1 if ".step1." in self.stem else 2

    @property
    def model(self) -> str:
        return self.stem.rpartition(".")[2]

    @cached_property
    def values(self) -> dict[str, Any]:
        return json.loads((FOLDER / f"{self.stem}.json").read_text())

    @property
    def targets(self) -> torch.Tensor:
        return torch.tensor(self.values["targets"])

    def optimiser(self, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(model, *OPTIMISERS[self.values["optimiser"]])


def golden_cases() -> list[GoldenCase]:
    """Every golden file that describes a network."""
    stems = sorted(path.stem for path in FOLDER.glob("*.json"))
    return [GoldenCase(stem) for stem in stems if stem != "schedules"]
