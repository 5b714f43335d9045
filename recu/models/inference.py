"""The form of a network for evaluation: binarised once, BatchNorm and hardtanh folded into the convolutions.

The network's graph is read by torch.fx, so that any network of binary convolutions has such a form, not only those
of this package. Layers with real weights stay as they are: folding a BatchNorm into those would round differently, and
a sign may follow.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from recu.models.layers import HardTanh
from recu.nn import BinaryConv2d, CompetitorBinaryConv2d
from recu.nn.inference_conv import InferenceConv2d

_log = logging.getLogger(__name__)
_BINARY = (BinaryConv2d, CompetitorBinaryConv2d)
_PREFIX = "inference_"
"""Of the names of the layers put into a graph."""
_UNTRACEABLE = (fx.proxy.TraceError, RuntimeError, TypeError, AttributeError)


def inference_form(model: nn.Module) -> nn.Module:
    """The network that gives the same logits in evaluation mode, but faster, and that cannot be trained.

    Whole numbers stay exact; scales and shifts that were folded into one differ in their last bits.

    Args:
        model: in evaluation mode; it is not changed. Its binary weights, their scales and the BatchNorms behind them
            are taken as they are now, its other layers are shared.

    Returns:
        A module from (N, 3, H, W) to logits (N, classes). The network itself, where nothing in it is binary or where
        its graph cannot be read, which a warning then says.
    """
    if not any(isinstance(layer, _BINARY) for layer in model.modules()):
        return model
    try:
        graph = _Tracer().trace(model)
    except _UNTRACEABLE as error:
        reason = " ".join(str(error).split())[:160]
        _log.warning("evaluating %s layer by layer, which is slower: %s", type(model).__name__, reason)
        return model
    form = fx.GraphModule(model, graph)
    layers = dict(form.named_modules())
    with torch.no_grad():
        for node in list(graph.nodes):
            if _calls(node, layers, _BINARY):
                _replace(form, node, layers)
    _add_in_place(graph)
    graph.lint()
    form.delete_all_unused_submodules()
    form.recompile()
    return form.eval()


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*_BINARY, HardTanh)) or super().is_leaf_module(m, module_qualified_name)


def _replace(form: fx.GraphModule, node: fx.Node, layers: Mapping[str, nn.Module]) -> None:
    """Put an `InferenceConv2d` in the place of a binary convolution and of what can be taken over from behind it."""
    layer = layers[node.target]
    binary_weight, scale = _binarised(layer)
    shift = torch.zeros_like(scale)
    replaced = [node]
    norm = _batch_norm_behind(node, layers)
    if norm is not None:
        norm_scale, shift = _scale_and_shift(layers[norm.target])
        scale = scale * norm_scale
        replaced.append(norm)
    hardtanh = _hardtanh_behind(replaced[-1], layers)
    if hardtanh is not None:
        replaced.append(hardtanh)
    last = replaced[-1]
    name = f"{_PREFIX}{node.name}"
    form.add_submodule(
        name,
        InferenceConv2d(
            binary_weight,
            scale,
            shift,
            stride=layer.stride,
            padding=layer.padding,
            clip=hardtanh is not None,
            # Every binary convolution becomes an InferenceConv2d, which takes the signs of what it is given.
            only_signs=all(_calls(user, layers, _BINARY) for user in last.users),
        ),
    )
    with form.graph.inserting_before(last):
        last.replace_all_uses_with(form.graph.call_module(name, node.args, node.kwargs))
    for old in reversed(replaced):
        form.graph.erase_node(old)


def _add_in_place(graph: fx.Graph) -> None:
    """Let a residual connection write into the result of a convolution that nothing else reads."""
    for node in graph.nodes:
        if node.op == "call_function" and node.target is operator.add and not node.kwargs:
            first, second = node.args
            if _is_fresh(second):
                first, second = second, first
            if _is_fresh(first) and isinstance(second, fx.Node) and first is not second:
                node.target, node.args = add_into, (first, second)


def add_into(result: Tensor, other: Tensor) -> Tensor:
    """result + other, in the memory of `result` where the sum has its shape and type."""
    fits = torch.broadcast_shapes(result.shape, other.shape) == result.shape
    return result.add_(other) if fits and other.dtype == result.dtype else result + other


def _is_fresh(value: object) -> bool:
    return (
        isinstance(value, fx.Node)
        and value.op == "call_module"
        and str(value.target).startswith(_PREFIX)
        and len(value.users) == 1
    )


def _batch_norm_behind(node: fx.Node, layers: Mapping[str, nn.Module]) -> fx.Node | None:
    user = _only_user(node)
    if user is None or not _calls(user, layers, nn.BatchNorm2d):
        return None
    norm = layers[user.target]
    return user if norm.affine and norm.track_running_stats else None


def _hardtanh_behind(node: fx.Node, layers: Mapping[str, nn.Module]) -> fx.Node | None:
    user = _only_user(node)
    if user is None:
        return None
    if _calls(user, layers, HardTanh):
        return user
    if user.op != "call_function" or user.target is not F.hardtanh:
        return None
    bounds = user.kwargs.get("min_val", -1.0), user.kwargs.get("max_val", 1.0)
    return user if len(user.args) == 1 and bounds == (-1.0, 1.0) else None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _calls(node: fx.Node, layers: Mapping[str, nn.Module], kinds: type | tuple[type, ...]) -> bool:
    return node.op == "call_module" and isinstance(layers.get(node.target), kinds)


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a BatchNorm multiplies by and adds in evaluation mode, both (C,), float64."""
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _binarised(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Binary weights (O, I, kH, kW) and their scale (O,), float64."""
    per_filter = (1, 2, 3)
    if isinstance(layer, BinaryConv2d):
        centred = layer.weight - layer.weight.mean(per_filter, keepdim=True)
        return torch.sign(centred), layer.alpha.flatten().double()
    return torch.sign(layer.weight), layer.weight.abs().mean(per_filter).double()
