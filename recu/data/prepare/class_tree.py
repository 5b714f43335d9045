"""What counts as an image, in which split it lies and which class it has: one rule for folders, tars and zips.

- Images lie in `SPLIT/CLASS/`, at any depth below the class folder; the splits lie in the source itself or up to three
  folders below it. Names of splits are those of `SPLITS`, in small letters or capitals.
- Folders that begin with ".", "@" or "__MACOSX" and files that begin with "." never count: they hold thumbnails and
  notes of file managers.
- A file is an image if its suffix says so; one with another suffix, or with none, if its first bytes say so, but for
  copies that programs leave (`x.jpg~`, `x.jpg.bak`). What is left out is counted by suffix. An image in a format that
  cannot be read here is refused, not left out.
- A class is named by its folder in Unicode form NFC; label order is the order of the names as text, as torchvision's.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from recu.base.errors import DataError
from recu.base.file_kinds import describe_kind
from recu.base.text import encodable
from recu.data.decoding import MAX_IMAGE_BYTES, image_format_of, unreadable_format
from recu.data.prepare.archives import PEEK_BYTES, Member, check_no_loop, file_size, iter_members, never, read_beginning
from recu.experiment.source_state import HIDDEN_FOLDERS, MAX_DEPTH, SPLITS

TEST_IS_ENOUGH = "; to evaluate only, the test images are enough: `recu prepare NAME --only_test`, or `recu evaluate`"
"""Ends the message about a source without training images."""

IMAGE_SUFFIXES = frozenset().union(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    (".png", ".apng"),
    (".bmp", ".dib", ".gif", ".webp"),
    (".tif", ".tiff"),
    (".ppm", ".pgm", ".pbm", ".pnm"),
    (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    (".avif", ".avifs"),
)
"""In small letters; such files are images without a look at their bytes, of which ImageNet has over a million."""
OTHER_SUFFIXES = frozenset().union(
    (".txt", ".xml", ".json", ".csv", ".db", ".ini", ".mat", ".md", ".html", ".py", ".npy"),
    (".bak", ".old", ".orig", ".thm"),
)
"""In small letters; such files are no images, whatever they hold: copies that editors and cameras left beside an image
would count it twice. So would those whose names end with "~"."""
CAMERA_SUFFIXES = frozenset((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".raf", ".rw2", ".pef", ".srw"))
"""In small letters; raw images of cameras, of which Pillow would read the small preview."""
_LONGEST_SUFFIX = 12
_MOST_COUNTS = 6


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path lies in a tree of class folders."""

    top: str
    """Folder above the splits, "" where there is none."""
    split_folder: str
    class_name: str
    file: str
    """Path below the class folder; "" for the class folder itself."""

    @property
    def root(self) -> str:
        """The split's folder in the source."""
        return f"{self.top}/{self.split_folder}".lstrip("/")


Layout = Callable[[str], Place | None]
"""Tells from a member's name where it lies among the class folders."""


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a member's name, which has "/" between them and nowhere else; `pathlib` takes five times as long."""
    return tuple(name.split("/"))


def suffix_of(name: str) -> str:
    """The suffix of a member's name in small letters, e.g. `.jpeg`; "" where there is none."""
    stem, _, suffix = parts_of(name)[-1].rpartition(".")
    return f".{suffix.lower()}" if stem and suffix else ""


def hidden_part(name: str, *, is_folder: bool = False) -> int | None:
    """Which part of a path makes it, and all below it, one of those that never count; None where it counts."""
    parts = parts_of(name)
    for depth, part in enumerate(parts):
        is_file = depth == len(parts) - 1 and not is_folder
        if part.startswith(".") or (not is_file and part.startswith(HIDDEN_FOLDERS)):
            return depth
    return None


def place_of(name: str) -> Place | None:
    """The place of a member, or None for whatever is no part of a class folder (a README, the split folder itself)."""
    parts = parts_of(name)
    depth = _split_depth(parts)
    if depth is None or len(parts) < depth + 2 or hidden_part(name) is not None:
        return None
    class_folder, *file = parts[depth + 1 :]
    return Place("/".join(parts[:depth]), parts[depth], class_name_of(class_folder), "/".join(file))


@functools.lru_cache(maxsize=4096)
def class_name_of(folder: str) -> str:
    """The class that a folder stands for: a Mac spells "é" with two characters, and what is no UTF-8 gets escapes."""
    return unicodedata.normalize("NFC", encodable(folder))


def is_image_name(name: str) -> bool | None:
    """Whether the suffix is that of an image; None where the first bytes decide."""
    suffix = suffix_of(name)
    return True if suffix in IMAGE_SUFFIXES else False if suffix in OTHER_SUFFIXES or name.endswith("~") else None


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image of a source."""

    class_name: str
    file: str
    """Path below its class folder."""
    name: str
    """Path in the source."""
    size: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class ClassTree:
    """The images of a source, by split in label order and then by name, and what was left out."""

    classes: tuple[str, ...]
    splits: dict[str, list[ImageFile]]
    notes: tuple[str, ...]


def read_tree(
    source: Path,
    num_classes: int,
    *,
    workers: int = 0,
    layout: Layout = place_of,
    needed: Iterable[str] = ("train", "test"),
) -> ClassTree:
    """List the images of a folder, tar or zip; nothing is decoded.

    Args:
        source: folder or archive.
        num_classes: expected number of class folders.
        workers: four times as many threads list a folder, since network file systems answer slowly.
        layout: tells a member's place from its name.
        needed: splits that must be there.

    Raises:
        DataError: the source is no tree of class folders, holds an image twice, or an image is empty, too large, in a
            format that cannot be read here, or a link that leads nowhere; see `iter_members` too.
    """
    listing = _Listing(source)
    for member in _members(source, layout, workers):
        listing.add(member, layout)
    return listing.tree(num_classes, tuple(needed))


def more(names: list[str]) -> str:
    """How many others a message that names the first of `names` speaks of."""
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


@dataclass(slots=True)
class _Split:
    """What one folder of a split holds."""

    top: str
    split: str
    images: dict[str, dict[str, ImageFile]] = field(default_factory=dict)
    """By class and path below its folder; classes without an image too."""
    spelled: dict[str, str] = field(default_factory=dict)
    """The folder of each class as it is written."""
    left_out: Counter[str] = field(default_factory=Counter)
    hidden: set[str] = field(default_factory=set)
    loose: int = 0
    """Images that lie in no class folder."""

    @property
    def count(self) -> int:
        return sum(map(len, self.images.values()))


class _Listing:
    """What was seen of a source so far."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._splits: dict[str, _Split] = {}

    def add(self, member: Member, layout: Layout) -> None:
        hidden = hidden_part(member.name, is_folder=member.is_folder)
        place = layout(member.name) if hidden is None else None
        if place is None or not (place.file or member.is_folder):
            self._add_outside(member, hidden)
            return
        split = self._split(place.root, place.top, place.split_folder)
        self._check_spelling(split, place, member.name)
        images = split.images.setdefault(place.class_name, {})
        if member.is_folder or not place.file:
            return
        if not self._is_image(member):
            split.left_out[_suffix(member.name)] += 1
            return
        if place.file in images:
            where = f"{place.root}/{place.class_name}/{place.file}"
            raise DataError(f"{self._source} holds {where} twice; keep one of them")
        images[place.file] = ImageFile(place.class_name, place.file, member.name, member.size)

    def tree(self, num_classes: int, needed: tuple[str, ...]) -> ClassTree:
        chosen = self._choose(needed)
        for root, split in chosen.items():
            self._check_classes(root, split)
        by_split = {split.split: split for split in chosen.values()}
        self._check_same_classes(by_split)
        classes = tuple(sorted(set().union(*(split.images for split in by_split.values()))))
        if len(classes) != num_classes:
            message = f"{self._source} has {len(classes)} class folders, expected {num_classes}"
            raise DataError(f"{message}; mend num_classes in params/datasets.yaml or the folders")
        splits: dict[str, list[ImageFile]] = {
            name: [image for label in classes for _, image in sorted(by_split[name].images[label].items())]
            for name in ("train", "test")
            if name in by_split
        }
        return ClassTree(classes, splits, tuple(self._notes(chosen)))

    def _add_outside(self, member: Member, hidden: int | None) -> None:
        """Note what lies in a split's folder, but is hidden or in no class folder."""
        parts = parts_of(member.name)
        depth = _split_depth(parts)
        if depth is None or (hidden is not None and hidden <= depth):
            return
        split = self._split("/".join(parts[: depth + 1]), "/".join(parts[:depth]), parts[depth])
        if hidden is not None:
            split.hidden.add("/".join(parts[: hidden + 1]))
        elif not member.is_folder and self._is_image(member):
            split.loose += 1

    def _split(self, root: str, top: str, folder: str) -> _Split:
        if root not in self._splits:
            self._splits[root] = _Split(top, SPLITS[folder.lower()])
        return self._splits[root]

    def _check_spelling(self, split: _Split, place: Place, name: str) -> None:
        depth = len(parts_of(place.root))
        folder = parts_of(name)[depth]
        if class_name_of(folder) != place.class_name:  # the layout has the class from elsewhere
            return
        known = split.spelled.setdefault(place.class_name, folder)
        if known != folder:
            raise DataError(
                f"{self._source}: {place.root} has two class folders that read the same, {known!a} and {folder!a};"
                " put their images into one"
            )

    def _is_image(self, member: Member) -> bool:
        """Whether the file is an image.

        Raises:
            DataError: it is one that cannot be used.
        """
        by_name, suffix = is_image_name(member.name), suffix_of(member.name)
        found = image_format_of(member.data) if by_name is None else None
        if not by_name and found is None and suffix not in CAMERA_SUFFIXES:
            return False
        where = f"{self._source}: {member.name}"
        problem = "it is a camera's raw image" if suffix in CAMERA_SUFFIXES else found and unreadable_format(found)
        if problem:
            raise DataError(f"unreadable image {where}: {problem}; convert it, e.g. to PNG, or move it away")
        if member.size == 0:
            raise DataError(f"unreadable image {where}: the file is empty; replace it or move it away")
        if member.size > MAX_IMAGE_BYTES:
            raise DataError(
                f"unreadable image {where}: it has {member.size} bytes, more than the {MAX_IMAGE_BYTES} that an image"
                " may have; move it away"
            )
        return True

    def _choose(self, needed: tuple[str, ...]) -> dict[str, _Split]:
        """By folder, the one of each split.

        Raises:
            DataError: there are several, or a needed one is missing.
        """
        full = {root: split for root, split in self._splits.items() if split.count}
        chosen: dict[str, str] = {}
        for root, split in full.items():
            other = chosen.setdefault(split.split, root)
            if other != root:
                message = (
                    f"{self._source} has both {other!r} and {root!r}, expected one folder for the {split.split} images"
                )
                raise DataError(f"{message}: move one away, or give a folder with links to the folders that are meant")
        tops = {full[root].top: root for root in chosen.values()}
        if len(tops) > 1:
            message = f"{self._source} has {' and '.join(sorted(map(repr, tops.values())))}, expected them side by side"
            raise DataError(f"{message}; give a folder that holds one dataset")
        for name in needed:
            if name not in chosen:
                raise DataError(self._missing(name))
        return {root: full[root] for root in chosen.values()}

    def _missing(self, split: str) -> str:
        form = "train/<class>/*" if split == "train" else "test/<class>/* or val/<class>/*"
        for root, found in self._splits.items():
            if found.split == split and found.images:
                names = sorted(found.spelled.values())
                return f"{self._source}: class folder {root}/{names[0]} has no images{more(names)}; fill or remove it"
            if found.split == split and found.loose:
                return (
                    f"{self._source}: {root} has no class folders (its images lie in it directly), so the classes of"
                    f" its {found.loose} images are not known; sort them into {root}/<class>/* (of ImageNet, the folder"
                    " of the three distributed archives will do in place of this one)"
                )
            if found.split == split:
                return f"{self._source}: {root} has no class folders (it is empty); expected {form}: sort the images"
        kind = describe_kind(self._source) or "an archive"
        usual = kind in ("a folder", "a zip archive", "an archive") or "tar archive" in kind
        what = "" if usual else f" (it is {kind})"
        has_test = any(found.split == "test" and found.count for found in self._splits.values())
        return (
            f"{self._source} has no {split} images{what}; expected {form}, below one common folder at most {MAX_DEPTH}"
            f" folders deep{TEST_IS_ENOUGH if has_test else ''}"
        )

    def _check_classes(self, root: str, split: _Split) -> None:
        empty = sorted(name for name, images in split.images.items() if not images)
        if empty:
            left_out = f" (left out: {_counts(split.left_out)})" if split.left_out else ""
            raise DataError(
                f"{self._source}: class folder {root}/{empty[0]} has no images{more(empty)}; fill or remove it"
                f"{left_out}"
            )
        if all(name.lower() in SPLITS for name in split.images):
            raise DataError(
                f"{self._source}: {root} holds {' and '.join(sorted(split.images))}, which are called like splits and"
                f" not like classes; give the folder {root} itself, or rename them"
            )

    def _check_same_classes(self, splits: dict[str, _Split]) -> None:
        for here, there in (("train", "test"), ("test", "train")):
            if here not in splits or there not in splits:
                continue
            extra = sorted(set(splits[here].images) - set(splits[there].images))
            if extra:
                close = [name for name in splits[there].images if _loose_form(name) == _loose_form(extra[0])]
                hint = f", which have {close[0]!a}" if close else ""
                message = f"{self._source}: class {extra[0]!r} is among the {here} images but not the {there} images"
                raise DataError(f"{message}{hint}{more(extra)}; both must have the same class folders")

    def _notes(self, chosen: dict[str, _Split]) -> Iterator[str]:
        left_out: Counter[str] = sum((split.left_out for split in chosen.values()), Counter())
        hidden = set().union(*(split.hidden for split in chosen.values()))
        if left_out:
            yield f"left out as no images: {_counts(left_out)}"
        if hidden:
            parts = (encodable(parts_of(name)[-1]) for name in hidden)
            names = Counter("._*" if part.startswith("._") else part for part in parts)
            yield f"left out hidden files and folders: {_counts(names)}"
        for root, split in sorted(self._splits.items()):
            if root not in chosen and split.loose:
                yield f"left out {root}: its {split.loose} images lie in no class folders"
            elif split.loose:
                yield f"left out {split.loose} images that lie in {root} itself, in no class folder"


def _members(source: Path, layout: Layout, workers: int) -> Iterator[Member]:
    """Every member of the source, with the first bytes of those whose name does not tell whether they are images."""

    def peeked(name: str) -> bool:
        return _may_count(name, layout) and is_image_name(name) is None

    if source.is_dir():
        return _folder_members(source, layout, peeked, workers)
    return iter_members(source, never, peeked=peeked)


def _folder_members(source: Path, layout: Layout, peeked: Callable[[str], bool], workers: int) -> Iterator[Member]:
    """The same of a folder, one level after the other, each listed by several threads."""
    level = [source]
    with ThreadPoolExecutor(max(4, 4 * workers)) as pool:
        while level:
            below: list[Path] = []
            for members, folders in pool.map(lambda folder: _list(folder, source, layout, peeked), level):
                yield from members
                below += folders
            level = below


def _list(folder: Path, source: Path, layout: Layout, peeked: Callable[[str], bool]) -> tuple[list[Member], list[Path]]:
    """Members that lie in a folder itself, and the folders to look into next."""
    check_no_loop(folder, source)
    above = "" if folder == source else f"{folder.relative_to(source).as_posix()}/"
    members, folders = [], []
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
            are_folders = [entry.is_dir() for entry in found]
    except OSError as error:
        raise DataError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    for entry, is_folder in zip(found, are_folders, strict=True):
        name = f"{above}{entry.name}"
        if is_folder:
            members.append(Member(name, True, b""))
            if _leads_to_images(name):
                folders.append(Path(entry.path))
        elif _may_count(name, layout) and is_image_name(name) is not False:
            size = file_size(Path(entry.path), MAX_IMAGE_BYTES)
            data = read_beginning(Path(entry.path), PEEK_BYTES) if peeked(name) else b""
            members.append(Member(name, False, data, size))
        else:
            members.append(Member(name, False, b""))
    return members, folders


def _may_count(name: str, layout: Layout) -> bool:
    """Whether a file may be an image of a split, or lie in a split's folder itself."""
    if hidden_part(name) is not None:
        return False
    return layout(name) is not None or _split_depth(parts_of(name)) is not None


def _leads_to_images(folder: str) -> bool:
    parts = parts_of(folder)
    if hidden_part(folder, is_folder=True) is not None:
        return False
    return _split_depth(parts) is not None or len(parts) <= MAX_DEPTH


def _split_depth(parts: tuple[str, ...]) -> int | None:
    """Which part of a path is a split's folder: the first that is called so."""
    return next((depth for depth, part in enumerate(parts[: MAX_DEPTH + 1]) if part.lower() in SPLITS), None)


def _suffix(name: str) -> str:
    suffix = encodable(suffix_of(name))
    return suffix if 1 < len(suffix) <= _LONGEST_SUFFIX else ""


def _counts(left_out: Counter[str]) -> str:
    """`12 .db, 3 .txt, 1 without a suffix`: the most frequent first, the rest together."""
    ordered = sorted(left_out.items(), key=lambda item: (-item[1], item[0] == "", item[0]))
    shown = [f"{count} {name or 'without a suffix'}" for name, count in ordered[:_MOST_COUNTS]]
    rest = sum(count for _, count in ordered[_MOST_COUNTS:])
    return ", ".join([*shown, f"{rest} others"] if rest else shown)


def _loose_form(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()
