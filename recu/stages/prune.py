"""What nothing on disk needs any more, and removing it under the training's lock."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from recu.base.errors import CheckpointError, OutputError
from recu.base.files import abandoned_files, hash_file, link_or_copy, read_object
from recu.base.lock import only_one
from recu.experiment import paths
from recu.results.provenance import is_tracked
from recu.stages.du import Disk, look_at
from recu.stages.resume import own_state
from recu.stages.trained import publish, read_finished

_BESIDE = {
    "previous": "the checkpoint before the last one, which is whole",
    "next": "a checkpoint that a killed job did not finish",
    "damaged": "a damaged checkpoint; training went on from another",
}


@dataclass(frozen=True, kw_only=True)
class Spare:
    """Something that nothing needs."""

    path: Path
    why: str
    files: tuple[Path, ...]
    """What goes."""
    remove: Callable[[], None]
    lock: Path | None = None
    """Folder whose lock guards it."""

    @property
    def bytes(self) -> int:
        """What removing it frees: a file that keeps another name frees nothing."""
        found = [seen for file in self.files if (seen := look_at(file)) is not None]
        names = Counter(each.st_ino for each in found)
        return sum({each.st_ino: each.st_size for each in found if names[each.st_ino] == each.st_nlink}.values())

    def free(self) -> None:
        """Remove it.

        Raises:
            RecuError: a training uses it just now, it turns out to be needed, or it cannot be removed.
        """
        guard = nullcontext() if self.lock is None else only_one(self.lock, str(self.path), wait_s=0)
        with guard:
            try:
                self.remove()
            except OSError as error:
                raise OutputError(f"cannot remove {self.path}: {error.strerror or error}; check permissions") from error


def spares(disk: Disk) -> list[Spare]:
    """Everything that nothing needs, but for what git tracks or params/ names.

    Raises:
        ConfigError: params/ cannot be read.
    """
    found = (*_of_runs(disk), *_of_results(disk), *_temporary(disk), *_old_loops())
    tops = {spare.path for spare in found}
    return [
        spare
        for spare in found
        if tops.isdisjoint(spare.path.parents)
        and not is_tracked(spare.path)
        and not disk.named_among(spare.path, *spare.files)
    ]


def _of_runs(disk: Disk) -> Iterator[Spare]:
    for identifier, state in disk.states():
        if disk.needs_state(identifier, state.name):
            results = paths.train_folder(disk.results, identifier)
            yield from _of_state(state, results, state.parent, keep=disk.config.keep_resumable)
        else:
            why = "a state of parameters that no experiment in params/ has, or one that was moved aside"
            yield _folder(state, why, lock=state.parent)


def _of_results(disk: Disk) -> Iterator[Spare]:
    """Of trainings of the command line, whose state lies beside their result."""
    for file in sorted(disk.results.rglob(paths.CHECKPOINT)):
        if disk.runs not in file.parents:
            yield from _of_state(file.parent, file.parent, file.parent, keep=disk.config.keep_resumable)


def _of_state(state: Path, results: Path, lock: Path, *, keep: bool) -> Iterator[Spare]:
    left = sorted(file for file in paths.state_files(state / paths.CHECKPOINT) if file.exists())
    source = next((each for each in (state, results) if _tells_of(each, state)), None)
    if source is None:
        for word, why in _BESIDE.items():
            file = paths.beside(state / paths.CHECKPOINT, word)
            if file in left:
                yield Spare(path=file, why=why, files=(file,), remove=partial(_drop, file, state), lock=lock)
        return
    if left and not keep and not _was_to_be_kept(state, source):
        why = "the state of a finished training, for more epochs"
        remove = partial(_finish, state, source)
        yield Spare(path=state / paths.CHECKPOINT, why=why, files=tuple(left), remove=remove, lock=lock)
    best, published = state / paths.BEST_CHECKPOINT, results / paths.BEST_CHECKPOINT
    if best.is_file() and published.is_file() and not best.samefile(published):
        why = f"a second copy of {published}"
        yield Spare(path=best, why=why, files=(best,), remove=partial(_join, best, published), lock=lock)


def _tells_of(folder: Path, state: Path) -> bool:
    """Whether metrics.json in `folder` is of the training whose state this is, as far as names say."""
    metrics = read_object(folder / paths.METRICS)
    return bool(metrics) and (folder == state or metrics.get("spec_hash") == state.name)


def _was_to_be_kept(state: Path, source: Path) -> bool:
    """Whether a finished training was told to keep its state, by `--keep_resumable` or what params/ said then.

    One that was not told so frees it before its job ends well. A job that was killed right before may have been told,
    too: then the best checkpoint has what only continuing needs.
    """
    if read_object(state / paths.RUN).get("status") == "FINISHED":
        return True
    from recu.training.checkpoint import lacks_momenta, read_checkpoint

    try:
        return not lacks_momenta(read_checkpoint(source / paths.BEST_CHECKPOINT))
    except CheckpointError:
        return False  # `_finish` says what is wrong with it, and keeps the state


def _finish(state: Path, source: Path) -> None:
    """Do what a training that ended between publishing and freeing its state left undone.

    Raises:
        RecuError: what `source` holds is not whole, or is not what the state's training gave.
    """
    from recu.training.checkpoint import free_state

    record, found = read_finished(source), own_state(state, repair=False)
    if (
        record is None
        or found is None
        or not found.finished(record.epochs)
        or any(found.ours[name] != getattr(record, name) for name in ("spec_hash", "data_fingerprint"))
    ):
        raise CheckpointError(f"{state} is kept: its training is not the finished one of {source / paths.METRICS}")
    publish(state, source)
    free_state(state / paths.CHECKPOINT)


def _drop(file: Path, state: Path) -> None:
    """Remove what stands beside a checkpoint. Raises CheckpointError where the checkpoint itself is not whole."""
    from recu.training.checkpoint import read_checkpoint

    read_checkpoint(state / paths.CHECKPOINT)
    file.unlink()


def _join(copy: Path, original: Path) -> None:
    if hash_file(copy) != hash_file(original):
        raise OutputError(f"{copy} is kept: its content is not that of {original}")
    link_or_copy(original, copy)


def _temporary(disk: Disk) -> Iterator[Spare]:
    config, why = disk.config, "left by a job that was killed"
    folders = [Path(each) for each in (config.results_dir, config.runs_dir, config.reports_dir, config.data_dir)]
    for file in abandoned_files(folders):
        yield Spare(path=file, why=why, files=(file,), remove=partial(file.unlink, missing_ok=True))


def _old_loops() -> Iterator[Spare]:
    from recu.kernels.machine_code import old_folders

    for folder in old_folders():
        yield _folder(folder, "compiled loops of other code or another processor")


def _folder(folder: Path, why: str, lock: Path | None = None) -> Spare:
    files = tuple(file for file in folder.rglob("*") if not file.is_dir() or file.is_symlink())
    return Spare(path=folder, why=why, files=files, remove=partial(shutil.rmtree, folder), lock=lock)


def freed(found: Iterable[Spare], below: Path) -> int:
    """Bytes that removing those at or below a folder frees."""
    return sum(spare.bytes for spare in found if below == spare.path or below in spare.path.parents)
