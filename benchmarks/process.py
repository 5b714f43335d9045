"""A process of its own for one engine: start-up seconds and peak memory of training, as one line of JSON.

Started by `benchmarks.measure.measure_in_process`.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

STEPS = 2
"""Training steps behind a peak: the optimiser's momenta exist from the first one on."""


def main(text: str) -> None:
    """Measure what the JSON `text` asks for: engine, model, batch_size, threads, gpus, clock and launched."""
    settings = json.loads(text)
    print(json.dumps(_measure(settings)))


def _measure(settings: dict[str, Any]) -> dict[str, float]:
    import torch

    from benchmarks.engines import build_engine, random_images
    from benchmarks.measure import peak_memory
    from recu.training.device import choose_device

    torch.set_num_threads(settings["threads"])
    device = choose_device(settings["gpus"])
    batch_size = settings["batch_size"]
    images = random_images(STEPS * batch_size)
    engine = build_engine(
        settings["engine"],
        settings["model"],
        train=images,
        test=images,
        batch_size=batch_size,
        batch_size_test=batch_size,
        device=device,
    )
    engine.load()
    ready = time.process_time() if settings["clock"] == "cpu" else time.time() - settings["launched"]
    for _ in range(STEPS):
        engine.train()
    return {"start_up": ready, "memory": peak_memory(device)}


if __name__ == "__main__":
    main(sys.argv[1])
