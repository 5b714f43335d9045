"""Setting tau, the quantile of the rectified clamp unit, in a whole network."""

from __future__ import annotations

from torch import nn

from recu.errors import ConfigError
from recu.nn.binary_conv import BinaryConv2d


def set_tau(model: nn.Module, tau: float) -> int:
    """Write tau into every ReCU binary convolution of a network; nothing is read back from the device.

    Args:
        model: any network; one without ReCU layers is left as it is.
        tau: in (0.5, 1]; 1 means no clamping (ReCU, ICCV 2021: Q(tau) is positive only above 0.5).

    Returns:
        The number of layers written to.

    Raises:
        ConfigError: tau is outside (0.5, 1].
    """
    if not 0.5 < tau <= 1.0:
        raise ConfigError(f"tau is {tau}, expected a value in (0.5, 1]: change tau_min and tau_max")
    layers = [module for module in model.modules() if isinstance(module, BinaryConv2d)]
    for layer in layers:
        layer.tau.fill_(tau)
    return len(layers)
