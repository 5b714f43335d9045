"""A binary convolution for evaluation alone: its weights are binarised once, what follows it happens in the same pass.

On a CPU signs are convolved as codes (`recu.kernels.sign_codes`), and a result whose sign alone is looked at stays in
these. Everywhere else, and for what codes cannot express, the same is computed by the library's operations.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.kernels import sign_codes, sign_convolution
from recu.kernels.inference_norm import FixedNorm2d
from recu.kernels.sign_codes import FilterCodes, SignCodes
from recu.kernels.tensor_cores import tf32_allowed
from recu.kernels.tensors import compiled_for


class InferenceConv2d(nn.Module):
    """hardtanh(norm(sign(activation) convolved with binary weights, times scale) + residual), for evaluation.

    Args:
        binary_weight: (O, I, kH, kW), values in {-1, 0, 1}.
        scale: (O,); what multiplies the convolution.
        stride: of the convolution.
        padding: likewise.
        norm: BatchNorm with running statistics behind the convolution, or None; it is copied.
        hardtanh: whether the result is clipped to [-1, 1].
        sign_threshold: int32 direction and threshold, both (O,), where all that will be looked at is whether
            convolution * direction is above the threshold; in the place of scale, norm and hardtanh. The result may
            then come as codes, which only this class understands.

    Attributes:
        in_place: whether the result may take the residual's memory; set it where nothing reads that later.
        filters: the weights in numbers of four; None where they are not all signs.
    """

    weight: Tensor
    scale: Tensor

    def __init__(
        self,
        binary_weight: Tensor,
        scale: Tensor,
        *,
        stride: tuple[int, int],
        padding: tuple[int, int],
        norm: nn.BatchNorm2d | None = None,
        hardtanh: bool = False,
        sign_threshold: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", binary_weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("scale", scale)
        self.stride, self.padding = stride, padding
        self.in_place = False
        self.norm = None if norm is None else FixedNorm2d(norm)
        self.hardtanh, self.sign_threshold = hardtanh, sign_threshold
        self.filters: FilterCodes | None = None
        self._factor_and_shift: tuple[Tensor, Tensor] | None = None
        if sign_convolution.suits(binary_weight, binary_weight):
            self.filters = sign_convolution.pack_filters(binary_weight)
            self._factor_and_shift = None if self.norm is None else self.norm.factor_and_shift()

    def operation(self) -> dict[str, Any] | None:
        """What it computes, as `recu.kernels.sign_program` takes it; None where its weights are not all signs."""
        if self.filters is None:
            return None
        said: dict[str, Any] = {"op": "binary", "filters": self.filters, "stride": self.stride, "padding": self.padding}
        if self.sign_threshold is not None:
            direction, threshold = (values.numpy() for values in self.sign_threshold)
            return said | {"direction": direction, "threshold": threshold}
        factor, shift = (
            (values.numpy() for values in self._factor_and_shift) if self._factor_and_shift else (None, None)
        )
        said |= {"scale": self.scale.numpy(), "factor": factor, "shift": shift}
        return said | {"hardtanh": self.hardtanh}

    def forward(self, activation: Tensor | SignCodes, residual: Tensor | None = None) -> Tensor | SignCodes:
        """(N, I, H, W), real values or another layer's signs, to (N, O, H', W'); `residual` like the result."""
        images, filters = self._as_codes(activation), self.filters
        if images is None or filters is None or not self._can_add(residual, images, filters):
            return self._convolve_floats(activation, residual)
        if self.sign_threshold is not None:
            return sign_convolution.convolve_to_signs(images, filters, self.stride, *self.sign_threshold)
        return sign_convolution.convolve_to_values(
            images,
            filters,
            self.stride,
            self.scale,
            norm=self._factor_and_shift,
            residual=residual,
            hardtanh=self.hardtanh,
            in_place=self.in_place,
        )

    def _can_add(self, residual: Tensor | None, images: SignCodes, filters: FilterCodes) -> bool:
        """Whether a residual has the result's shape and type, so that nothing has to be broadcast or converted."""
        return residual is None or (
            residual.shape == sign_convolution.result_shape(images, filters, self.stride)
            and compiled_for(residual, self.scale)
        )

    def _as_codes(self, activation: Tensor | SignCodes) -> SignCodes | None:
        """None where floats are needed."""
        if self.filters is None:
            return None
        if isinstance(activation, SignCodes):
            images = sign_codes.with_padding(activation, self.padding)
            fits = sign_convolution.can_filter(images.codes.shape[1:3], self.weight.shape[2:], (0, 0))
            return images if fits else None
        if not sign_convolution.suits(activation, self.weight, self.padding):
            return None
        return sign_convolution.pack_images(activation, self.padding)

    def _convolve_floats(self, activation: Tensor | SignCodes, residual: Tensor | None) -> Tensor:
        if isinstance(activation, SignCodes):
            activation = sign_convolution.unpack_images(activation, self.weight.dtype)
        with tf32_allowed():  # exact, of signs
            whole = F.conv2d(torch.sign(activation), self.weight, None, self.stride, self.padding)
        if self.sign_threshold is not None:
            direction, threshold = (values.to(whole).view(-1, 1, 1) for values in self.sign_threshold)
            return whole.mul_(direction).sub_(threshold + 0.5)
        out = whole.mul_(self.scale.view(-1, 1, 1))
        out = out if self.norm is None else self.norm(out)
        out = out if residual is None else out + residual
        return F.hardtanh(out, inplace=True) if self.hardtanh else out
