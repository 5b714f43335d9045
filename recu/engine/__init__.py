"""The training engine: loop, optimisers, checkpoints."""

from recu.engine.optimizer import build_optimizer

__all__ = ["build_optimizer"]
