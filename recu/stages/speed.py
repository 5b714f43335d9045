"""The speed stage: how fast a packed file is on this machine, beside the float network of its shape.

Both compute the same test images, normalised, to logits, and take turns, so that a slow minute is slow for both.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recu.base.errors import ResultError
from recu.experiment.binarisers import USUAL
from recu.experiment.networks import find_network
from recu.experiment.resolving import network_sources
from recu.results.records import Speed, SpeedRecord
from recu.stages.packed import PackedClassifier, check_data, load_packed, test_images

if TYPE_CHECKING:
    from recu.data import Prepared
    from recu.stages.predict import Classifier
    from recu.stages.subject import Subject

TURNS = 5
_TURN_S = 0.15
"""About how long a turn is; it is one call at least."""
_BATCH = 128
"""Images of up to 32x32 pixels; of larger ones fewer, so that a batch has as many pixels."""
_LEAST_PER_THREAD = 4
"""Images of a batch, however large they are."""

Images = NDArray[np.float32]
"""(N, S, S, 3), normalised."""
Compute = Callable[[Images], object]


def measure_speed(name: str, classifier: Classifier, file: Path, *, data_dir: Path, threads: int) -> SpeedRecord:
    """How fast a packed file and the float network of its shape are, by as many threads.

    The float network has real weights and activations: what one would deploy in place of a binary one. PyTorch runs it
    as `recu evaluate` would. Its weights are those that it begins with, since no speed depends on them.

    Args:
        name: what the record calls the network.
        classifier: the checkpoint that the file was made of, on the CPU.
        file: the packed file.
        data_dir: prepared data, whose test images are computed.
        threads: of both.

    Raises:
        ResultError: the file is of another checkpoint. CheckpointError: it is damaged, or the data has other classes or
        images. DataError: there is no prepared data. Interrupted: as `recu.results.provenance.collect`.
    """
    from recu.data import open_prepared
    from recu.results import provenance
    from recu.training.device import describe

    packed, subject = load_packed(file, threads), classifier.subject
    source = packed.header.get("source")
    if not isinstance(source, dict) or source.get("sha256") != subject.file.sha256:
        raise ResultError(f"{file} is of another checkpoint than {subject.file.path}: export that again")
    prepared = open_prepared(data_dir / packed.header["dataset"], classifier.dataset)
    check_data(packed, prepared)
    batch = _batch(packed, prepared, threads)
    ways: dict[str, Compute] = {"packed": packed.network}
    plain = _float_network(subject, classifier.dataset.num_classes, threads)
    if plain is not None:
        ways["float32"] = plain
    for compute in ways.values():
        compute(batch)  # which loads what it needs
    before = _clocks()
    took = _in_turns(ways, {"one": batch[:1], "batch": batch})
    speeds = {way: Speed(ms=1000 * took[way, "one"], images_per_s=len(batch) / took[way, "batch"]) for way in ways}
    return SpeedRecord(
        experiment_id=name,
        packed_sha256=packed.sha256,
        packed=speeds["packed"],
        float32=speeds.get("float32"),
        threads=threads,
        batch_size=len(batch),
        turns=TURNS,
        processors=os.cpu_count() or threads,
        load_average=_load_average(),
        others=_others_since(before),
        provenance=provenance.collect(describe(classifier.device), network_sources(subject.model, subject.binariser)),
    )


def _batch(packed: PackedClassifier, prepared: Prepared, threads: int) -> Images:
    """The first test images, from the front again where there are fewer."""
    count = max(min(_BATCH, _BATCH * 32**2 // packed.seen.size**2), _LEAST_PER_THREAD * threads)
    found: list[NDArray[np.uint8]] = []
    for views, _ in test_images(prepared, packed.seen):
        found.extend(views)
        if len(found) >= count:
            break
    return packed.normalised(np.stack([found[number % len(found)] for number in range(count)]))


def _float_network(subject: Subject, num_classes: int, threads: int) -> Compute | None:
    """The same architecture with nothing binary; None where a network of one's own has no such form."""
    import torch

    from recu.training.device import lay_out, place

    torch.set_num_threads(threads)
    if 0 not in find_network(subject.model, family=subject.family, variant=subject.variant).stages:
        return None
    network = place(replace(subject, stage=0, binariser=USUAL).build(num_classes).eval(), torch.device("cpu"))

    def compute(images: Images) -> object:
        with torch.inference_mode():
            return network(lay_out(torch.from_numpy(images).permute(0, 3, 1, 2)))

    return compute


def _in_turns(ways: Mapping[str, Compute], given: Mapping[str, Images]) -> dict[tuple[str, str], float]:
    """Median seconds of a call of each way with each of the images."""
    took: dict[tuple[str, str], list[float]] = {}
    for _ in range(TURNS):
        for size, images in given.items():
            for way, compute in ways.items():
                took.setdefault((way, size), []).append(_turn(compute, images))
    return {key: statistics.median(turns) for key, turns in took.items()}


def _turn(compute: Compute, images: Images) -> float:
    """Median seconds of a call, of those that a turn has time for."""
    took: list[float] = []
    end = time.perf_counter() + _TURN_S
    while not took or time.perf_counter() < end:
        start = time.perf_counter()
        compute(images)
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def _clocks() -> tuple[float, float, float | None]:
    """Seconds that passed, that this process computed, and that all processors did; None where no system says so."""
    return time.perf_counter(), time.process_time(), _computed_by_all()


def _computed_by_all() -> float | None:
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        user, nice, system, _idle, _waiting, *interrupts_and_stolen = map(int, words)
        return (user + nice + system + sum(interrupts_and_stolen)) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None


def _others_since(before: tuple[float, float, float | None]) -> float | None:
    """Processors that other programs kept busy since then, on average, and other guests of the same host."""
    (start, own_before, all_before), (end, own, by_all) = before, _clocks()
    if all_before is None or by_all is None:
        return None
    return max(0.0, by_all - all_before - (own - own_before)) / (end - start)


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
