"""Class folders of small images (`train/<class>/*`, `test|val/<class>/*`) turned into arrays."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from recu.base.errors import DataError
from recu.base.text import encodable
from recu.data.decoding import MAX_IMAGE_BYTES, EncodedChunk, change_notes, decode_chunk, map_in_processes
from recu.data.prepare import image_tree
from recu.data.prepare.archives import iter_members, read_beginning
from recu.data.prepare.class_tree import ClassTree, ImageFile, Layout, place_of, read_tree
from recu.data.prepare.content import Content, Request, stored_arrays
from recu.experiment.fit import storage_of

_LOG = logging.getLogger(__name__)

_CHUNK_IMAGES = 500
_CHUNK_BYTES = 16 << 20


class _Split:
    """Images of one split: pixels in arrival order in a file, what is needed to sort them in memory."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self.stream = spool.open("wb")
        self.keys: list[tuple[str, str]] = []


def build(request: Request, out: Path) -> Content:
    """Decode small images, and list or extract large ones; a `recu.data.prepare.content.Builder`."""
    dataset = request.dataset
    if storage_of(dataset) == "files":
        return image_tree.build(request, out)
    return decode_image_folder(request, out, size=dataset.image_size)


def decode_image_folder(request: Request, out: Path, *, size: int, layout: Layout = place_of) -> Content:
    """Decode every image of a folder, tar or zip into out/<split>_images.npy, ordered by class and file name.

    An archive is read twice from beginning to end, once for its list; pixels are spooled to disk, so memory does not
    grow with the dataset. Images of another size are scaled and cut as `recu.data.decoding.fit_square` does.

    Args:
        request: which folder or archive, and how many classes are expected.
        out: existing folder for the arrays.
        size: side of the stored images in pixels.
        layout: tells a member's place from its name.

    Raises:
        DataError: see `read_tree`, `iter_members` and `open_image`.
        OSError: `out` cannot be written.
    """
    source, workers = request.path, request.workers
    classes, needed = request.dataset.num_classes, request.needed
    tree = read_tree(source, classes, workers=workers, layout=layout, needed=needed)
    splits = {split: _Split(out / f"{split}.spool") for split in tree.splits}
    resized = deep = animated = 0
    total = sum(map(len, tree.splits.values()))
    bar = tqdm(desc="decoding", total=total, unit=" images", disable=None)
    try:
        tagged = _chunks(source, tree, splits, size)
        for chunk in map_in_processes(_decode_tagged, tagged, workers, weight=_weight):
            split = splits[chunk[0]]
            split.stream.write(chunk[1].images.tobytes())
            resized += chunk[1].resized
            deep += chunk[1].deep
            animated += chunk[1].animated
            bar.update(len(chunk[1].images))
    finally:
        bar.close()
        for split in splits.values():
            split.stream.close()
    sized = (f"{resized} images had another size and were resized to {size}x{size}",) if resized else ()
    notes = (*tree.notes, *sized, *change_notes(deep, animated))
    for note in notes:
        _LOG.info("%s", note)
    labels = {}
    for name, split in splits.items():
        order = sorted(range(len(split.keys)), key=split.keys.__getitem__)
        _write_sorted(split.spool, out / f"{name}_images.npy", order, size)
        labels[name] = np.array([tree.classes.index(split.keys[position][0]) for position in order], dtype=np.int64)
    return stored_arrays(tree.classes, labels, out, side=size, notes=notes)


def _decode_tagged(tagged: tuple[str, EncodedChunk]):
    return tagged[0], decode_chunk(tagged[1])


def _weight(tagged: tuple[str, EncodedChunk]) -> int:
    return sum(map(len, tagged[1].data))


def _chunks(source: Path, tree: ClassTree, splits: dict[str, _Split], size: int) -> Iterator[tuple[str, EncodedChunk]]:
    """Chunks of one split each; the order of `splits[...].keys` is that in which the chunks' images arrive."""
    waiting: dict[str, list[tuple[str, bytes]]] = {split: [] for split in splits}
    waiting_bytes = dict.fromkeys(splits, 0)

    def flush(split: str) -> tuple[str, EncodedChunk]:
        names, data = zip(*waiting[split], strict=True)
        waiting[split], waiting_bytes[split] = [], 0
        return split, EncodedChunk(names, data, size)

    for split, image, data in _read_images(source, tree):
        splits[split].keys.append((image.class_name, image.file))
        waiting[split].append((encodable(f"{source}: {image.name}"), data))
        waiting_bytes[split] += len(data)
        if len(waiting[split]) == _CHUNK_IMAGES or waiting_bytes[split] > _CHUNK_BYTES:
            yield flush(split)
    for split, rest in waiting.items():
        if rest:
            yield flush(split)


def _read_images(source: Path, tree: ClassTree) -> Iterator[tuple[str, ImageFile, bytes]]:
    """Split and content of every image of the tree, in the order in which the source gives them.

    Raises:
        DataError: the source is no longer as it was listed.
    """
    images = {image.name: (split, image) for split, found in tree.splits.items() for image in found}
    if source.is_dir():
        for name, (split, image) in images.items():
            yield split, image, read_beginning(source / name, MAX_IMAGE_BYTES + 1)
        return
    for member in iter_members(source, images.__contains__):
        if not member.is_folder and member.name in images:
            yield (*images.pop(member.name), member.data)
    if images:
        raise DataError(f"{source} changed while it was read: {next(iter(images))} is gone; run the same command again")


def _write_sorted(spool: Path, target: Path, order: list[int], size: int) -> None:
    source = np.memmap(spool, dtype=np.uint8, mode="r", shape=(len(order), size, size, 3))
    array = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=source.shape)
    block = 4096
    for start in range(0, len(order), block):
        array[start : start + block] = source[order[start : start + block]]
    array.flush()
    del source, array
    spool.unlink()
