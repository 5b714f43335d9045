"""Something happens at one single write: counted over everything a process writes below a folder."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.chaos import forking
from tests.chaos.laboratory import Laboratory, Place, Stage, commands

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_COUNTED = "writes: "


def disk_full() -> None:
    """Fail a write as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die() -> None:
    """End this process as SIGKILL does, at exactly this write."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Writes:
    """Counts what writes below `folder`; every one from number `first` on does `fault` instead.

    Counted are files opened for writing, writes and flushes of the files that `recu.base.files` writes, new folders,
    renames and hard links.
    """

    folder: Path
    first: int | None = None
    fault: Callable[[], None] = disk_full
    count: int = 0

    def install(self) -> None:
        """Act on this process from now on; there is no way back, so only a child may do it."""
        sys.addaudithook(self._audit)
        open_descriptor, flush = os.fdopen, os.fsync
        writes = self

        class Stream(io.BufferedWriter):
            def write(self, data: Any) -> int:
                writes.note()
                return super().write(data)

        def fdopen(descriptor: int, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if mode == "wb":
                return Stream(io.FileIO(descriptor, "wb"))
            return open_descriptor(descriptor, mode, *arguments, **named)

        def fsync(descriptor: int) -> None:
            self.note()
            flush(descriptor)

        os.fdopen, os.fsync = fdopen, fsync

    def note(self) -> None:
        """Count one write, or do the fault."""
        self.count += 1
        if self.first is not None and self.count > self.first:
            self.fault()

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writing = isinstance(flags, int) and flags & _WRITING
        elif event in ("os.mkdir", "os.rename", "os.link"):
            path, writing = arguments[0], True
        else:
            return
        if writing and isinstance(path, (str, bytes, os.PathLike)) and self._is_below(os.fsdecode(path)):
            self.note()

    def _is_below(self, path: str) -> bool:
        return path.startswith(f"{self.folder}/")


def with_fault(stage: Stage, place: Place, first: int | None, fault: Callable[[], None]) -> Callable[[], int]:
    """The stage's commands with `fault` from write number `first` on; they print how many writes there were."""
    run = commands(*stage.commands(place))

    def action() -> int:
        writes = Writes(place.folder, first, fault)
        writes.install()
        code = run()
        print(f"{_COUNTED}{writes.count}")
        return code

    return action


def count_writes(lab: Laboratory, stage: Stage) -> int:
    """How many writes a whole run of the stage makes."""
    place = stage.fresh()
    ended = forking.run(with_fault(stage, place, None, disk_full))
    lab.drop(place)
    return int(ended.output.rpartition(_COUNTED)[2])


def calm_stages(lab: Laboratory) -> list[Stage]:
    """Every stage, training with its ordinary checkpoints only: else hundreds of writes would be alike."""
    train = lab.stages["train"]
    calm = replace(train, commands=lambda place: [lab.train_command(place, save_minutes="10")])
    return [calm if stage is train else stage for stage in lab.stages.values()]
