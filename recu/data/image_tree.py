"""Class folders of large images: they stay files and are only listed; out of an archive they are extracted first."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from recu.data.archives import iter_members
from recu.data.decoding import is_image_name
from recu.data.image_folder import SPLIT_FOLDERS, ClassTree, Place, place_of
from recu.data.index import IndexedFile
from recu.errors import DataError


def split_folders(source: Path) -> dict[str, Path]:
    """The folder of each split of an existing tree, by split; splits without a folder are left out.

    Raises:
        DataError: two folders serve as one split.
    """
    found: dict[str, Path] = {}
    for name, split in SPLIT_FOLDERS.items():
        folder = source / name
        if not folder.is_dir():
            continue
        if split in found:
            raise DataError(f"{source} has both {found[split].name!r} and {name!r}, expected one of them; remove one")
        found[split] = folder
    return found


def index_tree(source: Path, num_classes: int, workers: int) -> tuple[tuple[str, ...], dict[str, list[IndexedFile]]]:
    """Class names in label order and the files of each split of source/{train,test|val}/<class>/*.

    Folders are listed by several threads, since network file systems answer slowly.

    Raises:
        DataError: the tree is not of that form; see `ClassTree.check`.
    """
    tree, splits = ClassTree(), {}
    for split, folder in split_folders(source).items():
        folders = _class_folders(folder)
        with ThreadPoolExecutor(max(4, 4 * workers)) as pool:
            listed = pool.map(lambda path: _list_images(path, source), folders)
            bar = tqdm(listed, desc=f"listing {folder.name}", total=len(folders), unit=" classes", disable=None)
            files = dict(zip([path.name for path in folders], bar, strict=True))
        for name, images in files.items():
            tree.add(Place("", folder.name, name, ""), source, is_image=False)
            tree.counts[split][name] = len(images)
        splits[split] = [file for images in files.values() for file in images]
    return tree.check(source, num_classes), splits


def extract_tree(source: Path, out: Path, num_classes: int) -> tuple[tuple[str, ...], dict[str, list[IndexedFile]]]:
    """Extract train/<class>/* and test|val/<class>/* of an archive into out/images and list them.

    Raises:
        DataError: see `iter_members` and `ClassTree.check`.
        OSError: `out` cannot be written.
    """
    tree, splits = ClassTree(), {"train": [], "test": []}
    bar = tqdm(desc="extracting", unit=" images", disable=None)
    with bar:
        for member in iter_members(source, is_image_name):
            place = place_of(member.name)
            if place is None or (place.file == "" and not member.is_folder):
                continue
            is_image = not member.is_folder and is_image_name(member.name)
            tree.add(place, source, is_image=is_image)
            if not is_image:
                continue
            split = SPLIT_FOLDERS[place.split_folder]
            # Names were checked by iter_members: they cannot lead out of the folder.
            path = PurePosixPath("images", split, place.class_name, place.file)
            target = out / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(member.data)
            splits[split].append(IndexedFile(place.class_name, str(path), len(member.data)))
            bar.update()
    return tree.check(source, num_classes), splits


def tree_state(source: Path) -> str:
    """What changes when a class folder gains or loses a file: every folder's path and modification time, as text.

    Files are not looked at one by one: there may be over a million, and their pixels are read from where they lie.
    """
    lines = []
    for folder in split_folders(source).values():
        for path in (folder, *_class_folders(folder)):
            lines.append(f"{path.relative_to(source)}\t{path.stat().st_mtime_ns}")
    return "\n".join(lines)


def _class_folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        found = list(entries)
    folders = sorted(Path(entry.path) for entry in found if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        what = "its images lie in it directly" if any(is_image_name(entry.name) for entry in found) else "it is empty"
        raise DataError(f"{folder} has no class folders ({what}); expected {folder.name}/<class>/*: sort the images")
    return folders


def _list_images(folder: Path, source: Path) -> list[IndexedFile]:
    relative = PurePosixPath(folder.relative_to(source).as_posix())
    try:
        with os.scandir(folder) as entries:
            return [
                IndexedFile(folder.name, str(relative / entry.name), entry.stat().st_size)
                for entry in entries
                if is_image_name(entry.name) and not entry.name.startswith(".") and entry.is_file()
            ]
    except OSError as error:
        raise DataError(f"cannot read {error.filename or folder}: {error.strerror}") from error
