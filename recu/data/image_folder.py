"""Class folders of small images (`train/<class>/*`, `test|val/<class>/*`) turned into arrays."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from recu.data.archives import Member, iter_members
from recu.data.decoding import EncodedChunk, decode_chunk, is_image_name, map_in_processes
from recu.errors import DataError

_LOG = logging.getLogger(__name__)

SPLIT_FOLDERS = {"train": "train", "test": "test", "val": "test"}
"""Folder name to split."""
_CHUNK_IMAGES = 500


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path lies in a tree of class folders."""

    top: str
    """Folder above the splits, "" where there is none."""
    split_folder: str
    class_name: str
    file: str
    """Path below the class folder; "" for the class folder itself."""


def place_of(name: str) -> Place | None:
    """The place of a member, or None for whatever is no part of a class folder (a README, the split folder itself)."""
    parts = PurePosixPath(name).parts
    if any(part.startswith((".", "__MACOSX")) for part in parts):
        return None
    for depth in (0, 1):
        if len(parts) >= depth + 2 and parts[depth] in SPLIT_FOLDERS:
            return Place("/".join(parts[:depth]), parts[depth], parts[depth + 1], "/".join(parts[depth + 2 :]))
    return None


Layout = Callable[[str], Place | None]
"""Tells from a member's name where it lies among the class folders."""


@dataclass
class ClassTree:
    """Class folders seen so far; `check` tells whether they make a dataset."""

    counts: dict[str, dict[str, int]] = field(default_factory=lambda: {"train": {}, "test": {}})
    """Images by split and class, 0 for a folder without any."""
    _tops: dict[str, str] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def add(self, place: Place, source: Path, *, is_image: bool) -> None:
        """Take note of a class folder or of an image in it.

        Raises:
            DataError: two folders serve as one split, or the source holds the same image twice.
        """
        split = SPLIT_FOLDERS[place.split_folder]
        root = f"{place.top}/{place.split_folder}".lstrip("/")
        if self._tops.setdefault(split, root) != root:
            message = (
                f"{source} has both {self._tops[split]!r} and {root!r}, expected one folder for the {split} images"
            )
            raise DataError(f"{message}; remove one")
        classes = self.counts[split]
        classes.setdefault(place.class_name, 0)
        if is_image:
            key = f"{split}/{place.class_name}/{place.file}"
            if key in self._seen:
                raise DataError(f"{source} holds {root}/{place.class_name}/{place.file} twice; remove one")
            self._seen.add(key)
            classes[place.class_name] += 1

    def check(self, source: Path, num_classes: int) -> tuple[str, ...]:
        """Class names in label order.

        Raises:
            DataError: a split is missing, a class folder has no image, the splits' classes differ, or their number
                is wrong.
        """
        train, test = self.counts["train"], self.counts["test"]
        for split, folders in (("train", "train/<class>/*"), ("test", "test/<class>/* or val/<class>/*")):
            if not self.counts[split]:
                raise DataError(f"{source} has no {split} images; expected {folders}, below one common folder at most")
        for split, classes in self.counts.items():
            empty = sorted(name for name, count in classes.items() if count == 0)
            if empty:
                root = self._tops[split]
                raise DataError(
                    f"{source}: class folder {root}/{empty[0]} has no images{_more(empty)}; fill or remove it"
                )
        for here, there, one, other in (("train", "test", train, test), ("test", "train", test, train)):
            extra = sorted(set(one) - set(other))
            if extra:
                message = (
                    f"{source}: class {extra[0]!r} is among the {here} images but not the {there} images{_more(extra)}"
                )
                raise DataError(f"{message}; both must have the same class folders")
        if len(train) != num_classes:
            message = f"{source} has {len(train)} class folders, expected {num_classes}"
            raise DataError(f"{message}; mend num_classes in params/datasets.yaml or the folders")
        return tuple(sorted(train))


@dataclass(frozen=True, slots=True)
class FolderArrays:
    """What `decode_image_folder` left behind."""

    classes: tuple[str, ...]
    labels: dict[str, NDArray[np.int64]]
    """(N,) by split."""
    content_digest: str
    """SHA-256 over split, class, file name and bytes of every image in order."""
    resized: int


class _Split:
    """Images of one split: pixels in arrival order in a file, what is needed to sort them in memory."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self.stream = spool.open("wb")
        self.keys: list[tuple[str, str]] = []
        self.digests: list[str] = []


def decode_image_folder(
    source: Path,
    out: Path,
    *,
    size: int,
    num_classes: int,
    workers: int,
    layout: Layout = place_of,
) -> FolderArrays:
    """Decode every image of a folder, tar or zip into out/<split>_images.npy, ordered by class and file name.

    The source is read once from beginning to end (a compressed tar cannot be read otherwise); pixels are spooled to
    disk, so memory does not grow with the dataset. Images of another size are scaled and cut as
    `recu.data.decoding.fit_square` does.

    Args:
        source: folder or archive.
        out: existing folder for the arrays.
        size: side of the stored images in pixels.
        num_classes: expected number of class folders.
        workers: decoding processes.
        layout: tells a member's place from its name.

    Raises:
        DataError: see `iter_members`, `open_image` and `ClassTree`.
        OSError: `out` cannot be written.
    """
    tree = ClassTree()
    splits = {split: _Split(out / f"{split}.spool") for split in ("train", "test")}
    resized = 0
    bar = tqdm(desc="decoding", unit=" images", disable=None)
    try:
        tagged = _chunks(source, tree, splits, size, layout)
        for chunk in map_in_processes(_decode_tagged, tagged, workers):
            split = splits[chunk[0]]
            split.stream.write(chunk[1].images.tobytes())
            split.digests.extend(chunk[1].digests)
            resized += chunk[1].resized
            bar.update(len(chunk[1].digests))
    finally:
        bar.close()
        for split in splits.values():
            split.stream.close()
    classes = tree.check(source, num_classes)
    if resized:
        _LOG.info("%d images had another size and were resized to %dx%d", resized, size, size)
    labels, digest = {}, hashlib.sha256()
    for name, split in splits.items():
        order = sorted(range(len(split.keys)), key=split.keys.__getitem__)
        _write_sorted(split.spool, out / f"{name}_images.npy", order, size)
        labels[name] = np.array([classes.index(split.keys[position][0]) for position in order], dtype=np.int64)
        for position in order:
            digest.update("\t".join((name, *split.keys[position], split.digests[position])).encode() + b"\n")
    return FolderArrays(classes, labels, digest.hexdigest(), resized)


def _decode_tagged(tagged: tuple[str, EncodedChunk]):
    return tagged[0], decode_chunk(tagged[1])


def _chunks(
    source: Path, tree: ClassTree, splits: dict[str, _Split], size: int, layout: Layout
) -> Iterator[tuple[str, EncodedChunk]]:
    """Chunks of one split each; the order of `splits[...].keys` is that in which the chunks' images arrive."""
    waiting: dict[str, list[tuple[str, bytes]]] = {"train": [], "test": []}

    def flush(split: str) -> tuple[str, EncodedChunk]:
        names, data = zip(*waiting[split], strict=True)
        waiting[split] = []
        return split, EncodedChunk(names, data, size)

    def is_wanted(name: str) -> bool:
        place = layout(name)
        return place is not None and place.file != "" and is_image_name(name)

    for member in iter_members(source, is_wanted):
        place = _note(member, tree, source, layout)
        if place is None:
            continue
        split = SPLIT_FOLDERS[place.split_folder]
        splits[split].keys.append((place.class_name, place.file))
        waiting[split].append((f"{source}: {member.name}", member.data))
        if len(waiting[split]) == _CHUNK_IMAGES:
            yield flush(split)
    for split, rest in waiting.items():
        if rest:
            yield flush(split)


def _note(member: Member, tree: ClassTree, source: Path, layout: Layout) -> Place | None:
    """Enter the member into `tree`; its place if it is an image."""
    place = layout(member.name)
    if place is None or (place.file == "" and not member.is_folder):
        return None
    is_image = not member.is_folder and is_image_name(member.name)
    tree.add(place, source, is_image=is_image)
    return place if is_image else None


def _write_sorted(spool: Path, target: Path, order: list[int], size: int) -> None:
    source = np.memmap(spool, dtype=np.uint8, mode="r", shape=(len(order), size, size, 3))
    array = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=source.shape)
    block = 4096
    for start in range(0, len(order), block):
        array[start : start + block] = source[order[start : start + block]]
    array.flush()
    del source, array
    spool.unlink()


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
