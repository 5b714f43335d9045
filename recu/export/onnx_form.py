"""A network's operations as an ONNX model: with plain operators, or with QONNX's for its signs.

Binary weights are exactly -1 and +1 (0 where a sign is 0). ONNX's Sign gives 0 of 0 as the network does; QONNX's
BipolarQuant gives +1, so that a network whose activations are exactly 0 somewhere may give other numbers there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from recu.base.errors import ConfigError
from recu.base.needed import require
from recu.runtime.checking import count_logits

if TYPE_CHECKING:
    import onnx

Signs = Literal["onnx", "qonnx"]
OPSET = 17
IR_VERSION = 10
INPUT, OUTPUT = "image", "logits"
_QONNX_DOMAIN = "qonnx.custom_op.general"


def onnx_model(
    operations: Sequence[Mapping[str, Any]],
    *,
    size: int,
    signs: Signs = "onnx",
    batch: int | None = None,
    said: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The model, checked by onnx's own checker.

    Args:
        operations: as `recu.runtime.reader.Packed` has them.
        size: side of the images, in pixels.
        signs: "onnx" for plain operators, "qonnx" for BipolarQuant.
        batch: images at once; None for any number.
        said: kept in the model's metadata.

    Returns:
        From `image`, float32 (N, 3, size, size), normalised, to `logits` (N, classes).

    Raises:
        ConfigError: onnx is not installed, or the network cannot be said in this form.
    """
    require("export", "onnx")
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph(signs)
    names, rank = [INPUT], [4]
    for number, operation in enumerate(operations, 1):
        attributes = {key: value for key, value in operation.items() if key not in ("op", "of")}
        name = OUTPUT if number == len(operations) else f"v{number}"
        rank.append(2 if operation["op"] in ("flatten", "linear") else rank[operation["of"][0]])
        graph.begin(name, rank[-1])
        _WRITTEN[operation["op"]](graph, *(names[value] for value in operation["of"]), **attributes)
        names.append(name)
    count = "N" if batch is None else batch
    classes = count_logits(operations, size)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "network",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [count, 3, size, size])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [count, classes])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)]
        + ([helper.make_opsetid(_QONNX_DOMAIN, 1)] if signs == "qonnx" else []),
        ir_version=IR_VERSION,
        producer_name="recu",
    )
    helper.set_model_props(model, dict(said or {}))
    onnx.checker.check_model(model)
    return model


class _Graph:
    """Nodes and constants, written one after the other; `begin` says whose they are."""

    def __init__(self, signs: Signs) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._signs = signs
        self._name, self._rank, self._count = "", 4, 0

    def begin(self, name: str, rank: int) -> None:
        """What follows ends in the value of this name, of so many dimensions."""
        self._name, self._rank, self._count = name, rank, 0

    def constant(self, values: Any) -> str:
        """The name of a new constant."""
        from onnx import numpy_helper

        name = f"{self._name}_c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def channels(self, values: np.ndarray) -> str:
        """A constant that has a value for each channel."""
        return self.constant(values.reshape(-1, 1, 1) if self._rank == 4 else values)

    def add(self, kind: str, *inputs: str, last: bool = True, **attributes: Any) -> str:
        """A node; its result's name, which is the operation's own where it is the last one."""
        from onnx import helper

        self._count += 1
        result = self._name if last else f"{self._name}_{self._count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [result], **attributes))
        return result

    def signs(self, x: str, *, last: bool = False) -> str:
        """The signs of a value or of weights."""
        if self._signs == "onnx":
            return self.add("Sign", x, last=last)
        one = self.constant(np.float32(1))
        return self.add("BipolarQuant", x, one, last=last, domain=_QONNX_DOMAIN)

    def binary_weight(self, weight: np.ndarray) -> str:
        """Signs (O, kH, kW, I) as the weights of a convolution. Raises ConfigError."""
        filters = self.constant(weight.transpose(0, 3, 1, 2).astype(np.float32))
        if self._signs == "onnx":
            return filters
        zeros = int((weight == 0).sum())
        if zeros:
            raise ConfigError(
                f"{zeros} binary weights have the sign 0, which BipolarQuant does not have: export --to onnx, which"
                " has it"
            )
        return self.signs(filters)


def _binary(
    graph: _Graph,
    x: str,
    residual: str | None = None,
    *,
    weight: np.ndarray,
    stride: Sequence[int],
    padding: Sequence[int],
    scale: np.ndarray | None = None,
    factor: np.ndarray | None = None,
    shift: np.ndarray | None = None,
    hardtanh: bool = False,
    threshold: np.ndarray | None = None,
) -> None:
    pads = [*padding, *padding]
    out = graph.add("Conv", graph.signs(x), graph.binary_weight(weight), last=False, strides=list(stride), pads=pads)
    if threshold is not None:
        # Never zero: what comes next takes its sign.
        graph.add("Sub", out, graph.channels(threshold.astype(np.float32) + np.float32(0.5)))
        return
    following: list[tuple[str, tuple[str, ...]]] = []
    if scale is not None:
        following.append(("Mul", (graph.channels(scale),)))
    if factor is not None and shift is not None:
        following += [("Mul", (graph.channels(factor),)), ("Add", (graph.channels(shift),))]
    if residual is not None:
        following.append(("Add", (residual,)))
    if hardtanh:
        following.append(("Clip", (graph.constant(np.float32(-1)), graph.constant(np.float32(1)))))
    for number, (kind, others) in enumerate(following, 1):
        out = graph.add(kind, out, *others, last=number == len(following))


def _convolution(
    graph: _Graph,
    x: str,
    *,
    weight: np.ndarray,
    stride: Sequence[int],
    padding: Sequence[int],
    bias: np.ndarray | None = None,
) -> None:
    inputs = [graph.constant(weight.transpose(0, 3, 1, 2)), *([] if bias is None else [graph.constant(bias)])]
    graph.add("Conv", x, *inputs, strides=list(stride), pads=[*padding, *padding])


def _linear(graph: _Graph, x: str, *, weight: np.ndarray, bias: np.ndarray | None = None) -> None:
    graph.add("Gemm", x, graph.constant(weight), *([] if bias is None else [graph.constant(bias)]), transB=1)


def _average_pool(graph: _Graph, x: str, *, window: Sequence[int] | None, stride: Sequence[int] = ()) -> None:
    if window is None:
        graph.add("GlobalAveragePool", x)
    else:
        graph.add("AveragePool", x, kernel_shape=list(window), strides=list(stride), ceil_mode=1, count_include_pad=0)


def _max_pool(graph: _Graph, x: str, *, window: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> None:
    graph.add("MaxPool", x, kernel_shape=list(window), strides=list(stride), pads=[*padding, *padding])


def _norm(graph: _Graph, x: str, *, factor: np.ndarray, shift: np.ndarray) -> None:
    graph.add("Add", graph.add("Mul", x, graph.channels(factor), last=False), graph.channels(shift))


def _subsample(graph: _Graph, x: str, *, step: int) -> None:
    ends = np.array([np.iinfo(np.int64).max] * 2)
    places = (np.zeros(2, np.int64), ends, np.array([2, 3]), np.array([step, step]))
    graph.add("Slice", x, *(graph.constant(each) for each in places))


def _pad_channels(graph: _Graph, x: str, *, before: int, after: int) -> None:
    graph.add("Pad", x, graph.constant(np.array([0, before, 0, 0, 0, after, 0, 0])))


_WRITTEN: Mapping[str, Callable[..., None]] = {
    "binary": _binary,
    "convolution": _convolution,
    "linear": _linear,
    "mean": lambda graph, x: graph.add("GlobalAveragePool", x),
    "average_pool": _average_pool,
    "max_pool": _max_pool,
    "norm": _norm,
    "scale": lambda graph, x, *, factor: graph.add("Mul", x, graph.channels(factor)),
    "bias": lambda graph, x, *, shift: graph.add("Add", x, graph.channels(shift)),
    "prelu": lambda graph, x, *, slope: graph.add("PRelu", x, graph.channels(slope)),
    "hardtanh": lambda graph, x, *, low, high: graph.add(
        "Clip", x, graph.constant(np.float32(low)), graph.constant(np.float32(high))
    ),
    "relu": lambda graph, x: graph.add("Relu", x),
    "sign": lambda graph, x: graph.signs(x, last=True),
    "add": lambda graph, x, other: graph.add("Add", x, other),
    "subsample": _subsample,
    "pad_channels": _pad_channels,
    "flatten": lambda graph, x: graph.add("Flatten", x),
}


def onnx_runner(model: onnx.ModelProto) -> Callable[[np.ndarray], np.ndarray]:
    """A model of plain operators as onnxruntime computes it, from images (N, S, S, 3) to logits."""
    require("export", "onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: _as_planes(images)})[0]


def qonnx_runner(model: onnx.ModelProto, batch: int) -> Callable[[np.ndarray], np.ndarray]:
    """A model with BipolarQuant as QONNX's executor computes it; it was made for this number of images at once."""
    require("export", "qonnx", "onnxruntime")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    wrapped = ModelWrapper(model).transform(InferShapes())

    def run(images: np.ndarray) -> np.ndarray:
        filled = np.zeros((batch, *images.shape[1:]), np.float32)
        filled[: len(images)] = images
        return execute_onnx(wrapped, {INPUT: _as_planes(filled)})[OUTPUT][: len(images)]

    return run


def _as_planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
