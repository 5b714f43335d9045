"""ImageNet (ILSVRC 2012) from the files as they are distributed: a tar of class tars, validation images, the devkit.

Extraction is cut into jobs, one a class and one a few hundred validation images. A finished job leaves a record, so an
interrupted preparation continues where it stopped.
"""

from __future__ import annotations

import io
import logging
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recu.base.errors import DataError, ResultError
from recu.base.files import atomic_write_json, read_json
from recu.data.decoding import MAX_IMAGE_BYTES, map_in_processes
from recu.data.index import HERE, IndexedFile
from recu.data.prepare import image_tree
from recu.data.prepare.archives import iter_members, iter_tar_headers, open_tar, read_tar_member
from recu.data.prepare.class_tree import TEST_IS_ENOUGH, more
from recu.data.prepare.content import RECORDS, Content, Request, stored_files
from recu.data.prepare.download import verify_checksum
from recu.experiment.dataset_kinds import KINDS
from recu.experiment.schema import Archive
from recu.experiment.source_state import reads_archives

_LOG = logging.getLogger(__name__)

ARCHIVES = TRAIN_ARCHIVE, VALIDATION_ARCHIVE, DEVKIT_ARCHIVE = KINDS["imagenet"].archives
"""As they are distributed."""

_WORDNET_ID = re.compile(r"n\d{8}", re.ASCII)
_CLASS_TAR = re.compile(r"(n\d{8})\.tar")
_VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_MAX_CLASS_TAR_BYTES = 4 << 30
_IMAGES_PER_JOB = 500


@dataclass(frozen=True, slots=True)
class Devkit:
    """What the development kit tells."""

    validation_classes: tuple[str, ...]
    """WordNet id of validation image 1, 2, ..."""
    train_counts: dict[str, int]
    """Published number of training images by WordNet id."""


@dataclass(frozen=True, slots=True)
class Section:
    """A file inside an uncompressed tar: where its bytes lie."""

    name: str
    offset: int
    size: int
    class_name: str


@dataclass(frozen=True, slots=True)
class Job:
    """Images to be extracted by one process."""

    name: str
    archive: Path
    sections: tuple[Section, ...]
    is_class_tar: bool
    """Whether the only section is a tar of its own; otherwise each section is an image."""
    out: Path
    """Work folder."""


def build(request: Request, out: Path) -> Content:
    """Extract the distributed files, or list a folder of class folders; a `recu.data.prepare.content.Builder`."""
    dataset, source = request.dataset, request.path
    if source.is_file():
        raise DataError(f"{source} is one file, expected a folder: {dataset.obtain}")
    if not reads_archives(dataset, source):
        content = image_tree.build(request, out)
        check_classes(content.classes, source)
        return content
    return _extract(request, out)


def _extract(request: Request, out: Path) -> Content:
    """Extract the distributed files into out/images/{train,val}/<WordNet id>/ and list them, by WordNet id.

    What a previous call left finished in `out` is kept. Archives of which no checksum is published are not checked.

    Raises:
        DataError: a file is missing, damaged or incomplete, or the counts differ from the devkit's.
        OSError: `out` cannot be written.
    """
    source, dataset = request.path, request.dataset
    missing = [name for name in ARCHIVES if not (source / name).is_file()]
    without_training = missing == [TRAIN_ARCHIVE]
    if missing and not (without_training and "train" not in request.needed):
        message = f"{source} lacks {', '.join(missing)}; expected the files {', '.join(ARCHIVES)}"
        enough = TEST_IS_ENOUGH if without_training else ""
        raise DataError(f"{message} or the folders train/<class>/* and val/<class>/*{enough}")
    (out / RECORDS).mkdir(parents=True, exist_ok=True)
    _verify_once(source, out, [archive for archive in dataset.archives if archive.filename not in missing])
    devkit = read_devkit(source / DEVKIT_ARCHIVE)
    jobs = {"test": list(_validation_jobs(source / VALIDATION_ARCHIVE, devkit, out))}
    if not without_training:
        jobs = {"train": _train_jobs(source / TRAIN_ARCHIVE, devkit, dataset.num_classes, out)} | jobs
    records = _run([job for split in jobs.values() for job in split], devkit, request.workers)
    files = {split: [file for job in listed for file in records[job.name]] for split, listed in jobs.items()}
    for split, found in files.items():
        _check_counts(split, found, devkit, source)
    return stored_files(tuple(sorted(devkit.train_counts)), files, out, root=HERE)


def check_classes(classes: Iterable[str], source: Path) -> None:
    """Refuse class folders whose order is not that of ImageNet's labels, which networks from elsewhere were trained on.

    Raises:
        DataError: a class is not called by its WordNet id.
    """
    other = [name for name in classes if not _WORDNET_ID.fullmatch(name)]
    if other:
        raise DataError(
            f"{source}: class folder {other[0]!a}{more(other)} is not called by a WordNet id like n01440764, whose"
            " order is that of ImageNet's labels: rename the folders, or take kind imagefolder for other classes"
        )


def read_devkit(path: Path) -> Devkit:
    """Ground truth and class table of ILSVRC2012_devkit_t12.tar.gz.

    Raises:
        DataError: a part is missing or of another form.
    """
    parts = {"meta.mat": b"", "ILSVRC2012_validation_ground_truth.txt": b""}
    for member in iter_members(path, lambda name: name.rpartition("/")[2] in parts):
        name = member.name.rpartition("/")[2]
        if not member.is_folder and member.data:
            if parts[name]:
                raise DataError(f"{path} holds {name} twice; fetch it again")
            parts[name] = member.data
    for name, data in parts.items():
        if not data:
            raise DataError(f"{path} lacks {name}; fetch it again")
    classes = _class_table(parts["meta.mat"], path)
    try:
        truth = [int(line) for line in parts["ILSVRC2012_validation_ground_truth.txt"].split()]
        labels = tuple(classes[number][0] for number in truth)
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: the validation ground truth has a bad entry ({error}); fetch it again") from error
    return Devkit(labels, dict(classes.values()))


def _class_table(data: bytes, path: Path) -> dict[int, tuple[str, int]]:
    """ILSVRC2012 id to WordNet id and number of training images, of the classes themselves (not their ancestors)."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        rows = [synset for synset in synsets.ravel() if int(synset["num_children"]) == 0]
        return {int(row["ILSVRC2012_ID"]): (str(row["WNID"]), int(row["num_train_images"])) for row in rows}
    except Exception as error:  # loadmat raises nearly anything on damaged files
        raise DataError(f"{path}: meta.mat cannot be read ({error}); fetch it again") from error


def _verify_once(source: Path, out: Path, archives: Sequence[Archive]) -> None:
    """Check the published checksums, which takes minutes, once for all continuations."""
    done = out / RECORDS / "verified.json"
    if done.exists():
        return
    for archive in archives:
        _LOG.info("verifying %s", archive.filename)
        verify_checksum(source / archive.filename, archive)
    atomic_write_json(done, [archive.checksum for archive in archives])


def _class_sections(archive: Path, num_classes: int) -> list[Section]:
    sections = []
    with open_tar(archive) as tar:
        for name, info in iter_tar_headers(tar, archive, _MAX_CLASS_TAR_BYTES):
            match = _CLASS_TAR.fullmatch(name)
            if match is None or not info.isfile():
                raise DataError(f"{archive} holds {name!r}, expected class tars like n01440764.tar; fetch it again")
            sections.append(Section(name, info.offset_data, info.size, match[1]))
    found = {section.class_name for section in sections}
    if len(found) != len(sections) or len(found) != num_classes:
        message = f"{archive} holds {len(sections)} class tars ({len(found)} different), expected {num_classes}"
        raise DataError(f"{message}; it is incomplete or another file")
    return sections


def _train_jobs(archive: Path, devkit: Devkit, num_classes: int, out: Path) -> list[Job]:
    sections = _class_sections(archive, num_classes)
    if {section.class_name for section in sections} != set(devkit.train_counts):
        raise DataError(f"the classes of {archive} are not those of {DEVKIT_ARCHIVE}; fetch both again")
    return [Job(f"train-{section.class_name}", archive, (section,), True, out) for section in sections]


def _validation_jobs(archive: Path, devkit: Devkit, out: Path) -> Iterator[Job]:
    sections: dict[str, Section] = {}
    with open_tar(archive) as tar:
        for name, info in iter_tar_headers(tar, archive, MAX_IMAGE_BYTES):
            if info.isdir():
                continue
            match = _VALIDATION_IMAGE.fullmatch(name.rpartition("/")[2])
            if match is None or not 1 <= int(match[1]) <= len(devkit.validation_classes):
                raise DataError(f"{archive} holds {name!r}, which the devkit's ground truth does not know")
            if match[0] in sections:
                raise DataError(f"{archive} holds {match[0]} twice; fetch it again")
            class_name = devkit.validation_classes[int(match[1]) - 1]
            sections[match[0]] = Section(match[0], info.offset_data, info.size, class_name)
    if len(sections) != len(devkit.validation_classes):
        message = f"{archive} holds {len(sections)} images, the devkit's ground truth {len(devkit.validation_classes)}"
        raise DataError(f"{message}; it is incomplete")
    ordered = [sections[name] for name in sorted(sections)]
    for number, start in enumerate(range(0, len(ordered), _IMAGES_PER_JOB)):
        yield Job(f"val-{number:04}", archive, tuple(ordered[start : start + _IMAGES_PER_JOB]), False, out)


def _run(jobs: list[Job], devkit: Devkit, workers: int) -> dict[str, list[IndexedFile]]:
    """Files by job name; finished jobs are not run again."""
    found = {job.name: _finished(job) for job in jobs}
    records = {name: files for name, files in found.items() if files is not None}
    open_jobs = [job for job in jobs if job.name not in records]
    done = sum(map(len, records.values()))
    if done:
        _LOG.info("continuing: %d images were extracted before", done)
    total = len(devkit.validation_classes)
    if any(job.is_class_tar for job in jobs):
        total += sum(devkit.train_counts.values())
    with tqdm(desc="extracting", total=total, initial=done, unit=" images", disable=None) as bar:
        for job, files in zip(open_jobs, map_in_processes(run_job, open_jobs, workers), strict=True):
            records[job.name] = files
            bar.update(len(files))
    return records


def run_job(job: Job) -> list[IndexedFile]:
    """Extract the job's images and leave its record.

    Raises:
        DataError: the archive is damaged or holds something else.
        OSError: the work folder cannot be written.
    """
    files = _extract_class(job) if job.is_class_tar else _extract_images(job)
    record = [[file.class_name, file.path, file.size] for file in files]
    atomic_write_json(job.out / RECORDS / f"{job.name}.json", record)
    return files


def _extract_class(job: Job) -> list[IndexedFile]:
    section = job.sections[0]
    relative = f"images/train/{section.class_name}"
    final = job.out / relative
    part = final.with_name(f".{section.class_name}.part")
    for leftover in (part, final):
        shutil.rmtree(leftover, ignore_errors=True)
    part.mkdir(parents=True)
    label = f"{job.archive}: {section.name}"
    files = []
    with job.archive.open("rb") as stream:
        try:
            tar = tarfile.open(fileobj=_Window(stream, section.offset, section.size), mode="r:")  # noqa: SIM115
        except tarfile.TarError as error:
            raise DataError(f"{label} is truncated or damaged ({error}); fetch {job.archive.name} again") from error
        with tar:
            for name, info in iter_tar_headers(tar, label, MAX_IMAGE_BYTES):
                if "/" in name or not info.isfile():
                    raise DataError(f"{label} holds {name!r}, expected images only")
                if (part / name).exists():
                    raise DataError(f"{label} holds {name!r} twice; fetch {job.archive.name} again")
                (part / name).write_bytes(read_tar_member(tar, info, label))
                files.append(IndexedFile(section.class_name, f"{relative}/{name}", info.size))
    part.rename(final)
    return files


def _extract_images(job: Job) -> list[IndexedFile]:
    files = []
    with job.archive.open("rb") as stream:
        for section in job.sections:
            stream.seek(section.offset)
            data = stream.read(section.size)
            if len(data) != section.size:
                raise DataError(f"{job.archive} is truncated: it ends inside {section.name}; fetch it again")
            path = f"images/val/{section.class_name}/{section.name}"
            target = job.out / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            files.append(IndexedFile(section.class_name, path, section.size))
    return files


def _finished(job: Job) -> list[IndexedFile] | None:
    """The files a record names, if all are there in full (a power cut may have taken what was not yet on the disk)."""
    path = job.out / RECORDS / f"{job.name}.json"
    if not path.exists():
        return None
    try:
        files = [IndexedFile(*row) for row in read_json(path)]
        complete = all((job.out / file.path).stat().st_size == file.size for file in files)
    except (ResultError, OSError, TypeError):
        return None
    return files if complete else None


def _check_counts(split: str, files: list[IndexedFile], devkit: Devkit, source: Path) -> None:
    expected: dict[str, int] = dict(devkit.train_counts)
    if split == "test":
        expected = {name: devkit.validation_classes.count(name) for name in devkit.train_counts}
    found = {name: 0 for name in expected}
    for file in files:
        found[file.class_name] += 1
    for name, count in expected.items():
        if found[name] != count:
            message = f"{source}: class {name} has {found[name]} {split} images, the devkit says {count}"
            raise DataError(f"{message}; an archive is incomplete")


class _Window(io.RawIOBase):
    """A part of an open file, as a file of its own."""

    def __init__(self, stream: Any, offset: int, size: int) -> None:
        self._stream, self._offset, self._size, self._position = stream, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        self._stream.seek(self._offset + self._position)
        count = self._stream.readinto(memoryview(buffer)[: max(0, self._size - self._position)])
        self._position += count
        return count
