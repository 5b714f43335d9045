"""Deterministic values for a network's tensors: a hash of the tensor's name and the element's index."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Scale and offset of the hash by tensor, offset + scale * u with u in [-0.5, 0.5).
_BATCH_NORM = {
    "weight": (0.5, 1.0),
    "bias": (0.2, 0.0),
    "running_mean": (0.3, 0.0),
    "running_var": (0.5, 1.0),
}
_ALPHA = (1.0, 0.55)
_PRELU = (0.1, 0.25)
_SHIFT = (0.3, 0.0)
_OTHER = (0.2, 0.0)


def hash_uniform(key: str, shape: Sequence[int]) -> Tensor:
    """Values in [-0.5, 0.5), float64, of the given shape, determined by the key."""
    count = int(np.prod(shape, dtype=np.int64))
    h = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(zlib.crc32(key.encode()) << 32)
    h *= np.uint64(0x9E3779B97F4A7C15)
    h ^= h >> np.uint64(31)
    h *= np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(27)
    h *= np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(31)
    u = (h >> np.uint64(40)).astype(np.float64) / 2.0**24 - 0.5
    return torch.from_numpy(u.reshape(tuple(shape)))


def fill(model: nn.Module, tau: float) -> None:
    """Fill every parameter and buffer of a network in place, `num_batches_tracked` excepted."""
    with torch.no_grad():
        for prefix, module in model.named_modules():
            tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for name, tensor in tensors:
                key = f"{prefix}.{name}" if prefix else name
                if name == "tau":
                    tensor.fill_(tau)
                elif name != "num_batches_tracked":
                    scale, offset = _scale_and_offset(module, key)
                    tensor.copy_(offset + scale * hash_uniform(key, tensor.shape))


def golden_input(batch: int, size: int) -> Tensor:
    """The input images, (batch, 3, size, size), float64."""
    return 4.0 * hash_uniform("input", (batch, 3, size, size))


def _scale_and_offset(module: nn.Module, key: str) -> tuple[float, float]:
    if isinstance(module, _BatchNorm):
        return _BATCH_NORM[key.rpartition(".")[2]]
    if key.endswith(".alpha"):
        return _ALPHA
    if isinstance(module, nn.PReLU):
        return _PRELU
    if re.search(r"\bmove\d\.bias$", key):
        return _SHIFT
    return _OTHER
