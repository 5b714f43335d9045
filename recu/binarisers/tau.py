"""Setting tau, the quantile of the rectified clamp unit, in a whole network."""

from __future__ import annotations

from torch import nn

from recu.base.errors import ConfigError


def set_tau(model: nn.Module, tau: float) -> int:
    """Write tau into every layer of a network that has a buffer of this name; nothing is read back from the device.

    By the buffer, not by the class: a binariser of one's own that clamps at a quantile, derived from `BinaryConv2d` or
    not, follows the schedule too.

    Args:
        model: any network; one without such layers is left as it is.
        tau: in (0.5, 1]; 1 means no clamping (ReCU, ICCV 2021: Q(tau) is positive only above 0.5).

    Returns:
        The number of layers written to.

    Raises:
        ConfigError: tau is outside (0.5, 1].
    """
    if not 0.5 < tau <= 1.0:
        raise ConfigError(f"tau is {tau}, expected a value in (0.5, 1]: change tau_min and tau_max")
    buffers = [
        buffer for layer in model.modules() for name, buffer in layer.named_buffers(recurse=False) if name == "tau"
    ]
    for buffer in buffers:
        buffer.fill_(tau)
    return len(buffers)
