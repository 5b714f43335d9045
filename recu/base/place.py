"""Which of a job's processes this one is: what the launcher that started it says in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from recu.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Place:
    """A process among those of its job; the only one where nothing else is said."""

    rank: int = 0
    """Number of this process, from 0."""
    count: int = 1
    local_rank: int = 0
    """Its number on this machine."""
    local_count: int = 1
    """How many there are on this machine."""
    launcher: int | None = None
    """Process id of the launcher; None where it is not known to stay as long as they."""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @property
    def orphaned(self) -> bool:
        """Whether the launcher has ended, so that nobody would end these processes."""
        return self.launcher is not None and os.getppid() != self.launcher

    def of_this_machine(self, amount: int) -> int:
        """This process's part of an amount that is meant for the whole job: at least 1, and 0 of 0."""
        return max(1, amount // self.local_count) if amount else 0


ONLY = Place()
"""The one process that most jobs have."""


def place_of(environment: Mapping[str, str]) -> Place:
    """What torchrun says, else srun.

    Raises:
        ConfigError: it cannot be.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names, local_count = ("RANK", "WORLD_SIZE", "LOCAL_RANK"), _number(environment, "LOCAL_WORLD_SIZE", 1)
    elif "SLURM_STEP_NUM_TASKS" in environment:
        names, local_count = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"), _tasks_here(environment)
    elif "SLURM_PROCID" in environment and "MASTER_ADDR" in environment:
        # A batch script has these without any srun, and is one process: where they meet, somebody has to say.
        names, local_count = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"), _tasks_here(environment)
    else:
        return ONLY
    rank, count, local_rank = (_number(environment, *each) for each in zip(names, (0, 1, 0), strict=True))
    if rank >= count or local_rank >= max(local_count, 1):
        raise ConfigError(
            f"{names[0]}={rank}, {names[1]}={count} and {names[2]}={local_rank} (of {local_count}) in the environment"
            " cannot be: start the processes with torchrun or srun, or unset them for one process"
        )
    launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in environment else None
    if count == 1:
        return ONLY
    return Place(rank=rank, count=count, local_rank=local_rank, local_count=local_count, launcher=launcher)


def _tasks_here(environment: Mapping[str, str]) -> int:
    """How many of a Slurm step's processes are on this machine, of e.g. "4(x2),3"."""
    named = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_TASKS_PER_NODE") or "1"
    counts: list[int] = []
    try:
        for part in named.split(","):
            count, _, times = part.strip().rstrip(")").partition("(x")
            counts += [int(count)] * int(times or 1)
    except ValueError as error:
        raise ConfigError(
            f"SLURM_STEP_TASKS_PER_NODE={named} in the environment: expected e.g. 4(x2),3, as srun sets it"
        ) from error
    node = _number(environment, "SLURM_NODEID", 0)
    return counts[min(node, len(counts) - 1)]


def _number(environment: Mapping[str, str], name: str, usual: int) -> int:
    text = environment.get(name, str(usual))
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(f"{name}={text} in the environment: expected a number, as torchrun and srun set it")
    return int(text)
