"""The binary convolution of ReCU (ICCV 2021): binary weights and activations, learnt scales."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.nn.activation_rescaling import rescale_per_sample
from recu.nn.recu_clamp import recu_clamp, standardise_weight
from recu.nn.ste import sign_identity, sign_polynomial


class BinaryConv2d(nn.Conv2d):
    """Convolution without bias of sign(activation) with sign(standardised, clamped weight), times alpha.

    State: `weight` (O, I, kH, kW), the real-valued latent weights; `alpha` (O, 1, 1), a learnt scale per
    output channel, initially uniform in [0, 1); `tau` (), a buffer set once an epoch by `recu.nn.set_tau`,
    initially 1.0, which means no clamping.

    Args:
        in_channels: I.
        out_channels: O.
        kernel_size: kH = kW.
        stride: of the convolution.
        padding: zeros on each side; they stay zero under the sign.

    Raises:
        ValueError: a filter has a single weight, so that it has no unbiased variance.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)
        if self.weight[0].numel() < 2:
            raise ValueError(
                "a binary filter needs at least two weights: standardisation divides by their variance"
            )
        self.alpha = nn.Parameter(torch.rand(out_channels, 1, 1))
        self.register_buffer("tau", torch.tensor(1.0))

    def forward(self, activation: Tensor) -> Tensor:
        """Convolve (N, I, H, W) to (N, O, H', W')."""
        if self.training:
            activation = rescale_per_sample(activation)
        binary_activation = sign_polynomial(activation)
        binary_weight = sign_identity(recu_clamp(standardise_weight(self.weight), self.tau))
        return F.conv2d(binary_activation, binary_weight, None, self.stride, self.padding) * self.alpha
