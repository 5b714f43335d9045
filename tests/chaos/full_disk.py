"""A disk that fills up: once at each single write, injected; and for real on a small file system where one may be
mounted."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos import forking
from tests.chaos.kills import finish
from tests.chaos.laboratory import Laboratory, Stage
from tests.chaos.ledger import Ledger
from tests.chaos.writes import calm_stages, count_writes, disk_full, with_fault

_OK_OR_REFUSED = (0, 2)


def full_at_each_write(lab: Laboratory, ledger: Ledger, most: int, rng: random.Random) -> None:
    """Let the disk be full at each write of each stage, `most` of them a stage, then give it space again."""
    for stage in calm_stages(lab):
        total = count_writes(lab, stage)
        for full_at in sorted(rng.sample(range(total), min(most, total))):
            place = stage.fresh()
            ended = forking.run(with_fault(stage, place, full_at, disk_full))
            problem = ended.problem(*_OK_OR_REFUSED) or stage.half_done(place) or finish(lab, stage, place)
            ledger.add(f"disk full at a write: {stage.name}", problem and f"write {full_at} of {total}: {problem}")
            lab.drop(place)


def small_file_system(lab: Laboratory, ledger: Ledger, sizes: int, rng: random.Random) -> None:
    """Run each stage on file systems of random sizes that are too small, then enlarge them and run it again."""
    if not _may_mount(lab.folder):
        print("note: no file system may be mounted here; full disks are only injected", file=sys.stderr)
        return
    for stage in calm_stages(lab):
        needed = _kilobytes(_finished_place(lab, stage))
        for _ in range(sizes):
            place = stage.fresh()
            least = _kilobytes(place.folder) + 16
            # One stage leaves less than it finds.
            kilobytes = rng.randint(least, max(least, needed + 64))
            with _file_system(place.folder, kilobytes) as enlarge:
                ended = forking.run(stage.action(place))
                problem = ended.problem(*_OK_OR_REFUSED) or stage.half_done(place)
                enlarge()
                problem = problem or finish(lab, stage, place)
            ledger.add(f"small disk: {stage.name}", problem and f"{kilobytes} KB of {needed}: {problem}")
            lab.drop(place)


def _finished_place(lab: Laboratory, stage: Stage) -> Path:
    place = stage.fresh()
    forking.run(stage.action(place))
    return place.folder


def _kilobytes(folder: Path) -> int:
    # Whole pages, which is what a file takes here, under whatever number of names.
    sizes = {found.st_ino: found.st_size for found in (file.stat() for file in folder.rglob("*"))}
    return sum(4 + 4 * -(-size // 4096) for size in sizes.values())


def _may_mount(folder: Path) -> bool:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    probe = folder / "probe"
    probe.mkdir(exist_ok=True)
    with contextlib.suppress(subprocess.CalledProcessError), _file_system(probe, 64):
        return True
    return False


@contextmanager
def _file_system(folder: Path, kilobytes: int) -> Iterator[Callable[[], None]]:
    """A file system of this size at `folder`, with what was in it; yields what takes its limit away."""
    content = folder.with_name(f"{folder.name}-content")
    folder.rename(content)
    folder.mkdir()
    _call("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
    try:
        shutil.copytree(content, folder, dirs_exist_ok=True)
        shutil.rmtree(content)
        yield lambda: _call("mount", "-o", "remount,size=256m", str(folder))
    finally:
        _call("umount", "--lazy", str(folder))


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
