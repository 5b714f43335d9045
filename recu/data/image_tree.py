"""Class folders of large images: they stay files and are only listed; out of an archive they are extracted first."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from recu.data.archives import iter_members
from recu.data.class_tree import ClassTree, read_tree
from recu.data.index import IndexedFile
from recu.errors import DataError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageTree:
    """Large images as they lie on the disk."""

    classes: tuple[str, ...]
    """In label order."""
    splits: dict[str, list[IndexedFile]]
    notes: tuple[str, ...]
    """What was left out, in sentences."""


def index_tree(source: Path, num_classes: int, workers: int, needed: Iterable[str] = ("train", "test")) -> ImageTree:
    """List the images of a folder of class folders; paths are relative to `source`.

    Raises:
        DataError: the tree is not of that form; see `read_tree`.
    """
    tree = _read(source, num_classes, workers, needed)
    splits = {
        split: [IndexedFile(image.class_name, image.name, image.size) for image in images]
        for split, images in tree.splits.items()
    }
    return ImageTree(tree.classes, splits, tree.notes)


def extract_tree(source: Path, out: Path, num_classes: int, needed: Iterable[str] = ("train", "test")) -> ImageTree:
    """Extract the class folders of an archive into out/images and list them; paths are relative to `out`.

    Raises:
        DataError: see `iter_members` and `read_tree`.
        OSError: `out` cannot be written.
    """
    tree = _read(source, num_classes, 0, needed)
    places = {
        # Names were checked by iter_members: they cannot lead out of the folder.
        image.name: (split, image, PurePosixPath("images", split, image.class_name, image.file))
        for split, images in tree.splits.items()
        for image in images
    }
    splits: dict[str, list[IndexedFile]] = {split: [] for split in tree.splits}
    with tqdm(desc="extracting", total=len(places), unit=" images", disable=None) as bar:
        for member in iter_members(source, places.__contains__):
            if member.is_folder or member.name not in places:
                continue
            split, image, path = places.pop(member.name)
            target = out / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(member.data)
            splits[split].append(IndexedFile(image.class_name, str(path), image.size))
            bar.update()
    if places:
        raise DataError(f"{source} changed while it was read: {next(iter(places))} is gone; run the same command again")
    return ImageTree(tree.classes, splits, tree.notes)


def _read(source: Path, num_classes: int, workers: int, needed: Iterable[str]) -> ClassTree:
    tree = read_tree(source, num_classes, workers=workers, needed=needed)
    for note in tree.notes:
        _LOG.info("%s", note)
    return tree
