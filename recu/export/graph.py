"""A network in evaluation as a list of the operations that a packed file knows, with its binary weights as signs.

The network's graph is read by torch.fx, under the condition that `recu.nn.inference` has too: of classes that say
`fixed_graph = True`; torchvision's residual networks are known here besides. Every layer is known by its very class, or
says itself what it is: a binary convolution has a cost that is binary (`layer_cost()`) and says what its weights are
the signs of and what scales them (`latent_weights()`), which is held to its forward.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from recu.base.errors import ConfigError
from recu.binarisers.biper import PeriodicWeightConv2d
from recu.binarisers.protocol import has_plain_geometry, stated_cost, stated_latent_weights
from recu.binarisers.real import RealConv2d, RescaledSignActivationConv2d, SignActivationConv2d
from recu.export.fusing import Node, fused, numbered
from recu.kernels.exact import is_altered
from recu.kernels.inference_norm import FixedNorm2d
from recu.nn.inference import has_fixed_graph, remove_identities
from recu.nn.layers import AveragePoolShortcut, HardTanh, LearnableShift, SubsampleShortcut

_TRACED_MODULES = ("torchvision.models.resnet",)
_PROBE_SIDE, _PROBES = 7, 2
_PIXELS = ({2, 3}, {-2, -1})
"""The dimensions of rows and columns, as a call may name them."""
_FLATTENING = (torch.flatten, "flatten")
_ADVICE = "--to safetensors takes every network"

Taken = list[Node]
"""The values that a layer or function is given."""


def operations_of(model: nn.Module) -> list[dict[str, Any]]:
    """What a network computes in evaluation, as `recu.runtime.reader.Packed.operations`.

    Args:
        model: in evaluation mode, on the CPU, float32; it is not changed.

    Raises:
        ConfigError: its graph cannot be read, or a layer of it has no operation here.
    """
    if any(layer.training for layer in model.modules()):
        raise ValueError("a network is exported in evaluation mode only: call eval() before")
    reading = _Reading(model)
    with torch.no_grad():
        return numbered(fused(reading.nodes()))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return not _is_read(m)


def _is_read(layer: nn.Module) -> bool:
    return has_fixed_graph(layer) or (type(layer).__module__ in _TRACED_MODULES and not is_altered(layer))


class _Reading:
    """One pass over a network's graph."""

    def __init__(self, model: nn.Module) -> None:
        name = type(model).__name__
        if not _is_read(model):
            raise ConfigError(
                f"the graph of {name} cannot be exported: its class does not say that it is fixed"
                f" (docs/extending.md), or something was put on it; {_ADVICE}"
            )
        try:
            self._graph = _Tracer().trace(model)
        except Exception as error:  # of the network's own code, whatever that does with what stands for a tensor
            reason = " ".join(str(error).split())[:160]
            raise ConfigError(f"the graph of {name} cannot be exported ({reason}); {_ADVICE}") from error
        self._layers = dict(model.named_modules())
        remove_identities(self._graph, self._layers)
        self._values: dict[fx.Node, Node] = {}

    def nodes(self) -> list[Node]:
        """In their order; the first is the image, the last the logits."""
        made: list[Node] = []
        for node in self._graph.nodes:
            if node.op == "placeholder":
                new = [Node("image", [])]
            elif node.op == "output":
                (result,) = node.args
                if self._values[result] is not made[-1]:
                    raise ConfigError(f"the network ends in another value than its last layer's: {_ADVICE}")
                break
            elif _is_shape(node):
                continue
            else:
                new = self._made(node)
            self._values[node] = new[-1]
            made += new
        return made

    def _made(self, node: fx.Node) -> list[Node]:
        taken = [self._values[each] for each in node.args if isinstance(each, fx.Node) and not _is_shape(each)]
        if node.op == "call_module":
            layer = self._layers[str(node.target)]
            if is_altered(layer):
                raise ConfigError(f"layer {node.target!r} cannot be exported: a hook was put on it, or kernels are off")
            if getattr(layer, "inplace", type(layer) is HardTanh):
                self._check_own(node)
            new = _of_layer(layer, taken)
            what = f"layer {node.target!r} ({type(layer).__name__})"
        else:
            if node.target is operator.iadd or node.kwargs.get("inplace"):
                self._check_own(node)
            new = _of_function(node, taken)
            what = str(getattr(node.target, "__name__", node.target))
        many = 2 if new and new[0].op == "add" else 1
        if new is None or len(taken) != many or (node.op == "call_module" and (len(node.args) != 1 or node.kwargs)):
            raise ConfigError(f"{what} has no packed form in this use: {_ADVICE}")
        return new

    def _check_own(self, node: fx.Node) -> None:
        """Raise ConfigError where a layer writes into a value that another one reads too."""
        value = node.args[0]
        while isinstance(value, fx.Node) and len(value.users) == 1 and self._is_view(value):
            value = value.args[0]
        if isinstance(value, fx.Node) and len(value.users) > 1:
            raise ConfigError(f"{node.target} overwrites a value that is read elsewhere too: {_ADVICE}")

    def _is_view(self, node: fx.Node) -> bool:
        """Whether a node's result lies in the memory of what it is given."""
        layer = self._layers.get(str(node.target)) if node.op == "call_module" else None
        return isinstance(layer, nn.Flatten) or node.target in _FLATTENING


def _is_shape(node: fx.Node) -> bool:
    """Whether a node is about a shape, which the functions that take it look at themselves."""
    if node.op == "call_function" and node.target is getattr:
        return bool(node.args[1] == "shape")
    first = node.args[0] if node.args else None
    return node.target is operator.getitem and isinstance(first, fx.Node) and _is_shape(first)


def _of_layer(layer: nn.Module, taken: Taken) -> list[Node] | None:
    """The nodes of a layer; None of one that is not known."""
    if isinstance(layer, nn.Conv2d) and _states_binary(layer):
        return [_binary(layer, taken)]
    make = _LAYERS.get(type(layer))
    return None if make is None else make(layer, taken)


def _states_binary(layer: nn.Module) -> bool:
    cost = stated_cost(layer)
    return cost is not None and cost.binary is True


def _binary(layer: nn.Conv2d, taken: Taken) -> Node:
    """A binary convolution, whatever makes its weights binary.

    Raises:
        ConfigError: it computes something else than its latent weights say.
    """
    name, latent = type(layer).__name__, stated_latent_weights(layer)
    if latent is None:
        raise ConfigError(
            f"{name} does not say what its binary weights are made of: add latent_weights() to it (docs/extending.md,"
            f" A binariser); {_ADVICE}"
        )
    if not has_plain_geometry(layer):
        raise ConfigError(f"{name} has dilation, groups, a bias or padding that is not zero: {_ADVICE}")
    signs = torch.sign(latent.before)
    scale = signs.new_ones(len(signs)) if latent.scale is None else latent.scale
    if signs.shape != layer.weight.shape or scale.shape != signs.shape[:1]:
        raise ConfigError(
            f"{name}.latent_weights() says weights {tuple(signs.shape)} and a scale {tuple(scale.shape)}, expected"
            f" {tuple(layer.weight.shape)} and {tuple(layer.weight.shape[:1])}: {_ADVICE}"
        )
    _check_forward(layer, signs, scale)
    values = _array(scale)
    return Node(
        "binary",
        taken,
        {
            "weight": _filters(signs).astype(np.int8),
            "scale": values[:1] if (values == values[0]).all() else values,
            **_geometry(layer),
        },
    )


def _check_forward(layer: nn.Conv2d, signs: Tensor, scale: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    side = _PROBE_SIDE + max(layer.kernel_size)
    probe = torch.randint(-1, 2, (_PROBES, layer.in_channels, side, side), generator=generator)
    drawn = probe * torch.rand(probe.shape, generator=generator)
    whole = F.conv2d(torch.sign(drawn), signs, None, layer.stride, layer.padding)
    if not torch.equal(layer(drawn), whole * scale.view(-1, 1, 1)):
        raise ConfigError(
            f"{type(layer).__name__} computes something else than the signs of its latent_weights().before times their"
            f" scale, convolved with the signs of its input: {_ADVICE}"
        )


def _real(layer: nn.Conv2d, taken: Taken) -> list[Node] | None:
    bias = {} if layer.bias is None else {"bias": _array(layer.bias)}
    if layer.dilation != (1, 1) or layer.groups != 1 or layer.padding_mode != "zeros":
        return None
    return [Node("convolution", taken, {"weight": _filters(layer.weight), **bias, **_geometry(layer)})]


def _real_of_signs(layer: nn.Conv2d, taken: Taken) -> list[Node] | None:
    signs = Node("sign", taken)
    convolved = _real(layer, [signs])
    return None if convolved is None else [signs, *convolved]


def _periodic(layer: PeriodicWeightConv2d, taken: Taken) -> list[Node]:
    signs = Node("sign", taken)
    convolved = Node("convolution", [signs], {"weight": _filters(layer.used_weight()), **_geometry(layer)})
    return [signs, convolved, Node("scale", [convolved], {"factor": _array(layer.alpha.flatten())})]


def _norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, taken: Taken) -> list[Node] | None:
    if not layer.track_running_stats or layer.running_mean is None:
        return None
    factor, shift = FixedNorm2d(layer).cpu().float().factor_and_shift()
    return [Node("norm", taken, {"factor": _array(factor), "shift": _array(shift)})]


def _average_pool(layer: nn.AvgPool2d, taken: Taken) -> list[Node] | None:
    window, stride, padding = (_pair(each) for each in (layer.kernel_size, layer.stride, layer.padding))
    if padding != [0, 0] or not layer.ceil_mode or layer.divisor_override is not None:
        return None
    return [Node("average_pool", taken, {"window": window, "stride": stride})]


def _max_pool(layer: nn.MaxPool2d, taken: Taken) -> list[Node] | None:
    window, stride, padding = (_pair(each) for each in (layer.kernel_size, layer.stride, layer.padding))
    if layer.ceil_mode or _pair(layer.dilation) != [1, 1] or layer.return_indices:
        return None
    return [Node("max_pool", taken, {"window": window, "stride": stride, "padding": padding})]


def _linear(layer: nn.Linear, taken: Taken) -> list[Node]:
    bias = {} if layer.bias is None else {"bias": _array(layer.bias)}
    return [Node("linear", taken, {"weight": _array(layer.weight), **bias})]


def _shortcut(layer: AveragePoolShortcut | SubsampleShortcut, taken: Taken) -> list[Node] | None:
    before, after = layer.padding[-2:]
    if min(before, after) < 0:  # to fewer channels
        return None
    if isinstance(layer, SubsampleShortcut):
        fewer = Node("subsample", taken, {"step": layer.stride})
    else:
        fewer = Node("average_pool", taken, {"window": _pair(layer.stride), "stride": _pair(layer.stride)})
    return [fewer, Node("pad_channels", [fewer], {"before": before, "after": after})]


def _mean(layer: nn.AdaptiveAvgPool2d, taken: Taken) -> list[Node] | None:
    return [Node("mean", taken)] if _pair(layer.output_size) == [1, 1] else None


_LAYERS: Mapping[type[nn.Module], Callable[[Any, Taken], list[Node] | None]] = {
    nn.Conv2d: _real,
    RealConv2d: _real,
    SignActivationConv2d: _real_of_signs,
    RescaledSignActivationConv2d: _real_of_signs,
    PeriodicWeightConv2d: _periodic,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.AvgPool2d: _average_pool,
    nn.MaxPool2d: _max_pool,
    nn.AdaptiveAvgPool2d: _mean,
    nn.Linear: _linear,
    AveragePoolShortcut: _shortcut,
    SubsampleShortcut: _shortcut,
    LearnableShift: lambda layer, taken: [Node("bias", taken, {"shift": _array(layer.bias.flatten())})],
    nn.PReLU: lambda layer, taken: [Node("prelu", taken, {"slope": _array(layer.weight)})],
    HardTanh: lambda _, taken: [_clip(taken)],
    nn.ReLU: lambda _, taken: [Node("relu", taken)],
    nn.Flatten: lambda layer, taken: [Node("flatten", taken)] if (layer.start_dim, layer.end_dim) == (1, -1) else None,
}
"""By their very class."""


def _of_function(node: fx.Node, taken: Taken) -> list[Node] | None:
    """The same of a function or method that a network's forward calls."""
    plain: list[Any] = [each for each in node.args if not isinstance(each, fx.Node)]
    named: dict[str, Any] = dict(node.kwargs)
    if node.target in (operator.add, operator.iadd) and not plain and not named:
        return [Node("add", taken)]
    if node.target is F.hardtanh:
        given = dict(zip(("min_val", "max_val"), plain, strict=False)) | named
        return [_clip(taken, given.get("min_val", -1.0), given.get("max_val", 1.0))]
    if node.target is F.adaptive_avg_pool2d and plain and _pair(plain[0]) == [1, 1]:
        return [Node("mean", taken)]
    if node.target is F.avg_pool2d and len(node.args) == 2 and not named and _is_all_of(node.args[1], node):
        return [Node("average_pool", taken, {"window": None})]
    if node.target in _FLATTENING and plain == [1] and not named:
        return [Node("flatten", taken)]
    if node.target in (torch.mean, "mean"):
        given = dict(zip(("dim", "keepdim"), plain, strict=False)) | named
        if (
            given.keys() <= {"dim", "keepdim"}
            and isinstance(given.get("dim"), (tuple, list))
            and set(given["dim"]) in _PIXELS
        ):
            mean = Node("mean", taken)
            return [mean] if given.get("keepdim") else [mean, Node("flatten", [mean])]
    return None


def _is_all_of(window: Any, node: fx.Node) -> bool:
    """Whether a window is x.shape[-2:] of the very x that a node takes."""
    if not isinstance(window, fx.Node) or window.target is not operator.getitem:
        return False
    shape, part = window.args
    return isinstance(shape, fx.Node) and shape.args[0] is node.args[0] and part == slice(-2, None, None)


def _clip(taken: Taken, low: float = -1.0, high: float = 1.0) -> Node:
    return Node("hardtanh", taken, {"low": float(low), "high": float(high)})


def _geometry(layer: nn.Conv2d) -> dict[str, list[int]]:
    return {"stride": _pair(layer.stride), "padding": _pair(layer.padding)}


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _filters(weight: Tensor) -> np.ndarray:
    """(O, I, kH, kW) as (O, kH, kW, I)."""
    return _array(weight.permute(0, 2, 3, 1))


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().numpy().astype(np.float32, copy=False))
