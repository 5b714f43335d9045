"""The form of a network for evaluation: binarised once, signs as bits, every value as before to the last bit.

The network's graph is read by torch.fx, once and for all inputs. That says nothing of a forward which branches on
values, draws numbers, counts its calls or writes into what it is given, and most of it would go unnoticed. So only
those classes are read that say in their own body `fixed_graph = True`: their forward applies the same layers and
functions to every input. `nn.Sequential` is one. Every other class, and one with a hook or a method put on an instance,
is called as it is, and nothing inside of it is replaced.

Where only the sign of a BatchNorm's result is looked at, it comes down to comparing a whole number
with a threshold, which is exact. Elsewhere it is computed in the pass that ends the convolution, with the rounding
that PyTorch gives it: folded into the convolution's scale it would round differently; signs near zero would flip, and
a few predictions in ten thousand with them.
"""

from __future__ import annotations

import copy
import logging
import operator
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from recu.binarisers.biper import BiPerConv2d, FasterBiPerConv2d
from recu.binarisers.irnet import IRNetConv2d
from recu.binarisers.protocol import has_plain_geometry
from recu.binarisers.reste import ReSTEConv2d
from recu.binarisers.sign import SignConv2d
from recu.kernels.exact import is_altered, is_exactly
from recu.kernels.inference_norm import InferenceNorm2d
from recu.nn import BinaryConv2d, CompetitorBinaryConv2d
from recu.nn.inference_body import gather_bodies
from recu.nn.inference_conv import InferenceConv2d
from recu.nn.layers import HardTanh

_log = logging.getLogger(__name__)
_Layers = dict[Any, Any]
"""The layers of a graph, and the tensors that it reads, by what its nodes call them."""
_PREFIX = "inference_"
"""Of the names of the layers put into a graph."""
_WRITTEN = "written"
"""Of a node's notes: that an operator such as += writes over its result."""
_FRESH = (InferenceConv2d, InferenceNorm2d, nn.BatchNorm2d)
"""Layers whose result nothing else has a name for."""
_BINARY = (
    BinaryConv2d,
    CompetitorBinaryConv2d,
    IRNetConv2d,
    ReSTEConv2d,
    BiPerConv2d,
    FasterBiPerConv2d,
    SignConv2d,
)
"""Layers whose forward, in evaluation mode, convolves the signs of `latent_weights().before` and multiplies by its
scale."""
_GIVE_A_NEW_RESULT = (operator.add, operator.sub, operator.mul, operator.truediv)
_WITHOUT_SIDE_EFFECTS = (*_FRESH, *_BINARY, nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d)
"""Layers that leave what they are given as it is, and give a new result: one before them may be called after them."""


def inference_form(model: nn.Module) -> nn.Module:
    """The network that gives the same logits in evaluation mode, to the last bit but faster, and cannot be trained.

    Args:
        model: in evaluation mode; it is not changed, and what becomes of its weights later does not matter.

    Returns:
        A module from (N, 3, H, W) to logits (N, classes). The network itself, where nothing in it can be replaced or
        its graph cannot be read, which a warning then says.

    Raises:
        ValueError: the network is in training mode, in which a BatchNorm means something else.
    """
    if model.training:
        raise ValueError("a network has an inference form in evaluation mode only: call eval() before")
    if not any(_is_known_binary(layer) for layer in model.modules()):
        return model
    obstacle = _obstacle(model)
    if obstacle is not None:
        return _layer_by_layer(model, obstacle)
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # of the network's own code, whatever that does with what stands for a tensor
        return _layer_by_layer(model, error)
    written = next((node for node in graph.nodes if _WRITTEN in node.meta and _may_show(node, model)), None)
    if written is not None:
        return _layer_by_layer(model, f"the result {written} is written over (as by +=) and may be read elsewhere too")
    own = _named_in(graph, model)
    layers = dict(own)
    remove_identities(graph, layers)
    with torch.no_grad():
        for node in list(graph.nodes):
            if _calls_binary(node, layers):
                _replace(node, layers)
        for node in list(graph.nodes):
            if _calls(node, layers, nn.Conv2d, nn.MaxPool2d):
                _replace_norm(node, layers)
    _work_in_place(graph, layers)
    graph.lint()
    try:
        # Copies of what is left, which would else follow the network's weights; at once, so that what two of them
        # share stays shared.
        layers |= copy.deepcopy({name: own[name] for name in _names(graph) if name in own})
        form = fx.GraphModule(layers, graph)
    except Exception as error:  # of the network's own code too
        return _layer_by_layer(model, error)
    form.register_load_state_dict_pre_hook(_refuse_weights)
    return gather_bodies(form).eval()


def _may_show(node: fx.Node, model: nn.Module) -> bool:
    """Whether others may see that a result is written over: they read it, or it may be what it was made of."""
    if len(node.users) > 1:
        return True
    if node.op == "call_module":
        return not is_exactly(model.get_submodule(str(node.target)), *_WITHOUT_SIDE_EFFECTS)
    return node.target not in _GIVE_A_NEW_RESULT


def _layer_by_layer(model: nn.Module, reason: object) -> nn.Module:
    reason = " ".join(str(reason).split())[:160]
    _log.warning("evaluating %s layer by layer, which is slower: %s", type(model).__name__, reason)
    return model


def _names(graph: fx.Graph) -> list[str]:
    """Of the layers that a graph calls, and of the tensors that it reads."""
    return [str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")]


def _named_in(graph: fx.Graph, model: nn.Module) -> _Layers:
    """A network's own layers and tensors that a graph names."""
    return {name: operator.attrgetter(name)(model) for name in _names(graph)}


def _refuse_weights(*_: object) -> None:
    raise ValueError(
        "an inference form has the weights it was made of: load these into the network, then make its form"
    )


def _noting(operation: Callable[[Any, Any], Any]) -> Callable[[fx.Proxy, Any], Any]:
    def in_place(value: fx.Proxy, other: Any) -> Any:
        value.node.meta[_WRITTEN] = True
        return operation(value, other)

    return in_place


class _Proxy(fx.Proxy):
    """Takes x += y for x = x + y as torch.fx does, and notes that x was written to, which others that have it see."""

    __iadd__, __isub__ = _noting(operator.add), _noting(operator.sub)
    __imul__, __itruediv__ = _noting(operator.mul), _noting(operator.truediv)


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return not has_fixed_graph(m)


def has_fixed_graph(layer: nn.Module) -> bool:
    """Whether a layer's class says that its forward applies the same layers and functions to every input."""
    says_so = type(layer) is nn.Sequential or vars(type(layer)).get("fixed_graph") is True
    return says_so and not is_altered(layer)


def _obstacle(model: nn.Module) -> str | None:
    """Why a network's graph is not read, if it is not."""
    name = type(model).__name__
    if any(layer.training for layer in model.modules()):
        return "some of its layers are in training mode"
    if is_altered(model):
        return "a hook or a method was put on it"
    if not has_fixed_graph(model):
        return f"class {name} does not say that its graph is fixed, see docs/extending.md"
    return None


def _is_known_binary(layer: nn.Module) -> bool:
    """Whether a layer is one of the known binary convolutions, and so can be replaced."""
    return is_exactly(layer, *_BINARY) and has_plain_geometry(layer) and _has_usual_alpha(layer)


def _has_usual_alpha(layer: nn.Conv2d) -> bool:
    """Also where there is none."""
    alpha = getattr(layer, "alpha", None)
    return alpha is None or (alpha.shape == (len(layer.weight), 1, 1) and alpha.dtype == layer.weight.dtype)


def remove_identities(graph: fx.Graph, layers: _Layers) -> None:
    """Let what reads the result of an identity read its input, so that one result has one name."""
    for node in list(graph.nodes):
        if _calls(node, layers, nn.Identity):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _work_in_place(graph: fx.Graph, layers: _Layers) -> None:
    """Let convolutions write where their residual was, if a layer made that itself and nothing reads it later.

    Others that read it must be convolutions too: their results are never views of what they read.
    """
    order = {node: number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if _calls(node, layers, InferenceConv2d) and len(node.args) == 2:
            residual = node.args[1]
            layers[node.target].in_place = _calls(residual, layers, *_FRESH) and all(
                _calls(user, layers, InferenceConv2d) and order[user] <= order[node] for user in residual.users
            )


def _replace(node: fx.Node, layers: _Layers) -> None:
    """Put an `InferenceConv2d` in the place of a binary convolution, and of what follows it and can be part of it."""
    layer = layers[node.target]
    binary_weight, scale = _binarised(layer)
    tail = _up_to_sign(node, layers)
    threshold = _sign_threshold(layers[tail[0].target], scale, layer) if tail else None
    norm, residual, hardtanh = None, None, False
    if threshold is None:
        tail, norm, residual, hardtanh = _up_to_hardtanh(node, layers)
    name = _add_layer(
        node,
        InferenceConv2d(
            binary_weight,
            scale,
            stride=layer.stride,
            padding=layer.padding,
            norm=norm,
            hardtanh=hardtanh,
            sign_threshold=threshold,
        ),
        layers,
    )
    replaced = [node, *tail]
    graph = node.graph
    with graph.inserting_before(replaced[-1]):
        inputs = node.args if residual is None else (*node.args, residual)
        replaced[-1].replace_all_uses_with(graph.call_module(name, inputs, node.kwargs))
    for old in reversed(replaced):
        graph.erase_node(old)


def _add_layer(node: fx.Node, layer: nn.Module, layers: _Layers) -> str:
    """Add a layer to those of a graph, under a name that no other has nor begins with, and return that."""
    name = f"{_PREFIX}{node.name}"
    while any(f"{other}.".startswith(f"{name}.") for other in layers):
        name += "_"
    layers[name] = layer
    return name


def _replace_norm(before: fx.Node, layers: _Layers) -> None:
    """Put an `InferenceNorm2d` in the place of a BatchNorm, and its hardtanh, that alone follow a new result."""
    norm = _only_user(before)
    if norm is None or not _is_folding_norm(norm, layers[before.target], layers):
        return
    tail, following = [norm], _only_user(norm)
    if following is not None and _clips_to_one(following, layers):
        tail.append(following)
    name = _add_layer(norm, InferenceNorm2d(layers[norm.target], hardtanh=len(tail) == 2), layers)
    with norm.graph.inserting_before(tail[-1]):
        tail[-1].replace_all_uses_with(norm.graph.call_module(name, (before,)))
    for old in reversed(tail):
        norm.graph.erase_node(old)


def _up_to_hardtanh(
    node: fx.Node, layers: _Layers
) -> tuple[list[fx.Node], nn.BatchNorm2d | None, fx.Node | None, bool]:
    """What follows a convolution alone: BatchNorm, sum with a residual, hardtanh; as far as it goes.

    Returns:
        The nodes in their order, the BatchNorm, the residual and whether there is a hardtanh.
    """
    tail, norm, residual, hardtanh = [node], None, None, False
    following = _next(node, layers)
    if following is not None and _is_folding_norm(following, layers[node.target], layers):
        norm = layers[following.target]
        tail.append(following)
        following = _next(following, layers)
    if following is not None and _is_sum(following):
        first, second = following.args
        residual = cast(fx.Node, second if first is tail[-1] else first)
        tail.append(following)
        following = _next(following, layers)
    if following is not None and _clips_to_one(following, layers):
        hardtanh = True
        tail.append(following)
    return tail[1:], norm, residual, hardtanh


def _up_to_sign(node: fx.Node, layers: _Layers) -> list[fx.Node]:
    """The BatchNorm and the hardtanh behind a convolution, if all that follow are binary convolutions; else nothing.

    Each of those takes the sign of what it is given, which a hardtanh does not change.
    """
    layer, norm = layers[node.target], _next(node, layers)
    if norm is None or not _is_folding_norm(norm, layer, layers):
        return []
    tail, following = [norm], _next(norm, layers)
    # Its bounds do not matter for a sign, as long as zero lies between them.
    if following is not None and _is_hardtanh(following, layers) and _bounds(following)[0] < 0 < _bounds(following)[1]:
        tail.append(following)
    users = tail[-1].users
    takes_bits = all(
        _calls_binary(user, layers) and layers[user.target].weight.shape[1] == len(layer.weight) for user in users
    )
    return tail if users and takes_bits else []


def _sign_threshold(norm: nn.BatchNorm2d, scale: Tensor, layer: nn.Conv2d) -> tuple[Tensor, Tensor] | None:
    """Which whole numbers, results of a convolution, a BatchNorm turns into positive ones.

    Args:
        norm: monotone in each channel, since scaling, normalising and rounding are.
        scale: (O,), of the convolution.
        layer: the convolution.

    Returns:
        Direction (1 or -1) and threshold, int32 (O,): those numbers whose product with the direction is above the
        threshold. None where the BatchNorm is not finite, or makes zero of a number, which is neither.
    """
    largest = layer.weight[0].numel()

    def value_of(whole: Tensor) -> Tensor:
        values = whole.to(scale.dtype).view(1, -1, 1, 1).contiguous(memory_format=torch.channels_last)
        return norm(values * scale.view(-1, 1, 1)).flatten()

    most = torch.full((layer.out_channels,), largest, device=scale.device)
    low, high = value_of(-most), value_of(most)
    if not (low.isfinite() & high.isfinite()).all():
        return None
    # Times its direction, a number falls where the function falls, and the function of the product rises.
    direction = torch.where(high >= low, 1, -1)

    def smallest(reached: Callable[[Tensor], Tensor]) -> Tensor:
        """The least number that, times the direction, reaches it; one beyond the largest if none does."""
        below, above = -most - 1, most + 1
        while (above - below > 1).any():
            middle = (below + above) // 2
            true = reached(value_of(middle * direction))
            above = torch.where(true, middle, above)
            below = torch.where(true, below, middle)
        return above

    not_negative, positive = smallest(lambda value: value >= 0), smallest(lambda value: value > 0)
    if (positive != not_negative).any():
        return None
    return direction.int(), (positive - 1).int()


def _is_sum(node: fx.Node) -> bool:
    """Whether a node adds two different results, and nothing but that."""
    if node.op != "call_function" or node.target is not operator.add or node.kwargs:
        return False
    first, second = node.args
    return isinstance(first, fx.Node) and isinstance(second, fx.Node) and first is not second


def _is_folding_norm(node: fx.Node, before: nn.Module, layers: _Layers) -> bool:
    """Whether a node is a BatchNorm that depends on nothing but the value it is given, the result of `before`."""
    if not _calls(node, layers, nn.BatchNorm2d):
        return False
    norm = layers[node.target]
    tensors = [values for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var) if values is not None]
    return (
        norm.track_running_stats
        and norm.running_mean is not None
        and norm.running_var is not None
        and (norm.num_features, norm.running_mean.dtype) == _result_of(before, norm)
        and all(
            values.shape == norm.running_mean.shape and values.dtype == norm.running_mean.dtype for values in tensors
        )
    )


def _result_of(layer: nn.Module, norm: nn.BatchNorm2d) -> tuple[int, torch.dtype]:
    """Channels and type of a convolution's result; of a pooling's nothing is known, so that they are the norm's."""
    if isinstance(layer, nn.Conv2d):
        return len(layer.weight), layer.weight.dtype
    return norm.num_features, cast(Tensor, norm.running_mean).dtype


def _is_hardtanh(node: fx.Node, layers: _Layers) -> bool:
    return _calls(node, layers, HardTanh) or (node.op == "call_function" and node.target is F.hardtanh)


def _clips_to_one(node: fx.Node, layers: _Layers) -> bool:
    return _is_hardtanh(node, layers) and _bounds(node) == (-1.0, 1.0)


def _bounds(hardtanh: fx.Node) -> tuple[float, float]:
    given: dict[str, Any] = dict(zip(("min_val", "max_val"), hardtanh.args[1:], strict=False)) | dict(hardtanh.kwargs)
    return given.get("min_val", -1.0), given.get("max_val", 1.0)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _next(node: fx.Node, layers: _Layers) -> fx.Node | None:
    """The only user of a node, if what is called between the two cannot tell which of them was called first."""
    user = _only_user(node)
    between = node.next
    while user is not None and between is not user:
        if between.op != "get_attr" and not _calls(between, layers, *_WITHOUT_SIDE_EFFECTS):
            return None
        between = between.next
    return user


def _calls(node: fx.Node, layers: _Layers, *kinds: type[nn.Module]) -> bool:
    """Whether a node calls a layer of one of these very classes on one value, or on two."""
    return node.op == "call_module" and not node.kwargs and is_exactly(layers[node.target], *kinds)


def _calls_binary(node: fx.Node, layers: _Layers) -> bool:
    return node.op == "call_module" and not node.kwargs and _is_known_binary(layers[node.target])


def _binarised(layer: Any) -> tuple[Tensor, Tensor]:
    """Binary weights (O, I, kH, kW) and their scale (O,)."""
    latent = layer.latent_weights()
    return torch.sign(latent.before), latent.scale.detach().clone()
