"""The training engine: loop, optimisers, checkpoints."""

from recu.base.imports import without_collection
from recu.base.surroundings import require_importable

with without_collection():
    require_importable("torch")
    import torch  # noqa: F401

from recu.training.optimizer import build_optimizer

__all__ = ["build_optimizer"]
