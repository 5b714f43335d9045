"""The part of a network in its form for evaluation that compiled loops take image by image (`sign_network`)."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner, Partition
from torch.fx.passes.operator_support import OperatorSupportBase

from recu.kernels.exact import is_altered, is_exactly
from recu.kernels.inference_norm import InferenceNorm2d
from recu.kernels.sign_network import Program, Shape
from recu.kernels.sign_program import write_program
from recu.kernels.tensors import as_images, as_rows, compiled_for
from recu.nn.inference_conv import InferenceConv2d
from recu.nn.layers import AveragePoolShortcut, HardTanh


def gather_bodies(form: fx.GraphModule) -> fx.GraphModule:
    """Put a `SignBody` in the place of each part of a graph that is made of layers it knows, of two or more."""
    # Of its own it counts functions only, not layers.
    partitioner = CapabilityBasedPartitioner(form, _Known(), allows_single_node_partition=True)
    # It takes slices for those of a tuple where nothing else reads a result, and then into the part.
    proposed = ([node for node in part.nodes if node.op == "call_module"] for part in partitioner.propose_partitions())
    found = (nodes for nodes in proposed if len(nodes) > 1 and _gives_values(nodes, form) and _may_wait(nodes, form))
    parts = [Partition(nodes=nodes) for nodes in found]
    prefix = "body_"
    while any(name.startswith(prefix) for name in dir(form)):  # a part would take the place of a layer of its name
        prefix += "_"
    gathered = partitioner.fuse_partitions(parts, prefix=prefix)
    for name, segment in list(gathered.named_children()):
        if name.startswith(prefix):
            setattr(gathered, name, SignBody(cast(fx.GraphModule, segment)))
    return gathered


class SignBody(nn.Module):
    """A part of a network, for evaluation: real values (N, C, H, W), one tensor or several, to real values.

    Args:
        segment: the same layer by layer, for what the loops do not take.
    """

    def __init__(self, segment: fx.GraphModule) -> None:
        super().__init__()
        self.segment = segment
        self._operations = _operations(segment)
        self._programs: dict[tuple[Any, ...], Program | None] = {}

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """As the segment, to the last bit."""
        alike = compiled_for(*inputs) and len({values.shape[:1] for values in inputs}) == 1
        program = self._program_for(inputs) if alike else None
        if program is None:
            return self.segment(*inputs)
        found = program.run([as_rows(values) for values in inputs], torch.get_num_threads())
        outputs = tuple(as_images(rows) for rows in found)
        return outputs[0] if len(outputs) == 1 else outputs

    def _program_for(self, inputs: Sequence[Tensor]) -> Program | None:
        """Of the inputs' shapes and type, of equally many images; None where a layer cannot take these."""
        key = tuple((values.shape[1:], values.dtype) for values in inputs)
        if key not in self._programs:
            sizes = [tuple(values.shape) for values in inputs if values.dim() == 4]
            shapes = [Shape(height, width, channels) for _, channels, height, width in sizes]
            fits = len(shapes) == len(inputs) and len(inputs[0]) > 0
            dtype = np.dtype(str(inputs[0].dtype).removeprefix("torch."))
            if fits and self._operations is not None:
                operations, results = self._operations
                self._programs[key] = write_program(operations, shapes, dtype, results)
            else:
                self._programs[key] = None
        return self._programs[key]


class _Known(OperatorSupportBase):
    """Layers that a program has a step for."""

    def is_node_supported(self, submodules: Mapping[str, nn.Module], node: fx.Node) -> bool:
        if node.op != "call_module" or node.kwargs:
            return False
        layer = submodules[str(node.target)]
        if is_exactly(layer, InferenceConv2d):
            return layer.filters is not None
        if is_exactly(layer, nn.MaxPool2d):
            whole = all(isinstance(value, int) for value in _square(layer))
            return whole and layer.dilation == 1 and not layer.ceil_mode and not layer.return_indices
        return is_exactly(layer, InferenceNorm2d, AveragePoolShortcut)


def _square(pool: nn.MaxPool2d) -> tuple[int, int, int]:
    """Window, stride and padding of a pooling that is the same in both directions."""
    return cast("tuple[int, int, int]", (pool.kernel_size, pool.stride, pool.padding))


def _gives_values(nodes: Sequence[fx.Node], form: fx.GraphModule) -> bool:
    """Whether others read of a part something, all of it real values, and none of its inputs are signs."""
    inside = set(nodes)
    read = [node for node in nodes if any(user not in inside for user in node.users)]
    given = [node for part in nodes for node in part.all_input_nodes if node not in inside]
    return bool(read) and not any(_gives_signs(node, dict(form.named_modules())) for node in (*read, *given))


def _may_wait(nodes: Container[fx.Node], form: fx.GraphModule) -> bool:
    """Whether a part gives the same where it stands at its last node: nothing before that writes over what it reads."""
    layers, order = dict(form.named_modules()), list(form.graph.nodes)
    inside = [place for place, node in enumerate(order) if node in nodes]
    return not any(_may_write(node, layers) for node in order[inside[0] : inside[-1]] if node not in nodes)


def _may_write(node: fx.Node, layers: Mapping[str, nn.Module]) -> bool:
    """Whether a node may write into what it is given: PyTorch's names say so, of others' layers nobody knows."""
    if node.op == "call_module":
        layer = layers[str(node.target)]
        known = type(layer).__module__.startswith(("torch.nn.", "recu.nn.", "recu.kernels.")) and not is_altered(layer)
        return not known or bool(getattr(layer, "inplace", type(layer) is HardTanh))
    if node.op not in ("call_function", "call_method"):
        return False
    name = str(getattr(node.target, "__name__", node.target))
    # True may be the value of `inplace`.
    given = (*node.args, *node.kwargs.values())
    return name.endswith("_") or "out" in node.kwargs or any(value is True for value in given)


def _gives_signs(node: fx.Node, layers: Mapping[str, nn.Module]) -> bool:
    layer = layers.get(str(node.target)) if node.op == "call_module" else None
    return isinstance(layer, InferenceConv2d) and layer.sign_threshold is not None


def _operations(segment: fx.GraphModule) -> tuple[list[dict[str, Any]], list[int]] | None:
    """What a segment computes, as `sign_program` takes it, and which values are its results.

    None where a layer's numbers are not for loops.
    """
    layers, found = dict(segment.named_modules()), list[dict[str, Any]]()
    # In the graph inputs may stand between operations; a program counts them first.
    inputs = segment.graph.find_nodes(op="placeholder")
    number_of = {node: number for number, node in enumerate(inputs)}
    for node in segment.graph.find_nodes(op="call_module"):
        taken = [number_of[cast(fx.Node, value)] for value in node.args]
        for operation in _operations_of(layers[str(node.target)]):
            if operation is None:
                return None
            found.append({"of": taken, **operation})
            taken = [len(inputs) + len(found) - 1]
        number_of[node] = taken[0]
    results = segment.graph.output_node().args[0]
    read = results if isinstance(results, tuple) else (results,)
    return found, [number_of[cast(fx.Node, each)] for each in read]


def _operations_of(layer: nn.Module) -> list[dict[str, Any] | None]:
    """One after the other what a layer computes; None for what loops cannot take."""
    if isinstance(layer, InferenceConv2d):
        return [layer.operation()]
    if isinstance(layer, InferenceNorm2d):
        return [layer.operation()]
    if isinstance(layer, AveragePoolShortcut):
        sides = (layer.stride, layer.stride)
        before, after = layer.padding[4:]
        averages = {"op": "average_pool", "window": sides, "stride": sides}
        return [averages, {"op": "pad_channels", "before": before, "after": after}]
    pool = cast(nn.MaxPool2d, layer)
    window, stride, padding = ((side, side) for side in _square(pool))
    return [{"op": "max_pool", "window": window, "stride": stride, "padding": padding}]
