"""A BatchNorm for evaluation alone, as one multiplication and addition in the memory of what it is given."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.kernels import sign_codes
from recu.kernels.tensors import as_images, as_rows, compiled_for


class FixedNorm2d(nn.Module):
    """A BatchNorm in evaluation mode as it is now, for images; a deep copy of one takes ten times as long.

    Args:
        norm: with running statistics; its tensors are copied.
    """

    running_mean: Tensor
    running_var: Tensor
    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("running_mean", "running_var", "weight", "bias"):
            values: Tensor | None = getattr(norm, name)
            self.register_buffer(name, None if values is None else values.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if x.dim() != 4:
            raise ValueError(f"expected 4D input (got {x.dim()}D input)")  # else other axes might be taken for channels
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def factor_and_shift(self) -> tuple[Tensor, Tensor]:
        """It as x * factor + shift, both (C,).

        Rounded once, that is in float32 to the last bit what PyTorch computes on a CPU.
        """
        factor = torch.rsqrt(self.running_var + self.eps)
        factor = factor if self.weight is None else factor * self.weight
        return factor, self(factor.new_zeros(1, len(factor), 1, 1)).flatten()


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
        self.norm, self.hardtanh = FixedNorm2d(norm), hardtanh
        self.factor_and_shift = self.norm.factor_and_shift() if compiled_for(self.norm.running_mean) else None

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
        mean = self.norm.running_mean
        return compiled_for(x, mean) and x.dim() == 4 and x.shape[1] == len(mean)
