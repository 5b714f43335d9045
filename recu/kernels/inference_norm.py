"""A BatchNorm for evaluation alone, as one multiplication and addition in the memory of what it is given."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.kernels.compiled import as_images, as_row, as_rows, compiled, compiled_for, fused_multiply_add, over_samples


def factor_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A BatchNorm with running statistics as x * factor + shift, both (C,).

    Rounded once, that is in float32 to the last bit what PyTorch computes on a CPU.
    """
    factor = torch.rsqrt(norm.running_var + norm.eps)
    factor = factor if norm.weight is None else factor * norm.weight.detach()
    return factor, norm(factor.new_zeros(1, len(factor), 1, 1)).detach().flatten()


class InferenceNorm2d(nn.Module):
    """hardtanh(norm(x)), which overwrites x.

    Args:
        norm: in evaluation mode, with running statistics; it is copied.
        hardtanh: whether the result is clipped to [-1, 1].
    """

    def __init__(self, norm: nn.BatchNorm2d, *, hardtanh: bool) -> None:
        super().__init__()
        self.norm, self.hardtanh = copy.deepcopy(norm), hardtanh
        self._factor_and_shift = factor_and_shift(self.norm) if compiled_for(norm.running_mean) else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if self._factor_and_shift is None or not self._fits(x):
            out = self.norm(x)
            return F.hardtanh(out, inplace=True) if self.hardtanh else out
        rows = as_rows(x)
        per_channel = (as_row(values, rows) for values in self._factor_and_shift)
        bound = rows.dtype.type(1.0 if self.hardtanh else np.inf)
        over_samples(_normalise_in_place, len(rows), rows, *per_channel, bound)
        return as_images(rows)

    def _fits(self, x: Tensor) -> bool:
        return compiled_for(x, self.norm.running_mean) and x.dim() == 4 and x.shape[1] == len(self.norm.running_mean)


@compiled
def _normalise_in_place(first, stop, rows, factor, shift, bound):
    for image in range(first, stop):
        for y in range(rows.shape[1]):
            row = rows[image, y].reshape(-1)
            for i in range(len(row)):
                # In this form what is not a number stays so.
                value = fused_multiply_add(row[i], factor[i], shift[i])
                value = -bound if value < -bound else value
                row[i] = bound if value > bound else value
