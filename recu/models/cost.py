"""What a network costs: parameters, stored size, and the operations of one image, counted from the network itself.

The convention is that of ReActNet (ECCV 2020) and Bi-Real Net (ECCV 2018): OPs = BOPs / 64 + FLOPs, one operation being
one multiply-accumulate of a convolution or a linear layer for one image. docs/costs.md says why, with a table.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from recu.base.errors import ConfigError
from recu.binarisers.protocol import LayerCost, stated_cost

# A 64-bit machine does 64 binary multiply-accumulates with the instructions of one.
BINARY_OPERATIONS_PER_OPERATION = 64

BYTES_PER_FLOAT = 4

# torch's layers cannot say what they cost: these very classes, and none derived from them, are known here.
_MULTIPLYING_LAYERS = (nn.Conv2d, nn.Linear)
_OTHER_LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU)

# A buffer of theirs that only training reads.
_TRAINING_BUFFER = "num_batches_tracked"

# Functions whose operations the convention counts. A layer that calls one must say what that costs.
_MULTIPLYING_FUNCTIONS = (
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution",
    "linear", "bilinear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "dot", "inner", "addmm",
    "addmv", "addbmm", "baddbmm", "multi_dot", "einsum", "tensordot", "scaled_dot_product_attention",
    "multi_head_attention_forward",
)  # fmt: skip


_ADVICE = "define layer_cost() in the body of its class, or of one derived from it (docs/extending.md)"


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

    A layer says itself what it costs, see `recu.binarisers.protocol`; torch's convolution, linear layer, BatchNorm
    and PReLU are known. A tensor that several layers share is stored once.

    A copy of the network passes one image in evaluation mode, so `model` keeps its state, mode and gradients. One on
    the meta device computes nothing, but PyTorch imports its compiler for that, which takes longer than an image.

    Args:
        model: a network from (N, 3, H, W) to logits; not wrapped by a compiler or for several devices.
        image_size: H = W, in pixels.

    Returns:
        The counts. A layer that runs twice costs its operations twice; one that does not run costs none.

    Raises:
        ConfigError: the network does not accept images of this size, or something in it holds parameters or buffers, or
            multiplies and adds, without saying what that costs.
    """
    if image_size < 1:
        raise ConfigError(f"image_size is {image_size}, expected at least 1 pixel")
    checkpoint_bytes = _stored_bytes(_costs(model).values())
    binary_operations, floating_point_operations = _count_operations(model, image_size)
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        checkpoint_bytes=checkpoint_bytes,
        binary_operations=binary_operations,
        floating_point_operations=floating_point_operations,
    )


def check_costs(model: nn.Module) -> None:
    """Find out, without running it, that `measure_cost` would refuse a network for one of its layers.

    Raises:
        ConfigError: a layer has state of its own and does not say what it costs.
    """
    _costs(model)


def _costs(model: nn.Module) -> dict[nn.Module, LayerCost]:
    """Of every layer that has a cost.

    Raises:
        ConfigError: one has state of its own and does not say what it costs, or whether that is binary.
    """
    costs = {}
    for name, layer in model.named_modules():
        cost = stated_cost(layer) or _cost_of_torch_layer(layer)
        if cost is not None and cost.operations_per_output and cost.binary is None:
            raise ConfigError(
                f"layer {name!r} ({type(layer).__name__}) states operations and not whether they are binary: give"
                " LayerCost binary=True (weights and activations are both binary) or binary=False in layer_cost()"
            )
        if cost is not None:
            costs[layer] = cost
        elif any(True for _ in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))):
            raise ConfigError(
                f"layer {name!r} ({type(layer).__name__}) holds parameters or buffers and does not say what it costs:"
                f" {_ADVICE}; what a class inherits is said of another layer"
            )
    return costs


def _cost_of_torch_layer(layer: nn.Module) -> LayerCost | None:
    if type(layer) not in (*_MULTIPLYING_LAYERS, *_OTHER_LAYERS):
        return None
    buffers = (buffer for name, buffer in layer.named_buffers(recurse=False) if name != _TRAINING_BUFFER)
    cost = LayerCost(values=(*layer.parameters(recurse=False), *buffers))
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        cost = cost._replace(operations_per_output=layer.weight[0].numel(), binary=False)
    return cost


def _stored_bytes(costs: Iterable[LayerCost]) -> int:
    stored: set[int] = set()

    def numel(tensors: Sequence[Tensor]) -> int:
        new = [tensor for tensor in tensors if id(tensor) not in stored]
        stored.update(id(tensor) for tensor in new)
        return sum(tensor.numel() for tensor in new)

    return sum(
        -(-numel(cost.bits) // 8) + (numel(cost.values) + cost.derived_values) * BYTES_PER_FLOAT for cost in costs
    )


def _count_operations(model: nn.Module, image_size: int) -> tuple[int, int]:
    """(BOPs, FLOPs) of one image."""
    network = copy.deepcopy(model).eval()
    counting = _Counting(_costs(network))
    like = next(network.parameters(), torch.empty(()))
    try:
        with torch.no_grad(), counting:
            network(like.new_zeros(1, 3, image_size, image_size))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{type(model).__name__} does not accept images of {image_size}x{image_size} pixels ({reason}): "
            "use the image_size of the dataset this network is for"
        ) from error
    return counting.operations[True], counting.operations[False]


class _Counting(TorchFunctionMode):
    """While it is active, counts the operations of layers that are called, and refuses those that no layer states.

    Args:
        costs: of every layer that says them; hooks are put on these.

    Attributes:
        operations: multiply-accumulates by whether they are binary.
    """

    def __init__(self, costs: Mapping[nn.Module, LayerCost]) -> None:
        super().__init__()
        self.operations = {True: 0, False: 0}
        self._costs = costs
        self._called: list[nn.Module] = []
        for layer in costs:
            layer.register_forward_pre_hook(self._enter)
            layer.register_forward_hook(self._leave)

    def _enter(self, layer: nn.Module, _inputs: tuple[Any, ...]) -> None:
        self._called.append(layer)

    def _leave(self, layer: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        self._called.pop()
        cost = self._costs[layer]
        if cost.operations_per_output:
            if not isinstance(output, Tensor):
                raise ConfigError(
                    f"{type(layer).__name__} gives a {type(output).__name__}: expected one tensor where it states"
                    " operations_per_output in layer_cost()"
                )
            self.operations[bool(cost.binary)] += output.numel() * cost.operations_per_output

    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called with every function of PyTorch that the network calls."""
        name = getattr(func, "__name__", "")
        if name in _MULTIPLYING_FUNCTIONS and not any(
            self._costs[layer].operations_per_output for layer in self._called
        ):
            raise ConfigError(
                f"the network calls {name} outside of the layers that say what they cost: put the call into a layer and"
                f" {_ADVICE}"
            )
        return func(*args, **(kwargs or {}))
