"""`recu bench --peers`: this package beside other ways to compute a binary network on a CPU, in turns."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tabulate import tabulate

from benchmarks.engines import check_model
from benchmarks.peer_worker import PREDICT
from benchmarks.table import number
from benchmarks.worker import Worker, worker
from recu.base.errors import ConfigError
from recu.experiment.binarisers import USUAL
from recu.experiment.resolving import network_name

if TYPE_CHECKING:
    from torch import nn

    from recu.stages.export import Wanted

_LARGE = ("imagenet", "resnet18_1w1a", 224)
_BATCHES, _THREADS = (1, 128), (1, 2)
_WAYS = ("packed", "evaluation", "openvino", "onnxruntime", "plain, channels_last", "plain")
_PLAIN = "plain"
_TOO_SLOW = {("imagenet", 128): (_PLAIN,)}
"""What would take minutes a turn."""
_CLASSES = 10
_COMPARED, _MOST_NUMBERS = 256, 1 << 27
"""Random images whose predictions are compared, of 32x32 pixels; numbers of images that are kept at most, 512 MiB."""
_PREDICTED_AT_ONCE = 8
_MIB, _MB = 1 << 20, 1e6


@dataclass(frozen=True)
class PeerSettings:
    """What `recu bench --peers` measures."""

    openvino: Path
    """The Python of an environment with OpenVINO (`make openvino`)."""
    repeats: int = 3
    """Turns of each way."""
    seconds: float = 1.0
    """Of a turn, about."""
    models: tuple[str, ...] = ()
    """CIFAR networks."""
    small: bool = False
    """These only, without the one of 224x224 pixels."""
    trained: Wanted | None = None
    """The one network that is measured; None for the others, with random weights."""
    data_dir: Path = Path("data")
    """Prepared data, with that network's test images."""


@dataclass(frozen=True, kw_only=True)
class _Network:
    """A network that is measured, in files that workers read."""

    family: str
    model: str
    variant: str | None
    stage: int
    binariser: str
    num_classes: int
    size: int
    """Side of the images, in pixels."""
    packed: Path
    weights: Path
    """As PyTorch keeps them."""
    images: Path
    """Normalised, (N, S, S, 3), in NumPy's form."""
    labels: list[int] | None
    """Of these; None where they are random."""
    on: str
    """What they are, in words."""

    @property
    def title(self) -> str:
        return f"{network_name(self.family, self.variant, self.model)}, {self.size}"

    def as_json(self) -> dict[str, Any]:
        """For a worker."""
        told = {name: value for name, value in vars(self).items() if name not in ("labels", "on")}
        return {name: str(value) if isinstance(value, Path) else value for name, value in told.items()}


def bench_peers(settings: PeerSettings) -> dict[str, Any]:
    """Rates, memory, sizes and predictions of every way to compute every network; JSON-compatible.

    Raises:
        ConfigError: a setting is out of range.
        RecuError: a process ended before its turn, or the network that was asked for has no packed form or no data.
    """
    if settings.repeats < 1 or not 0 < settings.seconds < 3600:
        raise ConfigError(f"{settings.repeats} turns of {settings.seconds} s: expected 1 or more, of 0 to 3600 s")
    if settings.trained is None and settings.small and not settings.models:
        raise ConfigError("no network to measure: name some with --models, or leave --small out")
    for model in settings.models:
        check_model(model)
    networks, cases = [], []
    with tempfile.TemporaryDirectory(prefix="recu-peers-") as folder:
        for network in _networks(Path(folder), settings):
            named = {"family": network.family, "network": network.model, "size": network.size}
            networks.append(named | {"title": network.title} | _predictions(network, settings))
            for batch in _BATCHES:
                for threads in _THREADS:
                    case = {"batch": batch, "threads": threads}
                    cases.append(named | case | _measured(network, case, settings))
    return {
        "machine": _machine(),
        "settings": {
            "openvino": str(settings.openvino),
            "repeats": settings.repeats,
            "seconds": settings.seconds,
            "weights": "random" if settings.trained is None else str(settings.trained.classifier.subject.file.path),
        },
        "networks": networks,
        "cases": cases,
    }


def render(result: dict[str, Any]) -> str:
    """The numbers as a table for people; what packed files are faster by is a quotient of rates."""
    networks = {(each["family"], each["network"], each["size"]): each for each in result["networks"]}
    rows, skipped = [], dict[str, None]()
    for case in result["cases"]:
        network = networks[case["family"], case["network"], case["size"]]
        own = case["ways"].get("packed", {}).get("rate")
        where = (network["title"], f"{case['batch']}, {case['threads']}")
        for way, each in case["ways"].items():
            gain = "" if own is None else f"{own / each['rate']:.2f}"
            right = network["right"].get(way)
            numbers = (number(each["rate"]), number(each["ms"]), gain, f"{each['memory'] / _MIB:,.0f}")
            ends = (f"{network['bytes'][way] / _MB:.3g}", "" if right is None else f"{right:.2f}")
            rows.append((*where, way, *numbers, *ends))
            where = ("", "")
        skipped |= dict.fromkeys(f"{network['title']}: {way}: {why}" for way, why in case["skipped"].items())
    labelled = all(each["labelled"] for each in networks.values())
    right = "top-1\n%" if labelled else "as plain\n%"
    headers = ("network, pixels", "batch,\nthreads", "", "images\n/s", "ms\na batch", "packed\nfaster")
    table = tabulate(
        rows,
        (*headers, "peak\nMiB", "file\nMB", right),
        disable_numparse=True,
        colalign=("left", "left", "left", *["right"] * 6),
    )
    settings = result["settings"]
    return "\n".join(
        [
            table,
            "",
            *skipped,
            f"weights: {settings['weights']}; {'top-1' if labelled else f'predictions that are those of {_PLAIN}'} on",
            *(f"  {each['title']}: {each['on']}" for each in networks.values()),
            f"machine: {result['machine']}; medians of {settings['repeats']} turns of {settings['seconds']:g} s",
        ]
    )


def _networks(folder: Path, settings: PeerSettings) -> Iterator[_Network]:
    if settings.trained is not None:
        yield _trained_network(folder, settings.trained, settings.data_dir)
        return
    small = [("cifar", model, 32) for model in settings.models]
    for family, model, size in small if settings.small else [*small, _LARGE]:
        yield _random_network(folder, family, model, size)


def _random_network(folder: Path, family: str, model: str, size: int) -> _Network:
    """With random weights, on which no speed depends, and statistics of its norms that are not all alike."""
    import torch
    from torch import nn

    from recu.export.graph import operations_of
    from recu.models.build import build_model
    from recu.runtime.writer import packed_bytes

    torch.manual_seed(0)
    network = build_model(model, family=family, num_classes=_CLASSES)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
            layer.weight.data.uniform_(0.5, 1.5)
    content = packed_bytes({"image": {"size": size}}, operations_of(network.eval()))
    count = max(1, _COMPARED * 32 * 32 // (size * size))
    images = np.random.default_rng(1).standard_normal((count, size, size, 3)).astype(np.float32)
    np.save(folder / "images.npy", images)
    said = {"family": family, "model": model, "variant": None, "stage": 2, "binariser": USUAL}
    said |= {"num_classes": _CLASSES, "size": size}
    return _written(folder, network, content, said, labels=None, on=f"{count} random images")


def _trained_network(folder: Path, wanted: Wanted, data_dir: Path) -> _Network:
    from recu.stages.export import packed_content, test_images

    subject, size = wanted.classifier.subject, wanted.classifier.dataset.image_size
    on, total, batches = test_images(wanted, data_dir)
    # Spread over all of them, since they may be sorted by class.
    step = -(-total * size * size * 3 // _MOST_NUMBERS)
    kept = np.lib.format.open_memmap(folder / "images.npy", "w+", np.float32, (-(-total // step), size, size, 3))
    labels, seen, stored = list[int](), 0, 0
    for images, given in batches:
        chosen = slice(-seen % step, None, step)
        rows = images.permute(0, 2, 3, 1)[chosen].numpy()
        kept[stored : stored + len(rows)] = rows
        labels += given[chosen].tolist()
        seen, stored = seen + len(images), stored + len(rows)
    kept.flush()
    said = {name: getattr(subject, name) for name in ("family", "model", "variant", "stage", "binariser")}
    said |= {"num_classes": wanted.classifier.dataset.num_classes, "size": size}
    on = on if step == 1 else f"one in {step} of {on} ({stored})"
    return _written(folder, wanted.classifier.network, packed_content(wanted), said, labels=labels, on=on)


def _written(
    folder: Path, network: nn.Module, content: bytes, said: dict[str, Any], *, labels: list[int] | None, on: str
) -> _Network:
    import torch

    packed, weights = folder / "network.recu", folder / "weights.pth"
    packed.write_bytes(content)
    torch.save(network.state_dict(), weights)
    places = {"packed": packed, "weights": weights, "images": folder / "images.npy"}
    return _Network(**said, **places, labels=labels, on=on)


def _predictions(network: _Network, settings: PeerSettings) -> dict[str, Any]:
    """Of each way: bytes of its file, and which part of its predictions is right, in per cent."""
    case = {"batch": _PREDICTED_AT_ONCE, "threads": _THREADS[-1]}
    taken: dict[str, np.ndarray] = {}
    sizes: dict[str, int] = {}
    for way in _WAYS:
        with _opened(network, way, case, settings) as (process, said):
            if process is not None:
                taken[way] = np.array(process.ask(PREDICT)["classes"])
                sizes[way] = said["bytes"]
    expected = taken.get(_PLAIN) if network.labels is None else np.array(network.labels)
    right = {} if expected is None else {way: 100 * float((each == expected).mean()) for way, each in taken.items()}
    return {"bytes": sizes, "right": right, "labelled": network.labels is not None, "on": network.on}


def _measured(network: _Network, case: dict[str, Any], settings: PeerSettings) -> dict[str, Any]:
    turns: dict[str, list[dict[str, float]]] = {}
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        workers = {}
        for way in _WAYS:
            if way in _TOO_SLOW.get((network.family, case["batch"]), ()):
                skipped[way] = f"not measured in batches of {case['batch']}: minutes a turn"
                continue
            process, said = stack.enter_context(_opened(network, way, case, settings))
            if process is None:
                skipped[way] = said["missing"]
            else:
                workers[way] = process
        for _ in range(settings.repeats):
            for way, process in workers.items():
                turns.setdefault(way, []).append(process.ask(str(settings.seconds)))
    ways = {
        way: {name: statistics.median(turn[name] for turn in each) for name in each[0]} for way, each in turns.items()
    }
    return {"bytes": network.packed.stat().st_size, "ways": ways, "skipped": skipped}


@contextmanager
def _opened(
    network: _Network, way: str, case: dict[str, Any], settings: PeerSettings
) -> Iterator[tuple[Worker | None, dict[str, Any]]]:
    """A way's process and what it said when it was ready; None, and why it is `missing`."""
    if way == "openvino" and not settings.openvino.is_file():
        yield None, {"missing": f"no {settings.openvino}: `make openvino` makes that environment"}
        return
    started = worker(
        "benchmarks.peer_worker",
        network.as_json() | case | {"way": way},
        name=repr(way),
        python=str(settings.openvino) if way == "openvino" else sys.executable,
        environment={"OMP_NUM_THREADS": str(case["threads"])},
    )
    with started as process:
        said = process.answer()
        yield (None if "missing" in said else process), said


def _machine() -> str:
    from recu.training.device import choose_device, describe

    return describe(choose_device("cpu"))
