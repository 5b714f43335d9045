"""Class folders of large images: they stay files and are only listed; out of an archive they are extracted first."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from recu.base.errors import DataError
from recu.data.decoding import change_notes, inspect_image
from recu.data.index import HERE, IndexedFile
from recu.data.prepare.archives import iter_members
from recu.data.prepare.class_tree import ClassTree, ImageFile, read_tree
from recu.data.prepare.content import Content, Request, stored_files

_LOG = logging.getLogger(__name__)

_ALWAYS_PLAIN = (".jpg", ".jpeg", ".jpe", ".jfif")
"""Suffixes, in small letters."""


def build(request: Request, out: Path) -> Content:
    """List the images of a folder, or extract those of an archive into out/images.

    Raises:
        DataError: see `iter_members` and `read_tree`; or a member's name cannot be that of a file.
        OSError: `out` cannot be written.
    """
    source = request.path
    tree = read_tree(source, request.dataset.num_classes, workers=request.workers, needed=request.needed)
    seen = _Seen()
    if source.is_file():
        splits, root = _extracted(source, out, tree, seen), HERE
    else:
        splits, root = _listed(source, tree, seen), str(source.resolve())
    return stored_files(tree.classes, splits, out, root=root, notes=seen.notes(tree))


def _listed(source: Path, tree: ClassTree, seen: _Seen) -> dict[str, list[IndexedFile]]:
    """Paths are relative to `source`."""
    for images in tree.splits.values():
        for image in images:
            seen.add(image, source / image.name, str(source / image.name))
    return {
        split: [IndexedFile(image.class_name, image.name, image.size) for image in images]
        for split, images in tree.splits.items()
    }


def _extracted(source: Path, out: Path, tree: ClassTree, seen: _Seen) -> dict[str, list[IndexedFile]]:
    """Paths are relative to `out`."""
    places = {
        # Names were checked by iter_members: they cannot lead out of the folder.
        image.name: (split, image, PurePosixPath("images", split, image.class_name, image.file))
        for split, images in tree.splits.items()
        for image in images
    }
    _check_places(source, out, places)
    splits: dict[str, list[IndexedFile]] = {split: [] for split in tree.splits}
    with tqdm(desc="extracting", total=len(places), unit=" images", disable=None) as bar:
        for member in iter_members(source, places.__contains__):
            if member.is_folder or member.name not in places:
                continue
            split, image, path = places.pop(member.name)
            seen.add(image, member.data, f"{source}: {member.name}")
            target = out / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(member.data)
            splits[split].append(IndexedFile(image.class_name, str(path), image.size))
            bar.update()
    if places:
        raise DataError(f"{source} changed while it was read: {next(iter(places))} is gone; run the same command again")
    return splits


def _check_places(source: Path, out: Path, places: Mapping[str, tuple[str, ImageFile, PurePosixPath]]) -> None:
    """Compare names with what a file system takes, before any image is written; an archive can hold more than that.

    Raises:
        DataError: a name is too long, or a member is a file and the folder of another.
    """
    longest = os.pathconf(out, "PC_NAME_MAX")
    nested = {name: path for name, (_, image, path) in places.items() if "/" in image.file}
    file_at = {path: name for name, (_, _, path) in places.items()} if nested else {}
    for name, (_, _, path) in places.items():
        size = max(len(os.fsencode(part)) for part in path.parts)
        if size > longest:
            raise DataError(
                f"{source}: cannot extract {name}: a name in it has {size} bytes, expected {longest} or fewer; shorten"
                " it and pack again"
            )
    for name, path in nested.items():
        if above := next((file_at[folder] for folder in path.parents if folder in file_at), None):
            raise DataError(
                f"{source}: cannot extract {name}: {above} is an image too, expected a folder; rename one of them and"
                " pack again"
            )


class _Seen:
    """Counts what decoding will change."""

    def __init__(self) -> None:
        self._deep = self._animated = 0

    def add(self, image: ImageFile, data: bytes | Path, name: str) -> None:
        """Look at the header of an image that may be unusual; JPEGs, of which there may be a million, never are."""
        if not image.name.lower().endswith(_ALWAYS_PLAIN):
            deep, animated = inspect_image(data, name)
            self._deep += deep
            self._animated += animated

    def notes(self, tree: ClassTree) -> tuple[str, ...]:
        """All that is to be said of the tree, which is logged too."""
        notes = (*tree.notes, *change_notes(self._deep, self._animated))
        for note in notes:
            _LOG.info("%s", note)
        return notes
