"""Random numbers of the input pipeline: functions of the seed and the position in training, never of what ran before.

That is what lets training resume at any batch with the very images it would have seen.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from recu.base.files import canonical_json

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) from `parts`, e.g. ("crop", seed, epoch, batch); unrelated parts give unrelated seeds."""
    digest = hashlib.sha256(canonical_json(list(parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for(*parts: int | str) -> torch.Generator:
    """A fresh CPU generator seeded by `derive_seed`; draws made on the CPU are equal whatever the training device."""
    import torch

    return torch.Generator().manual_seed(derive_seed(*parts))


def shuffled_order(num_images: int, seed: int, epoch: int) -> torch.Tensor:
    """The order (num_images,) int64 in which an epoch visits the training images."""
    import torch

    return torch.randperm(num_images, generator=generator_for("order", seed, epoch))
