"""What a network costs: parameters, stored size, and the operations of one image, counted from the network itself.

The convention is that of ReActNet (ECCV 2020) and Bi-Real Net (ECCV 2018): OPs = BOPs / 64 + FLOPs, one operation being
one multiply-accumulate of a convolution or a linear layer for one image. docs/costs.md says why, with a table.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recu.errors import ConfigError
from recu.models.layers import LearnableShift
from recu.nn import BinaryConv2d, CompetitorBinaryConv2d

# A 64-bit machine does 64 binary multiply-accumulates with the instructions of one.
BINARY_OPERATIONS_PER_OPERATION = 64

BYTES_PER_FLOAT = 4

# The one list of layers whose weights AND activations are binary.
_BINARY_CONVOLUTIONS = (BinaryConv2d, CompetitorBinaryConv2d)

# Layers with state of their own whose few operations per value the convention leaves out.
_UNCOUNTED_LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU, LearnableShift)

# Persistent buffers that only training reads.
_TRAINING_BUFFERS = ("num_batches_tracked", "tau")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one network costs at one input size."""

    parameters: int
    """Elements of all parameters, frozen ones included; a latent weight counts one though it is stored in a bit."""
    checkpoint_bytes: int
    """Bytes inference has to store: one bit a binary weight, 32 bits any other value (see `measure_cost`)."""
    binary_operations: int
    """BOPs: multiply-accumulates of convolutions with binary weights and binary activations, for one image."""
    floating_point_operations: int
    """FLOPs: multiply-accumulates of all other convolutions and of linear layers, for one image."""

    @property
    def operations(self) -> float:
        """OPs = BOPs / 64 + FLOPs (Bi-Real Net, ECCV 2018; ReActNet, ECCV 2020)."""
        return self.binary_operations / BINARY_OPERATIONS_PER_OPERATION + self.floating_point_operations


def measure_cost(model: nn.Module, image_size: int) -> Cost:
    """Count a network's parameters, stored bytes and operations.

    Operations. Every output value of a convolution costs in_channels / groups * kH * kW multiply-accumulates, positions
    over zero padding included; one of a linear layer costs in_features. Counted are the stem, the 1x1 convolutions of
    downsampling shortcuts and the classifier; left out are biases, BatchNorm, PReLU, shifts, scales, pooling, additions
    and activation functions. A convolution of binary activations with REAL weights (stage 1) is
    counted as floating-point: each of its steps adds a 32-bit number, so no 64 of them fit into one instruction. Thus
    ResNet-18 of "reactnet" and "birealnet" has 1.6399e8 OPs at 224x224 and 1000 classes, published as 1.63e8: the
    published digits are truncated, not rounded. (Without the classifier it would be 1.6347e8.)

    Stored bytes. One bit a binary weight, rounded up to whole bytes a layer; 32 bits each other parameter, each running
    mean and variance, each `alpha` of a ReCU convolution, and each output filter's mean|w| of the competitor's, which
    inference needs and cannot derive from signs. Not stored: latent weights, `tau`, `num_batches_tracked`. Nothing is
    folded (alpha into BatchNorm, say), and a file's own overhead is left out.

    A copy of the network passes one image in evaluation mode, so `model` keeps its state, mode and gradients. One on
    the meta device computes nothing, but PyTorch imports its compiler for that, which takes longer than an image.

    Args:
        model: a network from (N, 3, H, W) to logits, of `recu.models.build_model` or a plain torchvision ResNet; not
            wrapped by a compiler or for several devices.
        image_size: H = W, in pixels.

    Returns:
        The counts. A layer that runs twice costs its operations twice; one that does not run costs none.

    Raises:
        ConfigError: the network does not accept images of this size, or holds a layer with parameters or buffers that
            the convention does not cover.
    """
    if image_size < 1:
        raise ConfigError(f"image_size is {image_size}, expected at least 1 pixel")
    _require_known_layers(model)
    binary_operations, floating_point_operations = _count_operations(model, image_size)
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        checkpoint_bytes=sum(_stored_bytes(layer) for layer in model.modules()),
        binary_operations=binary_operations,
        floating_point_operations=floating_point_operations,
    )


def is_binary_convolution(layer: nn.Module) -> bool:
    """Whether a layer convolves binary activations with binary weights."""
    return isinstance(layer, _BINARY_CONVOLUTIONS)


def _require_known_layers(model: nn.Module) -> None:
    known = (nn.Conv2d, nn.Linear, *_UNCOUNTED_LAYERS)
    for name, layer in model.named_modules():
        has_state = any(True for _ in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)))
        if has_state and not isinstance(layer, known):
            raise ConfigError(
                f"the cost of layer {name!r} ({type(layer).__name__}) is not defined: "
                f"expected one of {', '.join(kind.__name__ for kind in known)}; add it to recu/models/cost.py"
            )


def _stored_bytes(layer: nn.Module) -> int:
    """Of the layer's own state, without that of the layers inside it."""
    values = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
    values += sum(
        buffer.numel() for name, buffer in layer.named_buffers(recurse=False) if name not in _TRAINING_BUFFERS
    )
    if not is_binary_convolution(layer):
        return values * BYTES_PER_FLOAT
    bits = layer.weight.numel()
    values -= bits
    if isinstance(layer, CompetitorBinaryConv2d):
        values += layer.out_channels
    return -(-bits // 8) + values * BYTES_PER_FLOAT


def _count_operations(model: nn.Module, image_size: int) -> tuple[int, int]:
    """(BOPs, FLOPs) of one image."""
    counts = {True: 0, False: 0}

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts[is_binary_convolution(layer)] += output.numel() * _operations_per_output(layer)

    network = copy.deepcopy(model).eval()
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    like = next(network.parameters(), torch.empty(()))
    try:
        with torch.no_grad():
            network(like.new_zeros(1, 3, image_size, image_size))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{type(model).__name__} does not accept images of {image_size}x{image_size} pixels ({reason}): "
            "use the image_size of the dataset this network is for"
        ) from error
    return counts[True], counts[False]


def _operations_per_output(layer: nn.Conv2d | nn.Linear) -> int:
    """Multiply-accumulates behind one output value: the weights of one filter, or of one row."""
    return layer.weight[0].numel()
