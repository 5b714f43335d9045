"""TinyImageNet (Stanford CS231n) in the layout of tiny-imagenet-200.zip, where validation images lie in one folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from recu.data.archives import iter_members
from recu.data.class_tree import Layout, Place, place_of
from recu.data.image_folder import FolderArrays, decode_image_folder
from recu.errors import DataError

STORED_SIZE = 64
"""Side of the distributed images; they are enlarged when they are loaded."""

_ANNOTATIONS = "val_annotations.txt"
_CLASS_LIST = "wnids.txt"


def decode_tinyimagenet(source: Path, out: Path, *, num_classes: int, workers: int) -> FolderArrays:
    """Decode train/<wnid>/images/* and val/images/* (sorted into classes by val_annotations.txt) into arrays.

    A tree whose validation images were already moved into class folders is accepted too.

    Raises:
        DataError: as `decode_image_folder`; an annotation names a missing image, or an image has no annotation.
    """
    texts = _read_texts(source)
    if _ANNOTATIONS not in texts:
        return decode_image_folder(
            source, out, size=STORED_SIZE, num_classes=num_classes, workers=workers, layout=_sorted_layout(source)
        )
    class_of = parse_annotations(texts[_ANNOTATIONS], source)
    seen: set[str] = set()
    layout = _original_layout(source, class_of, seen)
    arrays = decode_image_folder(source, out, size=STORED_SIZE, num_classes=num_classes, workers=workers, layout=layout)
    missing = sorted(set(class_of) - seen)
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(
            f"{source}: {_ANNOTATIONS} names {missing[0]}, which is not in val/images{more}; fetch it again"
        )
    _check_classes(texts.get(_CLASS_LIST), arrays.classes, source)
    return arrays


def parse_annotations(text: str, source: Path) -> dict[str, str]:
    """Class by file name out of lines of name, class and box, separated by tabs.

    Raises:
        DataError: a line has fewer fields, or names an image twice.
    """
    class_of: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) < 2 or not fields[0] or not fields[1]:
            raise DataError(f"{source}: line {number} of {_ANNOTATIONS} is not 'image<tab>class<tab>box'")
        if fields[0] in class_of:
            raise DataError(f"{source}: {_ANNOTATIONS} names {fields[0]} twice (line {number})")
        class_of[fields[0]] = fields[1].strip()
    return class_of


def _read_texts(source: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for member in iter_members(source, lambda name: PurePosixPath(name).name in (_ANNOTATIONS, _CLASS_LIST)):
        name = PurePosixPath(member.name).name
        if name in (_ANNOTATIONS, _CLASS_LIST) and not member.is_folder:
            texts[name] = member.data.decode("utf-8", errors="replace")
    return texts


def _original_layout(source: Path, class_of: dict[str, str], seen: set[str]) -> Layout:
    """The layout of the distributed archive; notes in `seen` which validation images were met."""

    def layout(name: str) -> Place | None:
        place = place_of(name)
        if place is None or place.split_folder == "test":  # the test images have no labels
            return None
        if place.split_folder == "train":
            return _training_place(place)
        if place.class_name != "images" or not place.file:
            return None
        if place.file not in class_of:
            raise DataError(f"{source}: val/images/{place.file} has no line in {_ANNOTATIONS}; remove the image")
        seen.add(place.file)
        return Place(place.top, place.split_folder, class_of[place.file], place.file)

    return layout


def _sorted_layout(source: Path) -> Layout:
    """The layout of a tree with val/<class>/*."""

    def layout(name: str) -> Place | None:
        place = place_of(name)
        if place is None or place.split_folder == "test":
            return None
        if place.split_folder == "val" and place.class_name == "images":
            raise DataError(f"{source} lacks val/{_ANNOTATIONS}, which says the classes of val/images; fetch it again")
        return _training_place(place)

    return layout


def _training_place(place: Place) -> Place:
    """train/<class>/images/<file>; the folder "images" is no image, and a list of boxes lies beside it."""
    file = "" if place.file == "images" else place.file.removeprefix("images/")
    return Place(place.top, place.split_folder, place.class_name, file)


def _check_classes(listed: str | None, classes: tuple[str, ...], source: Path) -> None:
    if listed is not None and set(listed.split()) != set(classes):
        odd = sorted(set(listed.split()) ^ set(classes))
        raise DataError(
            f"{source}: {_CLASS_LIST} and the folders below train differ, first in {odd[0]!r}; fetch it again"
        )
