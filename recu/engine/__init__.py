"""The training engine: loop, optimisers, checkpoints."""

from recu.imports import without_collection

with without_collection():
    import torch  # noqa: F401

from recu.engine.optimizer import build_optimizer

__all__ = ["build_optimizer"]
