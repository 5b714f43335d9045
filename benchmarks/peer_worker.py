"""A process of its own for one way to compute a network: `python -m benchmarks.peer_worker JSON`.

It says when it is ready, then takes a turn for each line it reads, and answers with one line of JSON. The way by
OpenVINO runs in an environment that has this and NumPy alone.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peak import resident_peak
from recu.base.errors import ConfigError

_LEAST_RUNS = 3


def main(text: str) -> None:
    """Answer every line of the standard input, which says for how many seconds, until it ends."""
    settings = json.loads(text)
    try:
        run = WAYS[settings["way"]](settings)
    except (ImportError, ConfigError) as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    run()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_turn(run, float(line), settings["batch"])), flush=True)


def _turn(run: Callable[[], object], seconds: float, batch: int) -> dict[str, float]:
    took, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(took) < _LEAST_RUNS:
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    median = statistics.median(took)
    return {"ms": 1000 * median, "rate": batch / median, "memory": resident_peak()}


def _images(settings: Mapping[str, Any], *, planes: bool) -> np.ndarray:
    """Random ones: (batch, S, S, 3), or (batch, 3, S, S) in planes."""
    shape = (settings["batch"], settings["size"], settings["size"], 3)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if planes else images


def _operations(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    from recu.runtime.reader import read

    return read(Path(settings["file"])).operations


def _packed(settings: Mapping[str, Any]) -> Callable[[], object]:
    from recu.runtime.compiled_network import CompiledNetwork

    network = CompiledNetwork(_operations(settings), settings["size"], settings["threads"])
    images = _images(settings, planes=False)
    return lambda: network(images)


def _openvino(settings: Mapping[str, Any]) -> Callable[[], object]:
    from benchmarks.openvino_form import openvino_form

    run = openvino_form(_operations(settings), settings["size"], settings["batch"], settings["threads"])
    images = _images(settings, planes=True)
    return lambda: run(images)


def _onnxruntime(settings: Mapping[str, Any]) -> Callable[[], object]:
    import onnxruntime

    from recu.export.onnx_form import INPUT, onnx_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    model = onnx_model(_operations(settings), size=settings["size"])
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    images = _images(settings, planes=True)
    return lambda: session.run(None, {INPUT: images})


def _evaluation(settings: Mapping[str, Any]) -> Callable[[], object]:
    import torch

    from recu.models.build import build_model
    from recu.nn.inference import inference_form
    from recu.training.device import lay_out

    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    network = build_model(settings["network"], family=settings["family"], num_classes=settings["classes"])
    form, images = inference_form(network.eval()), lay_out(torch.from_numpy(_images(settings, planes=True)))
    return torch.inference_mode()(lambda: form(images))


def _plain(settings: Mapping[str, Any], *, channels_last: bool = False) -> Callable[[], object]:
    import torch

    from benchmarks.reference.networks import build_reference

    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    network = build_reference(settings["network"], family=settings["family"], num_classes=settings["classes"]).eval()
    images = torch.from_numpy(_images(settings, planes=True))
    if channels_last:
        network, images = (each.to(memory_format=torch.channels_last) for each in (network, images))
    return torch.inference_mode()(lambda: network(images))


WAYS: Mapping[str, Callable[[Mapping[str, Any]], Callable[[], object]]] = {
    "packed": _packed,
    "evaluation": _evaluation,
    "plain": _plain,
    "plain, channels_last": lambda settings: _plain(settings, channels_last=True),
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
"""By name: from settings to what computes a batch once."""


if __name__ == "__main__":
    main(sys.argv[1])
