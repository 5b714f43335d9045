"""A process of its own for one engine: `python -m benchmarks.process JSON`.

It says how long its start-up took. Then it does what each line that it reads names: a training step (`train`), an
evaluation (`evaluate`), waiting for the device (`wait`), or saying what memory it has held at most (`memory`). Engines
of one process would share what one of them sets for it, such as how memory is allocated.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

STEPS = 2
"""Training steps behind a peak of memory: the optimiser's momenta exist from the first one on."""


def main(text: str) -> None:
    """Answer every line of the standard input until it ends.

    Args:
        text: JSON of engine, model, batch_size, batch_size_test, train and test (numbers of images), threads, gpus,
            clock and launched (seconds since 1970).
    """
    import torch

    from benchmarks.engines import build_engine, random_images
    from benchmarks.measure import CLOCKS, peak_memory, synchroniser
    from recu.training.device import choose_device

    settings = json.loads(text)
    torch.set_num_threads(settings["threads"])
    device = choose_device(settings["gpus"])
    engine = build_engine(
        settings["engine"],
        settings["model"],
        train=random_images(settings["train"]),
        test=random_images(settings["test"]),
        batch_size=settings["batch_size"],
        batch_size_test=settings["batch_size_test"],
        device=device,
    )
    engine.load()
    clock, wait = CLOCKS[settings["clock"]], synchroniser(device)
    _say(start_up=clock() if settings["clock"] == "cpu" else time.time() - settings["launched"])
    work = {"train": engine.train, "evaluate": engine.evaluate}
    for line in sys.stdin:
        word, started = line.strip(), clock()
        if word == "memory":
            _say(memory=peak_memory(device))
        elif word == "wait":
            wait()
            _say(images=0, seconds=clock() - started)
        else:
            images = work[word]()
            _say(images=images, seconds=clock() - started)


def _say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
