"""A binary convolution and the layers around it: a kernel where one takes exactly these layers, else the plain path."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.binarisers.protocol import has_plain_geometry
from recu.binarisers.recu import BinaryConv2d
from recu.kernels import binary_conv
from recu.kernels import binary_unit as unit_kernel
from recu.kernels.exact import is_exactly


def binary_unit(
    conv: nn.Module, norm: nn.BatchNorm2d, activation: Tensor, residual: Tensor | None = None, *, hardtanh: bool = False
) -> Tensor:
    """hardtanh(norm(conv(activation)) + residual), in one pass where a kernel takes it: ReCU's training on a CPU.

    Args:
        conv: any convolution; a `BinaryConv2d`, and no class derived from it, has kernels.
        norm: the BatchNorm behind it.
        activation: (N, I, H, W).
        residual: (N, O, H', W'), or None for none; it may be the activation itself.
        hardtanh: whether the result is clipped to [-1, 1].

    Returns:
        (N, O, H', W').

    Raises:
        ValueError: a channel has a single value, which no BatchNorm can normalise in training; or the residual's shape
            is not the result's.
    """
    if unit_kernel.suits(conv, norm, activation, residual):
        return unit_kernel.train_unit(conv, norm, activation, residual, hardtanh=hardtanh)
    out = norm(convolve(conv, activation))
    # In place where nobody needs the result again: neither addition nor a BatchNorm does, another layer may.
    # PyTorch's compiler, which cannot follow the question, decides about memory by itself.
    own = residual is not None or (not torch.compiler.is_compiling() and is_exactly(norm, nn.BatchNorm2d))
    if residual is not None:
        out = out + residual
    return F.hardtanh(out, inplace=own) if hardtanh else out


def convolve(conv: nn.Module, activation: Tensor) -> Tensor:
    """conv(activation), without calling the layer where it is exactly the `BinaryConv2d` that a kernel stands for.

    What records a network, PyTorch's compiler or a tracer, is given the layer itself.

    Args:
        conv: any convolution.
        activation: (N, I, H, W), or whatever else the layer takes.
    """
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]
    recorded = torch.compiler.is_compiling() or tracing or not isinstance(activation, Tensor)
    # PyTorch's convolutions take a single image (I, H, W) too.
    if not recorded and activation.dim() == 4 and is_exactly(conv, BinaryConv2d) and has_plain_geometry(conv):
        return binary_conv.convolve(conv, activation)
    return conv(activation)
