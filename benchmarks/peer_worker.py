"""A process of its own for one way to compute a network: `python -m benchmarks.peer_worker JSON`.

It says when it is ready and what its file takes. Then it answers each line that it reads with one line of JSON: a
number of seconds asks for a turn of so many, `predict` for the likeliest classes of the images to compare. The way by
OpenVINO runs in an environment that has this and NumPy alone.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peak import resident_peak
from recu.base.errors import ConfigError

_LEAST_RUNS = 3
_OTHERS = ("openvino", "onnxruntime")
"""Libraries that may fail on this processor or network, whatever they raise; the table then says so."""
PREDICT = "predict"

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Way:
    """A network that is ready to compute."""

    lay_out: Callable[[np.ndarray], Any]
    """From normalised images (batch, S, S, 3) float32 to what it takes."""
    compute: Callable[[Any], Any]
    """From that to logits."""
    size_bytes: int
    """Of the file that it reads."""


def main(text: str) -> None:
    """Answer every line of the standard input until it ends."""
    settings = json.loads(text)
    shape = (settings["batch"], settings["size"], settings["size"], 3)
    try:
        way = WAYS[settings["way"]](settings)
        given = way.lay_out(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
        way.compute(given)
    except Exception as error:
        if settings["way"] not in _OTHERS and not isinstance(error, (ImportError, ConfigError)):
            raise
        _say({"missing": " ".join(str(error).split())})
        return
    _say({"bytes": way.size_bytes})
    for line in sys.stdin:
        if line.strip() == PREDICT:
            _say({"classes": _predicted(way, np.load(settings["images"], mmap_mode="r"), settings["batch"])})
        else:
            _say(_turn(lambda: way.compute(given), float(line), settings["batch"]))


def _say(answer: Mapping[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _turn(run: Callable[[], object], seconds: float, batch: int) -> dict[str, float]:
    took, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(took) < _LEAST_RUNS:
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    median = statistics.median(took)
    return {"ms": 1000 * median, "rate": batch / median, "memory": resident_peak()}


def _predicted(way: Way, images: np.ndarray, batch: int) -> list[int]:
    """The likeliest class of each image; the last batch is filled up."""
    found: list[int] = []
    for first in range(0, len(images), batch):
        taken = np.arange(first, first + batch) % len(images)
        found += np.asarray(way.compute(way.lay_out(images[taken]))).argmax(1).tolist()
    return found[: len(images)]


def _in_planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _operations(settings: Settings) -> list[dict[str, Any]]:
    from recu.runtime.reader import read

    return read(Path(settings["packed"])).operations


def _packed(settings: Settings) -> Way:
    from recu.runtime.compiled_network import CompiledNetwork

    network = CompiledNetwork(_operations(settings), settings["size"], settings["threads"])
    return Way(lambda images: images, network, Path(settings["packed"]).stat().st_size)


def _openvino(settings: Settings) -> Way:
    from benchmarks.openvino_form import openvino_model, openvino_runner

    operations = _operations(settings)
    model = openvino_model(operations, settings["size"], settings["batch"])
    binary = sum(each["op"] == "binary" for each in operations)
    return Way(_in_planes, openvino_runner(model, binary, settings["threads"]), _openvino_bytes(model))


def _openvino_bytes(model: Any) -> int:
    import openvino

    with tempfile.TemporaryDirectory(prefix="recu-peers-") as folder:
        openvino.save_model(model, Path(folder) / "network.xml", compress_to_fp16=False)
        return sum(file.stat().st_size for file in Path(folder).iterdir())


def _onnxruntime(settings: Settings) -> Way:
    import onnxruntime

    from recu.export.onnx_form import INPUT, onnx_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    content = onnx_model(_operations(settings), size=settings["size"]).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return Way(_in_planes, lambda images: session.run(None, {INPUT: images})[0], len(content))


def _evaluation(settings: Settings) -> Way:
    from recu.models.build import build_model
    from recu.nn.inference import inference_form
    from recu.training.device import lay_out

    arguments = {name: settings[name] for name in ("family", "num_classes", "variant", "stage", "binariser")}
    return _of_pytorch(build_model(settings["model"], **arguments), settings, inference_form, lay_out)


def _plain(settings: Settings, *, channels_last: bool = False) -> Way:
    import torch

    from benchmarks.reference.networks import build_reference
    from recu.experiment.binarisers import USUAL

    arguments = {name: settings[name] for name in ("family", "num_classes", "variant", "stage")}
    try:
        if settings["binariser"] != USUAL:
            raise KeyError
        network = build_reference(settings["model"], **arguments)
    except KeyError:
        raise ConfigError("this network has no plain implementation in benchmarks/reference") from None
    if channels_last:
        network = network.to(memory_format=torch.channels_last)

    def lay_out(images: torch.Tensor) -> torch.Tensor:
        return images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    return _of_pytorch(network, settings, lambda network: network, lay_out)


def _of_pytorch(network: Any, settings: Settings, form_of: Callable[..., Any], lay_out: Callable[..., Any]) -> Way:
    import torch

    torch.set_num_threads(settings["threads"])
    weights = Path(settings["weights"])
    network.load_state_dict(torch.load(weights, weights_only=True))
    form = form_of(network.eval())
    return Way(
        lambda images: lay_out(torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)),
        torch.inference_mode()(lambda images: form(images)),
        weights.stat().st_size,
    )


WAYS: Mapping[str, Callable[[Settings], Way]] = {
    "packed": _packed,
    "evaluation": _evaluation,
    "plain": _plain,
    "plain, channels_last": lambda settings: _plain(settings, channels_last=True),
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
"""By name."""


if __name__ == "__main__":
    main(sys.argv[1])
