"""Whether a GPU computes fp32 convolutions and matrix products on its tensor cores, in TF32.

TF32 rounds operands to ten bits of mantissa and sums products in fp32. Signs are not changed by that and their sums are
whole numbers, so that a convolution of signs with signs is exact in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""Variable with which NVIDIA's libraries use TF32 always (1) or never (0), whatever they are asked for."""


@contextmanager
def tf32_allowed(allowed: bool = True) -> Iterator[None]:
    """Within it TF32 is used where the GPU has it, if `allowed`, and not otherwise; then what held before."""
    restore = _restoring()
    allow_tf32(allowed)
    try:
        yield
    finally:
        restore()


def _restoring() -> Callable[[], None]:
    """A function that lets hold again what holds now, by whichever of PyTorch's two interfaces it was set."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    precisions = [each.fp32_precision for each in _operations()]
    try:
        flags = cudnn.allow_tf32, matmul.allow_tf32
    except RuntimeError:
        # The program around this one has set `fp32_precision`, after which PyTorch answers no question about the flags.
        flags = None

    def restore() -> None:
        if flags is not None:
            cudnn.allow_tf32, matmul.allow_tf32 = flags
        _set_precisions(precisions)

    return restore


def _operations() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn  # which has `conv` and `rnn` without saying so
    return cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul


def _set_precisions(precisions: Iterable[str]) -> None:
    for each, precision in zip(_operations(), precisions, strict=True):
        if each.fp32_precision != precision:
            each.fp32_precision = precision


def allow_tf32(allowed: bool) -> None:
    """From here on in this process."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    if not allowed and any(each.fp32_precision == "tf32" for each in _operations()):
        # A precision set for all of PyTorch outlives the flags.
        _set_precisions(["ieee"] * len(_operations()))
