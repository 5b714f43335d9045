"""From what a dataset is distributed as to a folder that training reads: one entry point, `prepare`.

Everything is written into a temporary folder beside the target and swapped in at the end, so the target is at any
moment either as it was or complete. ImageNet's temporary folder outlives an interruption and is continued.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from recu.base.errors import DataError, OutputError
from recu.base.files import atomic_write_text, canonical_json, check_ordinary, reading
from recu.base.imports import imported
from recu.base.text import encodable
from recu.data.index import ROOT_NAME
from recu.data.manifest import (
    FORMAT,
    MANIFEST_NAME,
    Manifest,
    Prepared,
    Source,
    fingerprint_of,
    read_manifest,
    write_manifest,
)
from recu.data.opening import SPLITS, check_contents, check_counts
from recu.data.prepare.content import RECORDS, Builder, Content, Request
from recu.data.prepare.download import fetch, sha256_of, verify_checksum
from recu.data.prepare.own_builder import check_stored
from recu.data.stamps import Local, hash_and_stamp, read_local, write_local
from recu.experiment.dataset_kinds import KINDS, find_kind, own_code
from recu.experiment.fit import storage_of, stored_size_of
from recu.experiment.schema import Dataset
from recu.experiment.source_state import LOCAL_NAME, inside, look_at, official_folder

_LOG = logging.getLogger(__name__)

ARCHIVES_FOLDER = "archives"
"""Beside the prepared folders; downloads are kept here."""


class _Other(Exception):
    """A folder does not hold what is asked for."""

    def __init__(self, reason: str, *, usable: bool) -> None:
        """`usable`: it holds whole prepared data of another kind, which others may count on."""
        super().__init__(reason)
        self.usable = usable


def prepare(
    name: str,
    dataset: Dataset,
    *,
    folder: Path,
    source: Path | None,
    workers: int,
    needed: tuple[str, ...] = SPLITS,
) -> Prepared:
    """Make `folder` hold the dataset and return it.

    Data prepared before is recognised and left alone if its settings, source and content are the same, and the code of
    a kind of one's own. A second process that prepares the same folder waits for the first and then uses its result.

    Args:
        name: the dataset's name in params/datasets.yaml.
        dataset: its entry.
        folder: where the prepared data goes; it must not hold anything else. A link is followed.
        source: local archive or folder; None takes what was prepared before, its source, or the published archive
            (downloaded into `archives/` beside `folder` if it is not there).
        workers: decoding processes; 0 or 1 decodes in this one.
        needed: splits that must be there; ("test",) is enough to evaluate.

    Raises:
        DataError: the source is missing, damaged or not of the expected form, or `folder` holds other files.
        OutputError: `folder` cannot be written.
    """
    request, place = _request(name, dataset, source, workers, needed, folder)
    try:
        return Prepared(folder, _recognise(request, place, adopt=False))
    except _Other:
        pass
    with _only_one(place):
        _tidy(place)
        try:
            manifest = _recognise(request, place, adopt=True)
            _keep_adopted(manifest, place)
        except _Other as other:
            if (place / MANIFEST_NAME).is_file():
                _LOG.info("preparing again: %s", other)
            manifest = _build(request, place, _source_again(request, place))
    return Prepared(folder, manifest)


def prepare_beside(
    name: str,
    dataset: Dataset,
    *,
    data_dir: Path,
    source: Path | None,
    workers: int,
    needed: tuple[str, ...] = SPLITS,
) -> Prepared:
    """As `prepare`, below `data_dir`, for one command: prepared data that others count on is not replaced.

    `data_dir/name` is taken if it is free or holds what is asked for; otherwise the source gets a folder of its own,
    `data_dir/name@` with 8 hexadecimal digits of the source's path.

    Raises:
        DataError: as `prepare`; or without a source, what was prepared before was altered or lacks training images.
        OutputError: a folder cannot be written.
    """
    folder = data_dir / name
    request, place = _request(name, dataset, source, workers, needed, folder)
    try:
        return Prepared(folder, _recognise(request, place, adopt=True))
    except _Other:
        pass
    with _only_one(place):
        _tidy(place)
        try:
            return Prepared(folder, _recognise(request, place, adopt=True))
        except _Other as other:
            if not other.usable:
                return Prepared(folder, _build(request, place, _source_again(request, place)))
            if source is None and isinstance(other.__cause__, DataError):
                raise other.__cause__ from None
            reason = other
    source = _source_again(request, place)
    path = b"" if source is None else os.fsencode(os.path.realpath(source))
    own = data_dir / f"{name}@{hashlib.sha256(path).hexdigest()[:8]}"
    _LOG.info("%s stays as it is (%s); using %s", folder, reason, own)
    return prepare(name, dataset, folder=own, source=source, workers=workers, needed=needed)


def _request(
    name: str, dataset: Dataset, source: Path | None, workers: int, needed: tuple[str, ...], folder: Path
) -> tuple[Request, Path]:
    """What is asked for, and the folder that `folder` is or links to. Raises DataError: the source cannot be one."""
    place = Path(os.path.realpath(folder))
    if find_kind(dataset.kind).shipped and source is not None:
        raise DataError(f"{name} is shipped with scikit-learn; leave out its source ({source})")
    if source is not None and not source.exists():
        raise DataError(f"source of {name}: {source} does not exist; {dataset.obtain or 'give an archive or folder'}")
    if source is not None and Path(os.path.realpath(source)).is_relative_to(place):
        raise DataError(f"{source} is where {name} is prepared: give what it was prepared from, or no source")
    source = None if source is None else inside(dataset, source)
    return Request(name, dataset, source, workers, needed), place


def describe_source(source: Path) -> Source:
    """Name, size and content of a local source. Raises DataError: it cannot be read."""
    if source.is_dir():
        return Source(name=encodable(source.name), size_bytes=0, checksum=None)
    with reading(source, DataError):
        check_ordinary(source)
        return Source(name=encodable(source.name), size_bytes=source.stat().st_size, checksum=sha256_of(source))


def _recognise(request: Request, folder: Path, *, adopt: bool) -> Manifest:
    """The manifest of `folder` if it is what preparing would give, content included.

    Args:
        request: what is asked for.
        folder: where it may have been prepared.
        adopt: accept images of which only settings changed that act when they are loaded (e.g. the mean); the manifest
            returned then has the new ones.

    Raises:
        DataError: its numbers are not those that the dataset's entry expects.
        _Other: it is not.
    """
    if not (folder / MANIFEST_NAME).is_file():
        raise _Other("nothing is prepared yet", usable=False)
    try:
        manifest = read_manifest(folder)
    except DataError as error:
        raise _Other(str(error), usable=False) from error
    name, dataset, source = request.name, request.dataset, request.source
    if manifest.identity != dataset.identity():
        if not (adopt and _same_images(name, dataset, manifest)):
            raise _Other(f"{name} has other settings in params/datasets.yaml than it was prepared with", usable=True)
        identity = dataset.identity()
        seen = {"identity": identity, "fingerprint": fingerprint_of(manifest.content, identity)}
        manifest = manifest.model_copy(update=seen)
    if read_local(folder).code != own_code(dataset.kind):
        raise _Other(f"it was made by other code of dataset kind {dataset.kind!r} than there is now", usable=True)
    if source is not None and not _same_source(folder, manifest, dataset, source):
        raise _Other(f"it was made from another source than {source}, or that has changed", usable=True)
    prepared = Prepared(folder, manifest)
    try:
        check_contents(prepared, request.needed)
    except DataError as error:
        raise _Other(str(error), usable=True) from error
    check_counts(name, manifest.classes, manifest.splits, dataset)
    return manifest


def _same_images(name: str, dataset: Dataset, manifest: Manifest) -> bool:
    """Whether preparing the dataset would store the images that are stored."""
    return (
        manifest.dataset == name
        and all(manifest.identity.get(field) == dataset.identity()[field] for field in ("kind", "num_classes"))
        and manifest.storage == storage_of(dataset)
        and manifest.stored_size == stored_size_of(dataset)
    )


def _keep_adopted(manifest: Manifest, folder: Path) -> None:
    if read_manifest(folder).identity == manifest.identity:
        return
    try:
        write_manifest(folder, manifest)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    _LOG.info("kept the stored images of %s: only settings of their loading changed", manifest.dataset)


def _same_source(folder: Path, manifest: Manifest, dataset: Dataset, source: Path) -> bool:
    known, now = read_local(folder), look_at(dataset, source)
    if known.source == now:
        return True
    # An archive that was copied or touched: the content decides. Of a folder it is compared when it is prepared again.
    if not source.is_file() or sha256_of(source) != manifest.source.checksum:
        return False
    with suppress(OutputError):
        write_local(folder, replace(known, source=now))
    return True


def _source_again(request: Request, folder: Path) -> Path | None:
    """The source to prepare `folder` from: the one given, the one it was made from, or None for the published one."""
    known = read_local(folder).source
    if request.source is not None or known is None:
        return request.source
    if Path(known.path).exists():
        return Path(known.path)
    if any(archive.url for archive in request.dataset.archives):
        return None
    raise DataError(
        f"{folder} was made from {known.path}, which is not there any more: give the place where it is now to"
        f" `recu prepare {request.name}` with --source"
    )


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; wait, and say so, while another process holds it."""
    from filelock import FileLock, Timeout

    made = not folder.parent.exists()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _LOG.warning("another process is preparing %s; waiting for it", folder)
            lock.acquire()
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        yield
    except BaseException:
        if made:
            _take_back(folder.parent, Path(lock.lock_file).name)
        raise
    finally:
        lock.release()


def _take_back(data_dir: Path, lock: str) -> None:
    """Remove the folder that was made for data that could not be prepared, if nothing is in it."""
    with suppress(OSError):
        (data_dir / ARCHIVES_FOLDER).rmdir()
    with suppress(OSError):
        if list(data_dir.iterdir()) == [data_dir / lock]:
            (data_dir / lock).unlink()  # who waits for it notices
            data_dir.rmdir()


def _refuse_foreign(folder: Path) -> None:
    """Keep the swap from deleting files that this program did not write."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, expected a folder for prepared data; move it away")
    foreign = sorted(entry.name for entry in folder.iterdir() if not _is_ours(entry.name))
    if foreign:
        message = f"{folder} holds files that are no prepared data ({', '.join(foreign[:3])})"
        raise DataError(f"{message}; choose another data folder or move them")


def _is_ours(name: str) -> bool:
    ours = (MANIFEST_NAME, LOCAL_NAME, ROOT_NAME, "images", RECORDS)
    return name in ours or name.endswith((".npy", ".bin", ".spool", ".part", "_files.txt"))


def _build(request: Request, folder: Path, source: Path | None) -> Manifest:
    _refuse_foreign(folder)
    name, dataset = request.name, request.dataset
    source = source if source is not None else _published_source(request, folder)
    before = None if source is None else look_at(dataset, source)
    known = Local(before, {}, own_code(dataset.kind))
    resumable = find_kind(dataset.kind).resumable
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.preparing")
    try:
        if resumable:
            temporary = _resumable_folder(request, folder, known)
        else:
            temporary.mkdir()
        described, content = _convert(replace(request, source=source), temporary)
        if source is not None and look_at(dataset, source) != before:
            raise DataError(f"{source} changed while it was read: prepare again when nothing writes there any more")
        check_counts(name, content.classes, content.splits, dataset)
        if len(set(content.digests.values())) < len(content.digests):
            raise DataError(f"{source}: its test images are its training images; give other ones to test on")
        for note in content.overlap(temporary):
            _LOG.warning("%s", note)
            content = replace(content, notes=(*content.notes, note))
        manifest = _write_manifest(request, described, content, known, temporary)
        if resumable:
            os.sync()  # a million files were left to the system's own time; the manifest's presence vouches for them
        _swap(temporary, folder)
        shutil.rmtree(folder / RECORDS, ignore_errors=True)
        return manifest
    except OSError as error:
        raise _cannot_write(folder, error) from error
    finally:
        if not resumable:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_manifest(request: Request, source: Source, content: Content, known: Local, folder: Path) -> Manifest:
    """Hash the files of `folder` and write its manifest, last."""
    listed = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.endswith("_stamps.bin")]
    hashed = {path.name: hash_and_stamp(path) for path in listed}
    files = {name: (digest.hex(), stamp) for name, (digest, stamp) in hashed.items()}
    identity = request.dataset.identity()
    manifest = Manifest(
        format=FORMAT,
        dataset=request.name,
        identity=identity,
        storage=content.storage,
        splits=content.splits,
        classes=content.classes,
        content=content.digests,
        fingerprint=fingerprint_of(content.digests, identity),
        source=source,
        stored_size=content.stored_size,
        files={name: digest for name, (digest, _) in files.items()},
        notes=content.notes,
    )
    write_local(folder, replace(known, files=files))
    write_manifest(folder, manifest)
    return manifest


def _resumable_folder(request: Request, folder: Path, known: Local) -> Path:
    """The work folder that continuations share; begun anew if its source, splits or user's code were others."""
    work = folder.with_name(f".{folder.name}.partial")
    state = work / RECORDS / "source.json"
    place, code = known.source, [known.code] if known.code else []
    described = canonical_json([asdict(place) if place else None, request.needed, *code])
    if work.exists() and not (state.exists() and state.read_text() == described):
        shutil.rmtree(work)
    state.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(state, described)
    return work


def _published_source(request: Request, folder: Path) -> Path | None:
    dataset = request.dataset
    if find_kind(dataset.kind).shipped:
        return None
    obtain = dataset.obtain or "get its files"
    if len(dataset.archives) != 1 or not dataset.archives[0].url:
        raise DataError(
            f"{dataset.title} cannot be downloaded by this program: {obtain}, and give its path with --data_path, or to"
            f" the workflow with sources: {{{request.name}: PATH}} in params/config.yaml"
        )
    return fetch(dataset.archives[0], folder.parent / ARCHIVES_FOLDER, obtain=obtain)


def _convert(request: Request, out: Path) -> tuple[Source, Content]:
    """Write the dataset's files into `out`."""
    if request.source is None:
        content = _built(request, out)
        if content.shipped_with is None:
            raise TypeError(f"the builder of {request.dataset.kind} gives no `shipped_with`, and its kind is shipped")
        return content.shipped_with, content
    described = describe_source(request.source)
    archives = request.dataset.archives
    if request.source.is_file() and len(archives) == 1:
        verify_checksum(request.source, archives[0], instead=_instead(request.dataset, request.source))
    _LOG.info("preparing %s from %s", request.name, request.source)
    return described, _built(request, out)


def _built(request: Request, out: Path) -> Content:
    kind = request.dataset.kind
    builder: Builder = imported(find_kind(kind).builder)
    content = builder(request, out)
    return content if kind in KINDS else check_stored(content, request, out)


def _instead(dataset: Dataset, archive: Path) -> str:
    """What can be given in place of an archive that is not the published one, for a message."""
    folder = official_folder(archive.parent, dataset)
    if folder != archive.parent:
        return f", or give {folder}, which lies beside it"
    return ", or give a folder that it was extracted to"


def _swap(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
        return
    if os.path.ismount(folder):
        _fill(temporary, folder)
        return
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old")
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _fill(temporary: Path, folder: Path) -> None:
    """Replace the content of a folder that cannot be renamed; the manifest goes first and comes last."""
    ours = [entry for entry in folder.iterdir() if _is_ours(entry.name)]
    for entry in sorted(ours, key=lambda entry: entry.name != MANIFEST_NAME):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for entry in sorted(temporary.iterdir(), key=lambda entry: entry.name == MANIFEST_NAME):
        shutil.move(entry, folder / entry.name)


def _tidy(folder: Path) -> None:
    """Clear away what killed preparations of this folder left; the lock says that none is running."""
    leftover = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f-]+\.(preparing|old)")
    for path in [path for path in folder.parent.iterdir() if leftover.fullmatch(path.name)]:
        if path.name.endswith(".old") and not folder.exists():
            path.rename(folder)  # killed in the middle of a swap
        else:
            shutil.rmtree(path, ignore_errors=True)


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write prepared data to {folder}: {error.strerror or error}; check space and permissions"
    )
