"""Whether a GPU computes fp32 convolutions and matrix products on its tensor cores, in TF32.

TF32 rounds operands to ten bits of mantissa and sums products in fp32. Signs are not changed by that and their sums are
whole numbers, so that a convolution of signs with signs is exact in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""Variable with which NVIDIA's libraries use TF32 always (1) or never (0), whatever they are asked for."""


@contextmanager
def tf32_allowed(allowed: bool = True) -> Iterator[None]:
    """Within it TF32 is used where the GPU has it, if `allowed`, and not otherwise; then what held before."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    allow_tf32(allowed)
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def allow_tf32(allowed: bool) -> None:
    """From here on in this process."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
