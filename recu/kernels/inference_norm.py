"""A BatchNorm for evaluation alone, as one multiplication and addition in the memory of what it is given."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.kernels import sign_codes
from recu.kernels.tensors import as_images, as_rows, compiled_for


def factor_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A BatchNorm with running statistics as x * factor + shift, both (C,).

    Rounded once, that is in float32 to the last bit what PyTorch computes on a CPU.
    """
    factor = torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps)
    factor = factor if norm.weight is None else factor * norm.weight.detach()
    return factor, norm(factor.new_zeros(1, len(factor), 1, 1)).detach().flatten()


class InferenceNorm2d(nn.Module):
    """hardtanh(norm(x)), which overwrites x.

    Args:
        norm: in evaluation mode, with running statistics; it is copied.
        hardtanh: whether the result is clipped to [-1, 1].

    Attributes:
        factor_and_shift: of the BatchNorm, both (C,); None where loops cannot take them.
    """

    def __init__(self, norm: nn.BatchNorm2d, *, hardtanh: bool) -> None:
        super().__init__()
        self.norm, self.hardtanh = copy.deepcopy(norm), hardtanh
        self.factor_and_shift = factor_and_shift(self.norm) if compiled_for(cast(Tensor, norm.running_mean)) else None

    def operation(self) -> dict[str, Any] | None:
        """What it computes, as `recu.kernels.sign_program` takes it; None where its numbers are not for loops."""
        if self.factor_and_shift is None:
            return None
        factor, shift = (values.numpy() for values in self.factor_and_shift)
        return {"op": "norm", "factor": factor, "shift": shift, "hardtanh": self.hardtanh}

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if self.factor_and_shift is None or not self._fits(x):
            out = self.norm(x)
            return F.hardtanh(out, inplace=True) if self.hardtanh else out
        rows, (factor, shift) = as_rows(x), (values.numpy() for values in self.factor_and_shift)
        sign_codes.normalise(rows, factor, shift, torch.get_num_threads(), hardtanh=self.hardtanh)
        return as_images(rows)

    def _fits(self, x: Tensor) -> bool:
        mean = cast(Tensor, self.norm.running_mean)
        return compiled_for(x, mean) and x.dim() == 4 and x.shape[1] == len(mean)
