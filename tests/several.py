"""Functions run in several processes that can speak with each other, as a launcher's processes do."""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

_PATIENCE_S = 120


def in_processes(
    count: int, work: Callable[..., Any], *arguments: Any, patience_s: float = _PATIENCE_S, **settings: Any
) -> list[Any]:
    """What `work(processes, *arguments, **settings)` returns in each of `count` processes, in order.

    Args:
        count: processes, forked from one that has imported PyTorch.
        work: of a module, as are the arguments' classes; what it returns are plain values and tensors.
        arguments: for `work`.
        patience_s: how long they wait for each other.
        settings: for `work`.
    """
    context = multiprocessing.get_context("forkserver")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    context.set_forkserver_preload(["torch", "recu.models", "recu.training.trainer", "tests.several"])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    queue = context.Queue()
    work = functools.partial(work, **settings)
    started = [
        context.Process(target=_run, args=(queue, rank, count, port, patience_s, work, arguments), daemon=True)
        for rank in range(count)
    ]
    for process in started:
        process.start()
    try:
        found = [queue.get(timeout=2 * _PATIENCE_S) for _ in started]
    finally:
        for process in started:
            process.join(10)
            process.kill()
    # The first to fail is the reason why others do.
    failures = [f"process {rank} of {count}: {failure}" for _, rank, _, failure in sorted(found) if failure is not None]
    if failures:
        raise AssertionError("\n".join(failures))
    values = {rank: torch.load(io.BytesIO(value), weights_only=True) for _, rank, value, _ in found}
    return [values[rank] for rank in range(count)]


def _run(
    queue: Any, rank: int, count: int, port: int, patience_s: float, work: Callable[..., Any], arguments: tuple
) -> None:
    from recu.base.place import Place
    from recu.training.processes import joined

    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    place = Place(rank=rank, count=count, local_rank=rank, local_count=count)
    try:
        with joined(place, gpus="cpu", patience_s=patience_s) as processes:
            content = io.BytesIO()
            torch.save(work(processes, *arguments), content)
            queue.put((time.monotonic(), rank, content.getvalue(), None))
    except BaseException:
        queue.put((time.monotonic(), rank, None, traceback.format_exc()))
