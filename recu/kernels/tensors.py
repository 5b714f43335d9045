"""PyTorch's tensors as the arrays that compiled loops take, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from recu.kernels.compiled import in_threads

_PLAIN = (Tensor, Parameter)
"""Not the classes derived from them, which may mean something else by their memory."""


def compiled_for(*tensors: Tensor) -> bool:
    """Whether loops can take these: plain tensors on the CPU, all float32 or all float64, outside of mixed precision.

    While PyTorch records or compiles a network they cannot: what they compute would be recorded as a constant.
    """
    return (
        not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and all(
            type(tensor) in _PLAIN
            and tensor.device.type == "cpu"
            and tensor.layout is torch.strided
            and tensor.dtype in (torch.float32, torch.float64)
            and tensor.dtype == tensors[0].dtype
            and not tensor.is_neg()
            for tensor in tensors
        )
    )


def over_samples(loop: Callable[..., Any], count: int, *arguments: Any) -> None:
    """`in_threads` with as many threads as PyTorch uses."""
    in_threads(loop, torch.get_num_threads(), count, *arguments)


def as_rows(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) as an array (N, H, W, C) in one piece; the same memory, where they are channels_last."""
    return images.detach().contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()


def as_images(rows: np.ndarray) -> Tensor:
    """The inverse of `as_rows`: (N, C, H, W), channels_last, in the array's memory."""
    return torch.from_numpy(rows).permute(0, 3, 1, 2)


def as_row(per_channel: Tensor, images: np.ndarray) -> np.ndarray:
    """Values of each channel (C,) for a whole row of images (N, H, W, C): (W * C,), over which loops are long."""
    return np.tile(per_channel.detach().numpy(), images.shape[2])
