"""What a file really is, judged by its bytes: its name may say otherwise."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_HEAD_BYTES = 4096
_LARGEST_SAFETENSORS_HEADER = 100 << 20

_MAGIC = (
    (b"PK\x05\x06", "an empty zip archive"),
    (b"PK\x07\x08", "a part of a split zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a file compressed with zstd"),
    (b"\x04\x22\x4d\x18", "a file compressed with lz4"),
    (b"\x1f\x9d", "a file compressed with compress (.Z)"),
    (b"LZIP", "a file compressed with lzip"),
    (b"MSCF", "a Windows cabinet (.cab)"),
    (b"xar!", "a xar archive"),
    (b"!<arch>\n", "an ar archive"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow (Feather) file"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"CDF\x01", "a NetCDF file"),
    (b"CDF\x02", "a NetCDF file"),
    (b"MATLAB ", "a MATLAB file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"GGUF", "a GGUF model"),
    (b"ReCUbits", "a packed network"),
    (b"%PDF", "a PDF document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office document"),
    (b"\x7fELF", "a program"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
)
"""First bytes and what they stand for."""

_COMPRESSIONS: tuple[tuple[bytes, str, Callable[[BinaryIO], Any]], ...] = (
    (b"\x1f\x8b", "gzip", lambda stream: gzip.GzipFile(fileobj=stream)),
    (b"BZh", "bzip2", bz2.BZ2File),
    (b"\xfd7zXZ\0", "xz", lzma.LZMAFile),
)


def describe_kind(path: Path) -> str | None:
    """What the file is, as words that follow "it is", e.g. "a 7z archive"; None where its bytes tell nothing.

    Only its first bytes are read, and of a zip the list of its members. Nothing is unpacked to the disk.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_dir():
        return "a folder"
    if not stat.S_ISREG(path.stat().st_mode):
        return "a device, pipe or socket"
    with path.open("rb") as stream:
        return _describe(stream)


def describe_bytes(data: bytes) -> str | None:
    """The same of a file's content."""
    return _describe(io.BytesIO(data))


def _describe(stream: BinaryIO) -> str | None:
    head = stream.read(_HEAD_BYTES)
    if not head:
        return "an empty file"
    for first_bytes, name, opened in _COMPRESSIONS:
        if head.startswith(first_bytes):
            return _compressed(stream, name, opened)
    if head.startswith(b"PK\x03\x04"):
        return _zip(stream)
    return _by_first_bytes(head) or _safetensors(head) or _pickle(head) or _text(head)


def _by_first_bytes(head: bytes) -> str | None:
    for first_bytes, kind in _MAGIC:
        if head.startswith(first_bytes):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "a WebP image"
    if head[4:8] == b"ftyp":
        return "an AVIF or HEIF image" if head[8:12] in (b"avif", b"avis", b"heic", b"mif1") else "a video"
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return "a BMP image"
    if head.startswith(b"MZ") and b"PE\0\0" in head:
        return "a Windows program"
    if not head.strip(b"\0"):
        return "a file of zeros (a download that never came, or a damaged disk)"
    return None


def _compressed(stream: BinaryIO, name: str, opened: Callable[[BinaryIO], BinaryIO]) -> str:
    """A gzip, bzip2 or xz file by what is inside; that alone is looked at, not whether all of it can be unpacked."""
    stream.seek(0)
    try:
        with opened(stream) as unpacked:
            inside = unpacked.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return f"a damaged {name} file"
    kind = _by_first_bytes(inside) or _zip_inside(inside) or _safetensors(inside) or _pickle(inside) or _text(inside)
    if kind == "a tar archive":
        return f"a tar archive compressed with {name}"
    return f"{kind} compressed with {name}" if kind else f"a file compressed with {name}"


def _zip_inside(head: bytes) -> str | None:
    return "a zip archive" if head.startswith(b"PK\x03\x04") else None


def _zip(stream: BinaryIO) -> str:
    try:
        with zipfile.ZipFile(stream) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "a damaged or cut zip archive"
    parts = [name.split("/", 1) for name in names]
    below = {part[1] for part in parts if len(part) == 2}
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays (.npz)"
    if "constants.pkl" in below:
        return "a TorchScript program (torch.jit.save)"
    if "data.pkl" in below:
        return "a PyTorch checkpoint"
    if "word/document.xml" in names or "xl/workbook.xml" in names:
        return "a Microsoft Office document"
    files = [name for name in names if not name.endswith("/")]
    return f"a zip archive that holds {files[0]!a} alone" if len(files) == 1 else "a zip archive"


def _safetensors(head: bytes) -> str | None:
    size = int.from_bytes(head[:8], "little")
    if not 2 <= size <= _LARGEST_SAFETENSORS_HEADER or head[8:9] != b"{":
        return None
    text = head[8 : 8 + size]
    if len(text) == size:
        try:
            json.loads(text)
        except ValueError:
            return None
    return "a safetensors file"


def _pickle(head: bytes) -> str | None:
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
        # PyTorch's form before 1.6 begins with a pickled number of its own.
        legacy = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." in head[:32]
        return "a PyTorch checkpoint in the form before 1.6" if legacy else "a Python pickle"
    return None


def _text(head: bytes) -> str | None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "a text file in UTF-16"
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # a character may be cut at the end of `head`
    except UnicodeDecodeError:
        return None
    if any(ord(character) < 32 and character not in "\t\n\r\f\x1b" for character in text):
        return None
    return _text_kind(text.strip())


def _text_kind(text: str) -> str:
    lower = text.lower()
    if lower.startswith("version https://git-lfs"):
        return "a Git LFS pointer in place of the file (`git lfs pull` fetches it)"
    if lower.startswith("/annex/objects") or ".git/annex/objects" in lower[:200]:
        return "a git-annex pointer in place of the file (`git annex get` fetches it)"
    if lower.startswith(("<!doctype html", "<html", "<head", "<body")) or "<html" in lower:
        return "an HTML page (what a browser shows instead of the download)"
    if lower.startswith("<?xml"):
        return "an XML document (often a server's error message)"
    if lower.startswith(("{", "[")):
        return "a JSON text"
    return f"a text file that begins {text[:60]!a}"
