"""Turning encoded images into uint8 arrays, many at a time, in several processes."""

from __future__ import annotations

import io
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from recu.base.errors import AlteredData, DataError, RecuError
from recu.base.file_kinds import describe_bytes, describe_kind
from recu.base.files import check_ordinary, reading

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_IMAGE_BYTES = 64 << 20
"""Of one image file: more than a photograph has, while a few kilobytes of archive can stand for a terabyte."""
MAX_PIXELS = 178_000_000
"""Width times height of one image: half a gigabyte once decoded. Above that Pillow itself refuses."""
MAX_WAITING_BYTES = 256 << 20
"""Encoded images that wait to be decoded, all together."""

_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")
# Pillow would otherwise try every format it knows, some of which start other programs (EPS).
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"qoif", "QOI"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"SIMPLE  =", "FITS"),
)
_FTYP_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
_PILLOW_FEATURES = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}

_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLES = 258, 262, 339
_TIFF_SIGNED = 2
"""Kind of samples whose 0 is no end of the scale; Pillow reads those of 8 bits as if it were."""
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
    resized: int
    """How many had another size."""
    deep: int
    """How many had more than 8 bits a channel."""
    animated: int
    """How many had several frames."""


def image_format_of(head: bytes) -> str | None:
    """The image format that a file's first bytes are of; None for what is no image."""
    if head[4:8] == b"ftyp" and head[8:12] in _FTYP_BRANDS:
        return "AVIF" if b"avif" in head[8:64] else "HEIF"
    if head.startswith(b"RIFF"):
        return "WEBP" if head[8:12] == b"WEBP" else None
    if head.startswith(b"BM"):
        return "BMP" if head[6:10] == bytes(4) else None
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n#":
        return "PPM"
    return next((name for first_bytes, name in _SIGNATURES if head.startswith(first_bytes)), None)


def unreadable_format(name: str) -> str | None:
    """Why images of a format of `image_format_of` cannot be read here; None if they can."""
    feature = _PILLOW_FEATURES.get(name)
    if name in _FORMATS and (feature is None or features.check(feature)):
        return None
    missing = ", which the installed Pillow was built without" if name in _FORMATS else ""
    return f"it is a {name} image{missing}"


def read_image(file: Path) -> bytes:
    """The content of an image file; of one that is too large for an image, enough to refuse it. Raises DataError."""
    with reading(file, DataError):
        check_ordinary(file)
        with file.open("rb") as stream:
            return stream.read(MAX_IMAGE_BYTES + 1)


def unusable(name: str, error: Exception) -> DataError:
    """What went wrong while an image was read, decoded or viewed, in one line that names the image."""
    if isinstance(error, AlteredData):
        return error
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RecuError):
        return DataError(reason if name in str(error) else f"image {name}: {reason}")
    return DataError(f"cannot use image {name} ({type(error).__name__}: {reason[:200]}); replace it or move it away")


@contextmanager
def opened_image(data: bytes | Path, name: str) -> Iterator[Image.Image]:
    """Within the block, the image with its header read; whatever goes wrong there names the image in one line.

    Args:
        data: the encoded image, or its file.
        name: what to call it in messages.

    Raises:
        DataError: it is unreadable, truncated or absurdly large.
    """
    try:
        if isinstance(data, bytes) and len(data) > MAX_IMAGE_BYTES:
            raise DataError(f"{name} has {len(data)} bytes, more than the {MAX_IMAGE_BYTES} that an image may have")
        with Image.open(data if isinstance(data, Path) else io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(_too_large(name, f"{image.width}x{image.height} pixels"))
            yield image
    except RecuError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(name, str(error))) from error
    except UnidentifiedImageError as error:
        kind = describe_kind(data) if isinstance(data, Path) else describe_bytes(data)
        what = f"it is {kind}" if kind else "not in a known format"
        what += ", damaged or of a form that Pillow does not read" if what.endswith(" image") else ""
        raise DataError(f"unreadable image {name}: {what}; replace it or move it away") from error
    except Exception as error:  # Pillow raises nearly anything on damaged images: IndexError, struct.error, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"unreadable image {name}: {reason}; replace it or move it away") from error


def open_image(data: bytes, name: str) -> Image.Image:
    """Decode one image into RGB, 8 bits a channel, as `as_rgb` says; of an animation the first frame.

    Raises:
        DataError: as `opened_image` and `as_rgb`.
    """
    with opened_image(data, name) as image:
        return as_rgb(image, name)


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """The opened image in RGB, 8 bits a channel; transparency and EXIF orientation are ignored, as torchvision does.

    Grey values of 16 bits are scaled by their depth: 255 v / 65535 = v / 257, rounded to the nearest (12 bits: 255 v /
    4095). Of colours with 16 bits a channel Pillow keeps the upper 8, which is at most one level less. Everything else
    is what Pillow's `convert("RGB")` gives.

    Raises:
        DataError: its values are 32-bit or floating-point numbers, whose black and white no file says.
    """
    if _is_16_bit_grey(image):
        return _scaled_grey(image).convert("RGB")
    _check_mode(image, name)
    return image.convert("RGB")


def inspect_image(data: bytes | Path, name: str) -> tuple[bool, bool]:
    """Whether an image has more than 8 bits a channel, and whether it has several frames; its pixels are not decoded.

    Raises:
        DataError: it is unreadable as far as its header tells, or of a mode that `as_rgb` refuses.
    """
    with opened_image(data, name) as image:
        _check_mode(image, name)
        return is_deep(image), frames_of(image) > 1


def change_notes(deep: int, animated: int) -> tuple[str, ...]:
    """What decoding changes, in sentences.

    Args:
        deep: images with more than 8 bits a channel.
        animated: images with several frames.
    """
    changes = (
        (deep, f"images with more than 8 bits a channel, scaled to 8: {deep}"),
        (animated, f"images with several frames, of which the first is taken: {animated}"),
    )
    return tuple(note for count, note in changes if count)


def is_deep(image: Image.Image) -> bool:
    """Whether a channel has more than 8 bits, so that `as_rgb` scales it; known before decoding."""
    raw_modes = [str(tile[3]) for tile in image.tile]  # type: ignore[attr-defined]
    return image.mode.startswith("I") or any(";16" in mode or ";12" in mode for mode in raw_modes)


def frames_of(image: Image.Image) -> int:
    """Number of frames; more than one of an animation."""
    return getattr(image, "n_frames", 1)


def _is_16_bit_grey(image: Image.Image) -> bool:
    # Pillow scales PGM with more than 8 bits to 16, but keeps them as 32-bit numbers.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")


def _check_mode(image: Image.Image, name: str) -> None:
    if image.mode.startswith(("I", "F")) and not _is_16_bit_grey(image):
        raise DataError(
            f"unreadable image {name}: its pixels are of mode {image.mode!r} (32-bit or floating-point numbers), which"
            " does not say what is black and white; convert it to 8 or 16 bits"
        )
    if _TIFF_SIGNED in getattr(image, "tag_v2", {}).get(_TIFF_SAMPLES, ()):
        raise DataError(
            f"unreadable image {name}: its pixels are signed numbers, which does not say what is black and white;"
            " convert it to 8 or 16 bits"
        )


def _scaled_grey(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    highest = 4095 if tags.get(_TIFF_BITS) == (12,) else 65535
    grey = np.asarray(image).astype(np.uint32)
    scaled = ((grey * 255 + highest // 2) // highest).astype(np.uint8)
    # Pillow inverts TIFFs whose 0 is white only where they have 8 bits or fewer.
    return Image.fromarray(255 - scaled if tags.get(_TIFF_PHOTOMETRIC) == 0 else scaled)


def _too_large(name: str, found: str) -> str:
    return f"image {name} is too large ({found}), expected at most {MAX_PIXELS} pixels; scale it down"


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """Scale the shorter side to `size` (bilinear, anti-aliased) and cut out the centre; nothing changes if it fits.

    Raises:
        ValueError: the image is so long and narrow that it would take all memory.
    """
    before = f"{image.width}x{image.height}"
    width, height = image.size
    if (width, height) == (size, size):
        return image
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    if width * height > MAX_PIXELS:
        raise ValueError(f"{before} pixels would be scaled to {width}x{height}, more than {MAX_PIXELS}")
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def decode_chunk(chunk: EncodedChunk) -> DecodedChunk:
    """Decode, convert to RGB and fit every image of the chunk.

    Raises:
        DataError: an image is unreadable; the message names it.
    """
    images = np.empty((len(chunk.data), chunk.size, chunk.size, 3), dtype=np.uint8)
    resized = deep = animated = 0
    for position, (name, data) in enumerate(zip(chunk.names, chunk.data, strict=True)):
        with opened_image(data, name) as image:
            resized += image.size != (chunk.size, chunk.size)
            deep += is_deep(image)
            animated += frames_of(image) > 1
            images[position] = np.asarray(fit_square(as_rgb(image, name), chunk.size))
    return DecodedChunk(images, resized, deep, animated)


def map_in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    *,
    weight: Callable[[Item], int] | None = None,
) -> Iterator[Result]:
    """`function` of each item, in order, computed by `workers` processes while further items are still being read.

    Processes are used because Pillow holds the interpreter's lock for most of the work on a small image. With fewer
    than two workers, or so few items that starting processes would take longer, everything happens in this process.

    Args:
        function: what to compute; picklable.
        items: its arguments.
        workers: processes.
        weight: bytes of an item; no further item is read while `MAX_WAITING_BYTES` wait.
    """
    iterator = iter(items)
    head = list(itertools.islice(iterator, _SERIAL_CHUNKS + 1))
    if workers < 2 or len(head) <= _SERIAL_CHUNKS:
        yield from map(function, itertools.chain(head, iterator))
        return
    # "spawn": forking a process that already runs threads (PyTorch's, MLflow's) can hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending: deque[tuple[int, Future[Result]]] = deque()
        waiting = 0
        try:
            for item in itertools.chain(head, iterator):
                pending.append((weight(item) if weight else 0, pool.submit(function, item)))
                waiting += pending[-1][0]
                # Bounds memory when reading is faster than decoding.
                while len(pending) > 4 * workers or waiting > MAX_WAITING_BYTES:
                    bytes_done, future = pending.popleft()
                    yield future.result()
                    waiting -= bytes_done
            while pending:
                yield pending.popleft()[1].result()
        except BrokenProcessPool as error:
            raise DataError(
                "a decoding process was killed, perhaps for want of memory; try with fewer workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
