"""Turning encoded images into uint8 arrays, many at a time, in several processes."""

from __future__ import annotations

import hashlib
import io
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from recu.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""File names that are taken for images, in lower case."""
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
# Pillow would otherwise try every format it knows, some of which start other programs (EPS).
_SERIAL_CHUNKS = 2
"""So few chunks are decoded in this process: starting others would take longer."""


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """Images as they came: their names, for messages, and their bytes."""

    names: tuple[str, ...]
    data: tuple[bytes, ...]
    size: int
    """Side of the square result in pixels."""


@dataclass(frozen=True, slots=True)
class DecodedChunk:
    """The decoded counterpart of an `EncodedChunk`, in the same order."""

    images: NDArray[np.uint8]
    """(n, size, size, 3)."""
    digests: tuple[str, ...]
    """SHA-256 of each image's bytes before decoding: equal wherever the file is equal, whatever decoder is used."""
    resized: int
    """How many had another size."""


def is_image_name(name: str) -> bool:
    """Whether the suffix is that of an image format this program reads."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def open_image(data: bytes, name: str) -> Image.Image:
    """Decode one image into RGB.

    Args:
        data: the encoded image.
        name: what to call it in messages.

    Raises:
        DataError: it is unreadable, truncated or absurdly large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise DataError(f"unreadable image {name}: not in a known format; replace or remove it") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"unreadable image {name}: {error}; replace or remove it") from error


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """Scale the shorter side to `size` (bilinear, anti-aliased) and cut out the centre; nothing changes if it fits."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def decode_chunk(chunk: EncodedChunk) -> DecodedChunk:
    """Decode, convert to RGB and fit every image of the chunk.

    Raises:
        DataError: an image is unreadable; the message names it.
    """
    images = np.empty((len(chunk.data), chunk.size, chunk.size, 3), dtype=np.uint8)
    resized = 0
    for position, (name, data) in enumerate(zip(chunk.names, chunk.data, strict=True)):
        image = open_image(data, name)
        resized += image.size != (chunk.size, chunk.size)
        images[position] = np.asarray(fit_square(image, chunk.size))
    digests = tuple(hashlib.sha256(data).hexdigest() for data in chunk.data)
    return DecodedChunk(images, digests, resized)


def map_in_processes(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """`function` of each item, in order, computed by `workers` processes while further items are still being read.

    Processes are used because Pillow holds the interpreter's lock for most of the work on a small image. With fewer
    than two workers, or so few items that starting processes would take longer, everything happens in this process.
    """
    iterator = iter(items)
    head = list(itertools.islice(iterator, _SERIAL_CHUNKS + 1))
    if workers < 2 or len(head) <= _SERIAL_CHUNKS:
        yield from map(function, itertools.chain(head, iterator))
        return
    # "spawn": forking a process that already runs threads (PyTorch's, MLflow's) can hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in itertools.chain(head, iterator):
                pending.append(pool.submit(function, item))
                if len(pending) > 4 * workers:  # bounds memory when reading is faster than decoding
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a decoding process was killed, perhaps for want of memory; try with fewer workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
