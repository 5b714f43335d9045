"""TinyImageNet (Stanford CS231n) in the layout of tiny-imagenet-200.zip, where validation images lie in one folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from recu.base.errors import DataError
from recu.data.prepare.archives import iter_members
from recu.data.prepare.class_tree import Layout, Place, hidden_part, is_image_name, more, place_of
from recu.data.prepare.content import Content, Request
from recu.data.prepare.image_folder import decode_image_folder
from recu.experiment.dataset_kinds import KINDS
from recu.experiment.source_state import SPLITS

_ANNOTATIONS = "val_annotations.txt"
_CLASS_LIST = "wnids.txt"


def build(request: Request, out: Path) -> Content:
    """Decode train/<wnid>/images/* and val/images/* (sorted into classes by val_annotations.txt) into arrays.

    Validation images that were already moved into val/<wnid>/ or val/<wnid>/images/ are accepted too, with or without
    the annotations; where both are there they must agree.

    A `recu.data.prepare.content.Builder`.

    Raises:
        DataError: as `decode_image_folder`; an annotation names a missing image, an image has none, or lies in a
            folder of another class than its annotation says.
    """
    source = request.path
    texts = _read_texts(source)
    annotations = texts.get(_ANNOTATIONS)
    class_of = None if annotations is None else parse_annotations(annotations, source)
    seen: set[str] = set()
    size = KINDS["tinyimagenet"].side or request.dataset.image_size
    content = decode_image_folder(request, out, size=size, layout=_layout(source, class_of, seen))
    missing = sorted(set(class_of or ()) - seen)
    if missing:
        raise DataError(
            f"{source}: {_ANNOTATIONS} names {missing[0]}, which is not in val/images or a class folder of val"
            f"{more(missing)}; fetch it again"
        )
    _check_classes(texts.get(_CLASS_LIST), content.classes, source)
    return content


def parse_annotations(text: str, source: Path) -> dict[str, str]:
    """Class by file name out of lines of name, class and box, separated by tabs.

    Raises:
        DataError: a line has fewer fields, or names an image twice.
    """
    class_of: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):  # whatever else ends a line may stand in a name
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

    def wanted(name: str) -> bool:
        return PurePosixPath(name).name in (_ANNOTATIONS, _CLASS_LIST) and hidden_part(name) is None

    for member in iter_members(source, wanted):
        name = PurePosixPath(member.name).name
        if wanted(member.name) and not member.is_folder:
            if name in texts:
                raise DataError(f"{source} holds {name} twice, the second as {member.name}; keep one of them")
            texts[name] = member.data.decode("utf-8-sig", errors="replace")
    return texts


def _layout(source: Path, class_of: dict[str, str] | None, seen: set[str]) -> Layout:
    """Where images lie: as distributed, sorted into class folders, or partly so.

    Args:
        source: named in messages.
        class_of: class by file name, as the annotations say; None without annotations.
        seen: validation images that were met are added to it.
    """

    def layout(name: str) -> Place | None:
        place = place_of(name)
        if place is None or place.split_folder.lower() in ("test", "testing"):  # the test images have no labels
            return None
        if SPLITS[place.split_folder.lower()] == "train":
            return _without_images_folder(place)
        if place.class_name == "images":
            return _unsorted(place)
        place = _without_images_folder(place)
        if class_of is not None and place.file and is_image_name(name) is not False:
            _check(place)
        return place

    def _unsorted(place: Place) -> Place | None:
        if not place.file:
            return None
        if class_of is None:
            raise DataError(f"{source} lacks val/{_ANNOTATIONS}, which says the classes of val/images; fetch it again")
        return Place(place.top, place.split_folder, _annotated(place.file, f"val/images/{place.file}"), place.file)

    def _check(place: Place) -> None:
        file = PurePosixPath(place.file).name
        where = f"{place.split_folder}/{place.class_name}/{place.file}"
        annotated = _annotated(file, where)
        if annotated != place.class_name:
            raise DataError(
                f"{source}: {where} is of class {annotated} according to {_ANNOTATIONS}; move the image to the folder"
                " of its class, or the annotations away if the folders are right"
            )

    def _annotated(file: str, where: str) -> str:
        if class_of is None or file not in class_of:
            raise DataError(f"{source}: {where} has no line in {_ANNOTATIONS}; move the image away")
        seen.add(file)
        return class_of[file]

    return layout


def _without_images_folder(place: Place) -> Place:
    """<class>/images/<file> as <class>/<file>; the folder "images" is no image, and a list of boxes lies beside it."""
    file = "" if place.file == "images" else place.file.removeprefix("images/")
    return Place(place.top, place.split_folder, place.class_name, file)


def _check_classes(listed: str | None, classes: tuple[str, ...], source: Path) -> None:
    if listed is not None and set(listed.split()) != set(classes):
        odd = sorted(set(listed.split()) ^ set(classes))
        raise DataError(
            f"{source}: {_CLASS_LIST} and the folders below train differ, first in {odd[0]!r}; fetch it again"
        )
