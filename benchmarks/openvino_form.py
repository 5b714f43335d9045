"""A packed network in OpenVINO, whose binary convolutions are the fastest that others keep; needs no PyTorch.

OpenVINO cannot say that the sign of 0 is 0. An activation of exactly 0 is -1 there; a convolution with a weight of
sign 0 becomes one of float numbers, and such a network is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recu.base.errors import ConfigError

if TYPE_CHECKING:
    import openvino


_NEAR, _BEYOND = np.float32(2.0**-20), 1 << 20
"""Bounds around 0 of a sign; beyond all sums of a convolution."""


def openvino_model(operations: Sequence[Mapping[str, Any]], size: int, batch: int) -> openvino.Model:
    """From normalised images (batch, 3, size, size) to logits.

    Args:
        operations: as `recu.runtime.reader.Packed` has them.
        size: of the images.
        batch: how many there are at once.

    Raises:
        ImportError: OpenVINO is not installed.
        ConfigError: an operation has no form here.
    """
    import openvino

    return openvino.Model(*_graph(operations, size, batch), "network")


def openvino_runner(
    model: openvino.Model, binary: int, threads: int
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What computes it on the CPU.

    Args:
        model: of `openvino_model`.
        binary: binary convolutions that the network has.
        threads: of the processor.

    Raises:
        ConfigError: a binary convolution did not become one of OpenVINO's.
    """
    import openvino

    # Without a wish it computes in bfloat16 on processors that have it, and what is compared here is float32.
    wanted = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", wanted)
    found = sum(
        node.get_rt_info()["layerType"] == "BinaryConvolution" for node in compiled.get_runtime_model().get_ops()
    )
    if found != binary:
        raise ConfigError(f"{found} of {binary} binary convolutions are OpenVINO's BinaryConvolution")
    request = compiled.create_infer_request()
    return lambda images: request.infer({0: images}, share_inputs=True)[0]


def _graph(operations: Sequence[Mapping[str, Any]], size: int, batch: int) -> tuple[list[Any], list[Any]]:
    from openvino import opset13 as ops

    images = ops.parameter([batch, 3, size, size], np.float32)
    values, signs = [images], {}
    for number, operation in enumerate(operations):
        taken = [values[value] for value in operation["of"]]
        if operation["op"] == "binary":
            source = signs.get(operation["of"][0]) or _sign(ops, taken[0], -_NEAR, _NEAR)
            out = ops.convolution(source, *_geometry(operation, operation["weight"]))
            if operation.get("threshold") is not None:
                # Sums are whole numbers, and none is as large as the bound.
                threshold = _channels(np.clip(operation["threshold"], -_BEYOND, _BEYOND))
                signs[number + 1] = out = _sign(ops, out, threshold, threshold + np.float32(1))
            else:
                out = _ended(ops, out, operation, taken[1:])
        elif operation["op"] in _OTHERS:
            out = _OTHERS[operation["op"]](ops, operation, *taken)
        else:
            raise ConfigError(f"the operation {operation['op']!r} has no form here")
        values.append(out)
    return [values[-1]], [images]


def _sign(ops: Any, value: Any, low: Any, high: Any) -> Any:
    """1 above the middle of two bounds, else -1; where they are equal, OpenVINO 2026.4 computes something else."""
    return ops.fake_quantize(value, low, high, np.float32(-1), np.float32(1), 2)


def _ended(ops: Any, out: Any, operation: Mapping[str, Any], residual: Sequence[Any]) -> Any:
    factor, shift = operation["scale"], None
    if operation.get("factor") is not None:
        factor, shift = factor * operation["factor"], operation["shift"]
    out = ops.multiply(out, _channels(np.broadcast_to(factor, len(operation["weight"]))))
    out = out if shift is None else ops.add(out, _channels(shift))
    out = ops.add(out, residual[0]) if residual else out
    return ops.clamp(out, -1.0, 1.0) if operation.get("hardtanh") else out


def _geometry(operation: Mapping[str, Any], weight: Any) -> tuple[Any, ...]:
    sides = [list(map(int, operation[name])) for name in ("stride", "padding")]
    return np.ascontiguousarray(weight.transpose(0, 3, 1, 2), np.float32), sides[0], sides[1], sides[1], [1, 1]


def _channels(values: Any) -> Any:
    return np.ascontiguousarray(values, np.float32).reshape(1, -1, 1, 1)


def _convolution(ops: Any, operation: Mapping[str, Any], x: Any) -> Any:
    out = ops.convolution(x, *_geometry(operation, operation["weight"]))
    bias = operation.get("bias")
    return out if bias is None else ops.add(out, _channels(bias))


def _norm(ops: Any, operation: Mapping[str, Any], x: Any) -> Any:
    # Of a node, or of the one of its outputs that is meant.
    shape = x.get_partial_shape() if hasattr(x, "get_partial_shape") else x.get_output_partial_shape(0)
    sides = (1, -1) if len(shape) == 2 else (1, -1, 1, 1)
    factor, shift = (operation[name].reshape(sides) for name in ("factor", "shift"))
    return ops.add(ops.multiply(x, factor), shift)


def _linear(ops: Any, operation: Mapping[str, Any], x: Any) -> Any:
    out = ops.matmul(x, operation["weight"], False, True)
    bias = operation.get("bias")
    return out if bias is None else ops.add(out, bias.reshape(1, -1))


def _average(ops: Any, operation: Mapping[str, Any], x: Any) -> Any:
    if operation["window"] is None:
        return ops.reduce_mean(x, np.array([2, 3]), True)
    window = list(map(int, operation["window"]))
    stride = list(map(int, operation["stride"]))
    return ops.avg_pool(x, stride, [0, 0], [0, 0], window, True, "ceil")


def _largest(ops: Any, operation: Mapping[str, Any], x: Any) -> Any:
    window, stride, padding = (list(map(int, operation[name])) for name in ("window", "stride", "padding"))
    return ops.max_pool(x, stride, [1, 1], padding, padding, window).output(0)


def _pad(ops: Any, operation: Mapping[str, Any], x: Any) -> Any:
    before, after = ([0, operation[side], 0, 0] for side in ("before", "after"))
    return ops.pad(x, before, after, "constant", np.float32(0))


_OTHERS: Mapping[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "norm": _norm,
    "linear": _linear,
    "average_pool": _average,
    "max_pool": _largest,
    "pad_channels": _pad,
    "hardtanh": lambda ops, operation, x: ops.clamp(x, operation["low"], operation["high"]),
    "mean": lambda ops, _operation, x: ops.reduce_mean(x, np.array([2, 3]), True),
    "flatten": lambda ops, _operation, x: ops.reshape(x, np.array([0, -1]), True),
}
