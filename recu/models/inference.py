"""The form of a network for evaluation: binarised once, signs as bytes, every value as before to the last bit.

The network's graph is read by torch.fx, so that any network of binary convolutions has such a form, not only those
of this package. A BatchNorm is folded into the convolution before it where only the sign of its result is looked at:
there it comes down to comparing a whole number with a threshold, which is exact. Folded into a multiplication and
an addition it would round differently; signs near zero would flip, and a few predictions in ten thousand with them.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Mapping

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
    """The network that gives the same logits in evaluation mode, to the last bit but faster, and cannot be trained.

    Args:
        model: in evaluation mode; it is not changed. Its binary weights, their scales and the BatchNorms behind them
            are taken as they are now, its other layers are shared.

    Returns:
        A module from (N, 3, H, W) to logits (N, classes). The network itself, where nothing in it is binary or where
        its graph cannot be read, which a warning then says.

    Raises:
        ValueError: the network is in training mode, in which a BatchNorm means something else.
    """
    if model.training:
        raise ValueError("a network has an inference form in evaluation mode only: call eval() before")
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
    _add_in_place(graph, dict(form.named_modules()))
    graph.lint()
    form.delete_all_unused_submodules()
    form.recompile()
    return form.eval()


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*_BINARY, HardTanh)) or super().is_leaf_module(m, module_qualified_name)


def _replace(form: fx.GraphModule, node: fx.Node, layers: Mapping[str, nn.Module]) -> None:
    """Put an `InferenceConv2d` in the place of a binary convolution, and of what makes a sign of its result."""
    layer = layers[node.target]
    binary_weight, scale = _binarised(layer)
    replaced, threshold = [node], None
    tail = _up_to_sign(node, layers)
    if tail:
        norm = layers[tail[0].target]
        threshold = _sign_threshold(lambda whole: norm(whole * scale.view(-1, 1, 1)), layer)
    if threshold is not None:
        replaced += tail
        scale, sign_shift = threshold
    else:
        sign_shift = None
    name = f"{_PREFIX}{node.name}"
    form.add_submodule(
        name,
        InferenceConv2d(binary_weight, scale, sign_shift=sign_shift, stride=layer.stride, padding=layer.padding),
    )
    last = replaced[-1]
    with form.graph.inserting_before(last):
        last.replace_all_uses_with(form.graph.call_module(name, node.args, node.kwargs))
    for old in reversed(replaced):
        form.graph.erase_node(old)


def _up_to_sign(node: fx.Node, layers: Mapping[str, nn.Module]) -> list[fx.Node]:
    """The BatchNorm and the hardtanh behind a convolution, if all that follows are binary convolutions; else nothing.

    Each of those takes the sign of what it is given, which a hardtanh does not change.
    """
    norm = _only_user(node)
    if norm is None or not _calls(norm, layers, nn.BatchNorm2d) or not layers[norm.target].track_running_stats:
        return []
    tail, following = [norm], _only_user(norm)
    if following is not None and _is_hardtanh(following, layers):
        tail.append(following)
    users = tail[-1].users
    return tail if users and all(_calls(user, layers, _BINARY) for user in users) else []


def _sign_threshold(value_of: Callable[[Tensor], Tensor], layer: nn.Conv2d) -> tuple[Tensor, Tensor] | None:
    """A scale (1 or -1) and a shift that give whole number * scale + shift the sign of a monotone function of it.

    Args:
        value_of: from whole numbers (1, O, 1, 1), the convolution's result, to the values whose signs are wanted;
            monotone in each channel, since scaling, BatchNorm and rounding are.
        layer: the convolution.

    Returns:
        Both (O,), exact in floating point; None where the function is not finite, or zero at more than one number.
    """
    weight = layer.weight
    largest = weight[0].numel()
    ends = weight.new_tensor([-float(largest), float(largest)])
    low, high = (value_of(end.expand(1, layer.out_channels, 1, 1).contiguous()).flatten() for end in ends)
    if not (low.isfinite() & high.isfinite()).all():
        return None
    # Times its direction, a number falls where the function falls, and the function of the product rises.
    direction = torch.where(high >= low, 1.0, -1.0).to(weight.dtype)

    def smallest(reached: Callable[[Tensor], Tensor]) -> Tensor:
        """The least number that, times the direction, reaches it; one beyond the largest if none does."""
        below = torch.full_like(direction, -largest - 1.0)
        above = torch.full_like(direction, largest + 1.0)
        while (above - below > 1).any():
            middle = torch.floor((below + above) / 2)
            true = reached(value_of((middle * direction).view(1, -1, 1, 1)).flatten())
            above = torch.where(true, middle, above)
            below = torch.where(true, below, middle)
        return above

    not_negative, positive = smallest(lambda value: value >= 0), smallest(lambda value: value > 0)
    if (positive - not_negative > 1).any():
        return None
    # Between two numbers where none is zero, at the number itself where it is.
    threshold = torch.where(positive == not_negative, positive - 0.5, not_negative)
    return direction, -threshold


def _add_in_place(graph: fx.Graph, layers: Mapping[str, nn.Module]) -> None:
    """Let a residual connection write into the result of a layer that nothing else reads."""
    for node in graph.nodes:
        if node.op == "call_function" and node.target is operator.add and not node.kwargs:
            first, second = node.args
            if _is_fresh(second, layers):
                first, second = second, first
            if _is_fresh(first, layers) and isinstance(second, fx.Node) and first is not second:
                node.target, node.args = add_into, (first, second)


def add_into(result: Tensor, other: Tensor) -> Tensor:
    """result + other, in the memory of `result` where the sum has its shape and type."""
    fits = torch.broadcast_shapes(result.shape, other.shape) == result.shape
    return result.add_(other) if fits and other.dtype == result.dtype else result + other


def _is_fresh(value: object, layers: Mapping[str, nn.Module]) -> bool:
    """Whether nothing else reads a result that a layer made in memory of its own."""
    if not isinstance(value, fx.Node) or len(value.users) != 1:
        return False
    return _calls(value, layers, (nn.BatchNorm2d, InferenceConv2d))


def _is_hardtanh(node: fx.Node, layers: Mapping[str, nn.Module]) -> bool:
    if _calls(node, layers, HardTanh):
        return True
    if node.op != "call_function" or node.target is not F.hardtanh or len(node.args) != 1:
        return False
    # Its bounds do not matter for a sign, as long as zero lies between them.
    return node.kwargs.get("min_val", -1.0) < 0 < node.kwargs.get("max_val", 1.0)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _calls(node: fx.Node, layers: Mapping[str, nn.Module], kinds: type | tuple[type, ...]) -> bool:
    return node.op == "call_module" and isinstance(layers.get(node.target), kinds)


def _binarised(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Binary weights (O, I, kH, kW) and their scale (O,)."""
    per_filter = (1, 2, 3)
    if isinstance(layer, BinaryConv2d):
        centred = layer.weight - layer.weight.mean(per_filter, keepdim=True)
        return torch.sign(centred), layer.alpha.detach().flatten().clone()
    return torch.sign(layer.weight), layer.weight.abs().mean(per_filter)
