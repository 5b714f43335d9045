"""ReCU (Xu et al., "Reviving the Dead Weights in Binary Neural Networks", ICCV 2021), step by step.

`BinaryConv2d.forward` is the method as the paper writes it, differentiated by autograd. It runs on every device; where
`recu.kernels` has a faster form of exactly this layer, networks take that instead (`recu.nn.binary_unit`), and tests
hold it to these lines.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.base.errors import ConfigError
from recu.binarisers.estimators import sign_identity, sign_polynomial
from recu.binarisers.protocol import LatentWeights, LayerCost, require_plain_geometry, require_variance
from recu.experiment.schedules import check_epoch
from recu.experiment.values import TAU_ABOVE, TAU_MOST

# The standard deviation of a Laplacian distribution with the paper's b* = 2.
LAPLACIAN_STD = 2.0 * math.sqrt(2.0)

# Added to the variance, not to the standard deviation, of weights and of activations.
VARIANCE_EPSILON = 1e-5

_PER_FILTER = (1, 2, 3)
_PER_SAMPLE = (1, 2, 3)


class BinaryConv2d(nn.Conv2d):
    """Convolution without bias of sign(activation) with sign(standardised, clamped weight), times alpha.

    State: `weight` (O, I, kH, kW), the real-valued latent weights; `alpha` (O, 1, 1), a learnt scale per output
    channel, initially uniform in [0, 1); `tau` (), a buffer set once an epoch by `set_tau`, initially 1.0, which means
    no clamping.

    Args:
        in_channels: I.
        out_channels: O.
        kernel_size: kH = kW.
        stride: of the convolution.
        padding: zeros on each side; they stay zero under the sign.

    Raises:
        ValueError: a filter has a single weight, so that it has no unbiased variance.
    """

    tau: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)
        require_variance(self.weight)
        self.alpha = nn.Parameter(torch.rand(out_channels, 1, 1))
        self.register_buffer("tau", torch.tensor(1.0))

    def forward(self, activation: Tensor) -> Tensor:
        """Convolve (N, I, H, W) to (N, O, H', W')."""
        require_plain_geometry(self)
        weight = self.standardised()  # step 1
        weight = recu_clamp(weight, self.tau)  # step 2
        if self.training:
            activation = rescale_per_sample(activation)  # step 3
        binary_weight, binary_activation = sign_identity(weight), sign_polynomial(activation)  # step 4
        out = F.conv2d(binary_activation, binary_weight, None, self.stride, self.padding)  # step 5
        return out * self.alpha  # step 6

    def standardised(self) -> Tensor:
        """Step 1: what the binary weights are the signs of, (O, I, kH, kW)."""
        return standardise_weight(self.weight)

    def layer_cost(self) -> LayerCost:
        """One bit a weight and 32 a filter's alpha; tau and the latent weights are for training alone."""
        return LayerCost.of_filters(self.weight, binary=True, values=(self.alpha,))

    def latent_weights(self) -> LatentWeights:
        """Standardised weights, before and after the clamp at Q(tau); alpha."""
        standardised = self.standardised()
        threshold = quantile_threshold(standardised, self.tau)
        return LatentWeights(
            standardised, torch.clamp(standardised, -threshold, threshold), threshold, self.alpha.flatten()
        )


def centre_weight(weight: Tensor) -> Tensor:
    """Bring every output filter of (O, I, kH, kW) to mean 0."""
    return weight - weight.mean(_PER_FILTER, keepdim=True)


def standardise_weight(weight: Tensor, deviation: float = LAPLACIAN_STD) -> Tensor:
    """Step 1: bring every output filter to mean 0 and standard deviation 2*sqrt(2).

    Args:
        weight: latent weights (O, I, kH, kW); I * kH * kW must be at least 2 for the unbiased variance.
        deviation: in place of 2*sqrt(2), in ablations.

    Returns:
        Standardised weights (O, I, kH, kW), differentiable through the mean and the standard deviation.
    """
    centred = centre_weight(weight)
    std = torch.sqrt(weight.var(_PER_FILTER, keepdim=True) + VARIANCE_EPSILON)
    return centred / std * deviation


def quantile_threshold(standardised: Tensor, tau: Tensor) -> Tensor:
    """Q(tau) = -m * ln(2 - 2*tau), the tau quantile of a Laplacian of mean absolute value m.

    m is taken over the WHOLE tensor although standardisation is per filter: this follows the released program rather
    than the paper's text.

    Args:
        standardised: standardised weights (O, I, kH, kW).
        tau: scalar tensor in (0.5, 1]; at 1 the threshold is infinite and nothing is clamped.

    Returns:
        Scalar tensor, a constant for the gradient. It stays on the device: nothing is read back to the host.
    """
    m = standardised.detach().abs().mean()
    threshold = -m * torch.log(2.0 - 2.0 * tau)
    # 0 * infinity is NaN: a tensor of equal weights (m = 0) must not poison the network at tau = 1.
    return torch.where(tau >= 1.0, torch.full_like(threshold, math.inf), threshold)


def recu_clamp(standardised: Tensor, tau: Tensor) -> Tensor:
    """Step 2, the rectified clamp unit: clamp standardised weights to [-Q(tau), Q(tau)].

    No sign changes; the gradient of weights far from zero, which hardly ever change their sign ("dead weights"), does.

    Args:
        standardised: standardised weights (O, I, kH, kW).
        tau: scalar tensor in (0.5, 1].

    Returns:
        Clamped weights of the same shape; the gradient is zero where a weight was clamped.
    """
    threshold = quantile_threshold(standardised, tau)
    return torch.clamp(standardised, -threshold, threshold)


def rescale_per_sample(activation: Tensor) -> Tensor:
    """Step 3, in training only: divide each sample by its standard deviation, sqrt(unbiased variance + 1e-5).

    The sign does not change, the window of the piecewise polynomial estimator does. The mean is not subtracted. The
    division is differentiated, through the standard deviation too, as in the authors' released program.

    Args:
        activation: (N, C, H, W) with C * H * W of at least 2.

    Returns:
        Rescaled activations of the same shape.
    """
    return activation / torch.sqrt(activation.var(_PER_SAMPLE, keepdim=True) + VARIANCE_EPSILON)


def tau_at(epoch: int, epochs: int, tau_min: float, tau_max: float) -> float:
    """tau(e) = A * exp(e / E) + B, A = (tau_max - tau_min) / (e - 1), B = tau_min - A (ReCU, ICCV 2021).

    Args:
        epoch: e, counted from 0; tau_max would be reached at e = E and is only approached.
        epochs: E, the length of the run in epochs.
        tau_min: value of the first epoch.
        tau_max: limit of the last one.

    Returns:
        tau, without unit. It grows slowly at first: clamping is loosened late in training.

    Raises:
        ConfigError: `epoch` is outside 0..epochs.
    """
    check_epoch(epoch, epochs)
    amplitude = (tau_max - tau_min) / (math.e - 1.0)
    return amplitude * math.exp(epoch / epochs) + (tau_min - amplitude)


def set_tau(model: nn.Module, tau: float) -> int:
    """Write tau into every layer of a network that has a buffer of this name; nothing is read back from the device.

    By the buffer, not by the class: a binariser of one's own that clamps at a quantile, derived from `BinaryConv2d` or
    not, follows the schedule too.

    Args:
        model: any network; one without such layers is left as it is.
        tau: in (0.5, 1]; 1 means no clamping (Q(tau) is positive only above 0.5).

    Returns:
        The number of layers written to.

    Raises:
        ConfigError: tau is outside (0.5, 1].
    """
    if not TAU_ABOVE < tau <= TAU_MOST:
        raise ConfigError(f"tau is {tau}, expected a value in ({TAU_ABOVE}, {TAU_MOST}]: change tau_min and tau_max")
    buffers = [
        buffer for layer in model.modules() for name, buffer in layer.named_buffers(recurse=False) if name == "tau"
    ]
    for buffer in buffers:
        buffer.fill_(tau)
    return len(buffers)
