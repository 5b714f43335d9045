"""Several processes that work on one network, each on a device of its own, and what they say to each other.

PyTorch's launcher (`recu.training.launcher`, torchrun) or a cluster's (srun) starts them and says in the environment
which is which. The first runs the job; the others wait until it calls them, and it alone writes, logs and speaks with
stores. With one process everything here is the identity.

Every exchange is a meeting: all processes come to it, in the same order. It goes from host to host (gloo), so that none
waits for a GPU. One that has ended, or does not come within the time limit, is an error in all.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from recu.base import errors
from recu.base.errors import ConfigError, LostProcess, RecuError
from recu.base.place import Place
from recu.data.load.loader import Share
from recu.experiment.schema import gpu_numbers

T = TypeVar("T")

_START = timedelta(minutes=2)
"""How long they wait for each other's start, at least."""
SAID, STORE = "RECU_SAID", "RECU_STORE"
"""Variables in which our launcher names a file that is made when a process says why the job ends, and the file in which
the processes find each other: a server, as torchrun's, takes what anybody sends who reaches this machine."""
_POLL_S = 0.2
_LAST_WORDS_S = 3
"""How long a process that lost another waits for what that one said last."""
_FAILURE, _CALL, _NO_CALL = "recu/failure", "recu/call", "none"
_BACKENDS = ("gloo", "nccl")
"""What errors name, that are no DistError, with which PyTorch says that another process did not answer."""


@dataclass(frozen=True)
class _Work:
    """What the first process lets the others do."""

    function: Callable[..., None]
    arguments: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Processes(Place):
    """The processes of one job, as this one sees them."""

    store: Any = field(default=None, repr=False)
    """Of `torch.distributed`, where they find each other."""

    @property
    def share(self) -> Share:
        """What of a split comes to this process."""
        return Share(self.rank, self.count)

    def any_of(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is set in any process."""
        if self.count == 1:
            return flags
        values = torch.tensor(flags, dtype=torch.int64)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return tuple(bool(value) for value in values.tolist())

    def sum(self, values: Tensor) -> Tensor:
        """Over all processes; on the CPU where there are several."""
        if self.count == 1:
            return values
        total = values.cpu().clone()
        dist.all_reduce(total)
        return total

    def total(self, number: int) -> int:
        """Of whole numbers, over all processes."""
        return number if self.count == 1 else int(self.sum(torch.tensor(number)))

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all; its RecuError is raised by all. Nobody else calls `make`."""
        if self.count == 1:
            return make()
        made: list[Any] = [None, None]
        if self.first:
            try:
                made[0] = make()
            except RecuError as error:
                made[1] = error
        dist.broadcast_object_list(made, src=0, device=torch.device("cpu"))
        if made[1] is not None:
            raise made[1]
        result: T = made[0]
        return result

    def call_others(self, work: Callable[..., None], *arguments: Any) -> None:
        """Let every other process run `work(processes, *arguments)`, beside what the first one does after this."""
        if self.count > 1 and self.first:
            self.store.set(_CALL, "come")
            self.from_first(lambda: _Work(work, arguments))

    def assist(self) -> None:
        """What the other processes do: wait, however long, until the first one calls, and do what it says.

        Raises:
            LostProcess: the first one, or the launcher, has ended without a word.
        """
        try:
            while not self.store.check([_CALL]):
                said = self._said()
                if said is not None:
                    raise said
                if self.orphaned:
                    raise LostProcess(_lost("the launcher of this job has ended"))
                time.sleep(_POLL_S)
        except RuntimeError as error:
            raise LostProcess(_lost("the first process of this job has ended")) from error
        if self.store.get(_CALL).decode() != _NO_CALL:
            called = self.from_first(_no_work)
            called.function(self, *called.arguments)

    @contextmanager
    def in_words(self) -> Iterator[None]:
        """Within the block, that another process has ended or does not answer is what that one said, or LostProcess."""
        try:
            yield
        except RecuError:
            raise
        except RuntimeError as error:
            lost = isinstance(error, dist.DistError) or any(name in str(error).lower() for name in _BACKENDS)
            if self.count == 1 or not lost:
                raise
            until = time.monotonic() + _LAST_WORDS_S
            while (said := self._said()) is None and time.monotonic() < until:
                time.sleep(_POLL_S)
            waited = "timed out" in str(error).lower() or "timeout" in str(error).lower()
            what = "gave no answer within the time limit (--stall_minutes)" if waited else "has ended"
            raise said or LostProcess(_lost(f"another process of this job {what}")) from error

    @contextmanager
    def saying_once(self) -> Iterator[None]:
        """Within the block, only the process that says an error first raises it; the others end with its exit code."""
        try:
            with self.in_words():
                yield
        except RecuError as error:
            if self.count == 1 or self._say(error):
                raise
            raise SystemExit((self._said() or error).exit_code) from error
        if self.count > 1 and self.first:
            self.store.compare_set(_CALL, "", _NO_CALL)

    def _say(self, error: RecuError) -> bool:
        """Leave an error's text for the others; returns whether none had been left yet."""
        text = json.dumps([type(error).__name__, str(error), self.rank])
        try:
            says = bool(self.store.compare_set(_FAILURE, "", text).decode() == text)
        except RuntimeError:
            says = self.first  # the launcher has gone, and with it the place to leave it
        if says and SAID in os.environ:
            Path(os.environ[SAID]).touch()
        return says

    def _said(self) -> RecuError | None:
        try:
            if not self.store.check([_FAILURE]):
                return None
            kind, text, _rank = json.loads(self.store.get(_FAILURE))
        except RuntimeError:
            return None
        error: RecuError = getattr(errors, kind, RecuError)(text)
        return error


def _no_work() -> _Work:
    raise ValueError("the first process alone makes work")


ALONE = Processes()
"""One process, as most jobs have."""


def _lost(what: str) -> str:
    return f"{what}; the state saved last is kept: run the same command again to continue"


@contextmanager
def joined(place: Place, *, gpus: str, patience_s: float) -> Iterator[Processes]:
    """Within the block, the processes can speak with each other.

    Args:
        place: of this one.
        gpus: as for `recu.training.device.choose_device`.
        patience_s: how long the others wait for one of them.

    Raises:
        ConfigError: nothing says where they find each other.
        LostProcess: they do not find each other.
        RecuError: in one process of all, see `Processes.saying_once`.
    """
    if place.count == 1:
        yield ALONE
        return
    patience = timedelta(seconds=patience_s)
    on_gpus = bool(gpu_numbers(gpus)) or (not gpus.strip() and torch.cuda.is_available())
    try:
        start = max(patience, _START)
        store = _store(place, start)
        # Importing PyTorch takes one of them longer than another, which a short time limit is not meant for.
        store.set(f"recu/here/{place.rank}", "")
        store.wait([f"recu/here/{rank}" for rank in range(place.count)], start)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpus else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.count,
            timeout=patience,
        )
    except (RuntimeError, ValueError) as error:
        where = os.environ.get(STORE) or f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = " ".join(str(error).split())[:200]
        raise LostProcess(
            f"process {place.rank} of {place.count} does not find the others at {where} ({reason}): see that all"
            " were started with the same MASTER_ADDR and MASTER_PORT, which every machine can reach, and run the same"
            " command again"
        ) from error
    together = Processes(**vars(place), store=store)
    with together.saying_once():
        yield together
    dist.destroy_process_group()


def _store(place: Place, patience: timedelta) -> Any:
    """Where the processes leave each other values. Raises RuntimeError, and ConfigError as `joined`."""
    if STORE in os.environ:
        return dist.FileStore(os.environ[STORE])  # type: ignore[attr-defined]
    for name, value in _meeting_place(os.environ).items():
        os.environ.setdefault(name, value)
    store, _, _ = next(rendezvous("env://", place.rank, place.count, timeout=patience))
    return store


def speak_of_little() -> None:
    """Let a process that is not the first say warnings alone: the rest the first says for all."""
    for handler in logging.getLogger("recu").handlers:
        handler.setLevel(logging.WARNING)


def _meeting_place(environment: Mapping[str, str]) -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT of a Slurm step: its first machine, and a port of its own."""
    if "MASTER_ADDR" in environment and "MASTER_PORT" in environment:
        return {}
    nodes = environment.get("SLURM_STEP_NODELIST")
    if nodes is None:
        raise ConfigError(
            "several processes need MASTER_ADDR and MASTER_PORT in the environment, where they find each other: start"
            " them with torchrun or srun, or set both"
        )
    try:
        listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"cannot ask scontrol for the machines of {nodes} ({error}): set MASTER_ADDR") from error
    step = zlib.crc32(f"{environment.get('SLURM_JOB_ID')}.{environment.get('SLURM_STEP_ID')}".encode())
    return {"MASTER_ADDR": listed.stdout.split()[0], "MASTER_PORT": str(20000 + step % 20000)}
