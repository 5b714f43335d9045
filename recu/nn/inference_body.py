"""The part of a network in its form for evaluation that compiled loops take image by image (`sign_network`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from recu.kernels.exact import is_exactly
from recu.kernels.inference_norm import InferenceNorm2d
from recu.kernels.sign_network import Program, Shape, Signs, Values
from recu.kernels.tensors import as_images, as_rows, compiled_for
from recu.nn.inference_conv import InferenceConv2d
from recu.nn.layers import AveragePoolShortcut


def gather_bodies(form: fx.GraphModule) -> fx.GraphModule:
    """Put a `SignBody` in the place of each part of a graph that is made of layers it knows, of two or more."""
    # Of its own it counts functions only, not layers.
    partitioner = CapabilityBasedPartitioner(form, _Known(), allows_single_node_partition=True)
    proposed = (part for part in partitioner.propose_partitions() if len(part.nodes) > 1)
    parts = [part for part in proposed if _gives_values(list(part.nodes), form)]
    gathered = partitioner.fuse_partitions(parts, prefix="body_")
    for name, segment in list(gathered.named_children()):
        if name.startswith("body_"):
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
        self._programs: dict[tuple[Any, ...], Program | None] = {}

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """As the segment, to the last bit."""
        program = self._program_for(inputs) if compiled_for(*inputs) else None
        if program is None:
            return self.segment(*inputs)
        found = program.run([as_rows(values) for values in inputs], torch.get_num_threads())
        outputs = tuple(as_images(rows) for rows in found)
        return outputs[0] if len(outputs) == 1 else outputs

    def _program_for(self, inputs: Sequence[Tensor]) -> Program | None:
        """Of the inputs' shapes and type; None where a layer cannot take these."""
        key = tuple((values.shape[1:], values.dtype) for values in inputs)
        if key not in self._programs:
            sizes = [tuple(values.shape) for values in inputs if values.dim() == 4]
            shapes = [Shape(height, width, channels) for _, channels, height, width in sizes]
            fits = len(shapes) == len(inputs) and all(len(values) == len(inputs[0]) > 0 for values in inputs)
            dtype = np.dtype(str(inputs[0].dtype).removeprefix("torch."))
            self._programs[key] = _Writer(self.segment, dtype, shapes).write() if fits else None
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
    """Whether all that others read of a part are real values, and none of its inputs are signs."""
    inside = set(nodes)
    read = [node for node in nodes if any(user not in inside for user in node.users)]
    given = [node for part in nodes for node in part.all_input_nodes if node not in inside]
    return not any(_gives_signs(node, dict(form.named_modules())) for node in (*read, *given))


def _gives_signs(node: fx.Node, layers: Mapping[str, nn.Module]) -> bool:
    layer = layers.get(str(node.target)) if node.op == "call_module" else None
    return isinstance(layer, InferenceConv2d) and layer.sign_threshold is not None


class _Writer:
    """Writes the program of a segment for inputs of certain shapes."""

    def __init__(self, segment: fx.GraphModule, dtype: np.dtype, shapes: Sequence[Shape]) -> None:
        self._graph, self._layers = segment.graph, dict(segment.named_modules())
        self._program = Program(dtype, shapes)
        self._values: dict[fx.Node, Values] = {}
        self._signs: dict[fx.Node, Signs] = {}
        last: dict[fx.Node, fx.Node] = {}
        for node in self._graph.nodes:
            last |= dict.fromkeys(node.all_input_nodes, node)
        self._last_read: dict[fx.Node, list[fx.Node]] = {}
        for node, reader in last.items():
            self._last_read.setdefault(reader, []).append(node)

    def write(self) -> Program | None:
        """The program, or None where a layer cannot take what it would be given."""
        given = iter(self._program.inputs)
        for node in self._graph.nodes:
            if node.op == "placeholder":
                self._values[node] = next(given)
            elif node.op == "output":
                results = node.args[0] if isinstance(node.args[0], tuple) else (node.args[0],)
                return self._program.finish([self._values[each] for each in results])
            elif not self._write(node, self._layers[str(node.target)]):
                return None
            self._release(node)
        raise ValueError("a graph without an output")

    def _write(self, node: fx.Node, layer: nn.Module) -> bool:
        source, *residual = node.all_input_nodes
        if isinstance(layer, InferenceConv2d):
            return self._write_convolution(node, layer, source, *residual)
        values = self._values[source]
        if isinstance(layer, InferenceNorm2d):
            if layer.factor_and_shift is None or len(layer.factor_and_shift[0]) != values.shape.channels:
                return False
            factor, shift = (each.numpy() for each in layer.factor_and_shift)
            padding = self._padding_of_reader(node)
            signs = self._program.normalise(values, factor, shift, hardtanh=layer.hardtanh, code_padding=padding)
            self._keep(node, values, signs)
            # Written over, so that the memory is this result's now.
            del self._values[source]
        elif isinstance(layer, nn.MaxPool2d):
            window, stride, zeros = _square(layer)
            if min(values.shape[:2]) + 2 * zeros < window:
                return False
            self._keep(node, self._program.largest(values, window, stride, zeros), None)
        elif isinstance(layer, AveragePoolShortcut):
            self._keep(node, self._program.average(values, layer.stride, *layer.padding[4:]), None)
        return True

    def _write_convolution(
        self, node: fx.Node, layer: InferenceConv2d, source: fx.Node, added: fx.Node | None = None
    ) -> bool:
        if len(node.args) == 2:
            added = cast(fx.Node, node.args[1])
        shape = (self._signs.get(source) or self._values[source]).shape
        if layer.filters is None or not layer.can_take((shape.channels, shape.height, shape.width)):
            return False
        if source not in self._signs:
            self._signs[source] = self._program.pack(self._values[source], layer.padding)
        signs = self._signs[source]
        if signs.padding != layer.padding:
            if source not in self._values:
                return False
            signs = self._program.pack(self._values[source], layer.padding)
        padding = self._padding_of_reader(node)
        if layer.sign_threshold is not None:
            direction, threshold = (each.numpy() for each in layer.sign_threshold)
            self._signs[node] = self._program.convolve_to_signs(
                signs, layer.filters, layer.stride, direction, threshold, padding or (0, 0)
            )
            return True
        residual = None if added is None else self._values[added]
        if residual is not None and residual.shape != self._program.result_shape(signs, layer.filters, layer.stride):
            return False
        values, written = self._program.convolve_to_values(
            signs,
            layer.filters,
            layer.stride,
            layer.affine(),
            residual=residual,
            hardtanh=layer.hardtanh,
            in_place=layer.in_place,
            code_padding=padding,
        )
        if added is not None and values is residual:
            del self._values[added]
        self._keep(node, values, written)
        return True

    def _padding_of_reader(self, node: fx.Node) -> tuple[int, int] | None:
        """Of the first convolution that takes the signs of a node's result."""
        for user in node.users:
            layer = self._layers.get(str(user.target)) if user.op == "call_module" else None
            if isinstance(layer, InferenceConv2d) and user.args[0] is node:
                return layer.padding
        return None

    def _keep(self, node: fx.Node, values: Values, signs: Signs | None) -> None:
        self._values[node] = values
        if signs is not None:
            self._signs[node] = signs

    def _release(self, node: fx.Node) -> None:
        for read in self._last_read.get(node, []):
            for written in (self._values.pop(read, None), self._signs.pop(read, None)):
                if written is not None:
                    self._program.release(written)
