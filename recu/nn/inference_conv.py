"""A binary convolution for evaluation alone: its weights are binarised once.

The convolution of signs is a whole number, exact in each of three ways to compute it:

- in bytes, by oneDNN on x86 processors: signs as 0, 1, 2 around a zero point of 1, which is also the padding;
- by Winograd's form, where a processor multiplies bytes not much faster than floats and the layer is wide;
- by the library's convolution of floats: float64, GPUs, other processors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.nn import winograd

_ZERO_POINT = 1
"""The byte that stands for sign 0."""
_SMALLEST_SIGN = 1e-30
"""The unit of a result that is wanted as a sign: whatever is larger becomes +1 or -1 by being clipped to it."""
_WINOGRAD_CHANNELS = 256
"""Width from which Winograd's form in floats beats bytes on AVX2, which has no instruction for products of bytes."""


class InferenceConv2d(nn.Module):
    """sign(activation) convolved with binary weights, times `scale`, for evaluation.

    Args:
        binary_weight: (O, I, kH, kW), values in {-1, 0, 1}.
        scale: (O,); what multiplies the convolution.
        sign_shift: (O,) where nothing but the sign of convolution * scale + sign_shift will be looked at; the result
            may then come as bytes, which only this class understands.
        stride: of the convolution.
        padding: likewise.
    """

    def __init__(
        self,
        binary_weight: Tensor,
        scale: Tensor,
        *,
        sign_shift: Tensor | None = None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> None:
        super().__init__()
        self.register_buffer("weight", binary_weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("scale", scale)
        self.register_buffer("sign_shift", sign_shift)
        self.stride, self.padding = tuple(stride), tuple(padding)
        self._packed: Tensor | None = None
        self._kernel: Tensor | None = None

    def forward(self, activation: Tensor) -> Tensor:
        """(N, I, H, W), real values or another layer's bytes, to (N, O, H', W')."""
        if _multiplies_bytes(self.weight) and not self._prefers_winograd(activation):
            return self._in_bytes(activation)
        if activation.dtype == torch.uint8:
            activation = activation.to(self.weight.dtype).sub_(_ZERO_POINT)
        output = self._convolve(activation).mul_(self.scale.view(-1, 1, 1))
        return output if self.sign_shift is None else output.add_(self.sign_shift.view(-1, 1, 1))

    def _prefers_winograd(self, activation: Tensor) -> bool:
        return (
            torch.backends.cpu.get_cpu_capability() == "AVX2"
            and min(self.weight.shape[:2]) >= _WINOGRAD_CHANNELS
            and winograd.suits(activation.shape, self.weight, self.stride, self.padding)
        )

    def _convolve(self, activation: Tensor) -> Tensor:
        if winograd.suits(activation.shape, self.weight, self.stride, self.padding):
            if self._kernel is None:
                self._kernel = winograd.transform_kernel(self.weight)
            return winograd.convolve_signs(activation, self._kernel)
        return F.conv2d(torch.sign(activation), self.weight, None, self.stride, self.padding)

    def _in_bytes(self, activation: Tensor) -> Tensor:
        codes = activation if activation.dtype == torch.uint8 else sign_bytes(activation)
        if self._packed is None:
            weight = self.weight.to(torch.int8)
            geometry = (self.stride, self.padding, (1, 1), 1)
            self._packed = torch.ops.onednn.qconv_prepack(
                weight, self.scale, 1.0, _ZERO_POINT, *geometry, list(codes.shape)
            )
        if self.sign_shift is None:
            unit, zero_point, dtype, clip, bounds = 1.0, 0, torch.float32, "none", []
        else:
            unit, zero_point, dtype = _SMALLEST_SIGN, _ZERO_POINT, torch.uint8
            clip, bounds = "hardtanh", [-_SMALLEST_SIGN, _SMALLEST_SIGN]
        return torch.ops.onednn.qconv2d_pointwise(
            codes,
            1.0,
            _ZERO_POINT,
            self._packed,
            self.scale,
            torch.zeros(len(self.scale), dtype=torch.int32),
            self.sign_shift,
            self.stride,
            self.padding,
            (1, 1),
            1,
            unit,
            zero_point,
            dtype,
            clip,
            bounds,
            "",
        )


def sign_bytes(activation: Tensor) -> Tensor:
    """The signs of a tensor as bytes: 0, 1 and 2 for -1, 0 and 1."""
    # By way of int8, to which PyTorch converts several times faster than to uint8.
    codes = torch.sign(activation).to(torch.int8).add_(_ZERO_POINT).view(torch.uint8)
    return codes.contiguous(memory_format=torch.channels_last)


def _multiplies_bytes(weight: Tensor) -> bool:
    """Whether oneDNN can take over: what it needs are an x86 processor with AVX2 and results in float32."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    )
