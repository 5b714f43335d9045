"""What a file is, whatever its name says."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recu.base.file_kinds import describe_kind


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return stream.getvalue()


def zip_of(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.zeros(3))
    return stream.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def image(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, kind)
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0d71\nsize 19332096\n"
PAGE = b"<!DOCTYPE html><html><head><title>Virus scan warning</title></head></html>"

KINDS = {
    "empty": (b"", "an empty file"),
    "lfs": (LFS, "a Git LFS pointer in place of the file (`git lfs pull` fetches it)"),
    "html": (b"\xef\xbb\xbf\n  " + PAGE, "an HTML page (what a browser shows instead of the download)"),
    "xml": (b"<?xml version='1.0'?><Error/>", "an XML document (often a server's error message)"),
    "json": (b'{"error": "quota"}', "a JSON text"),
    "text": (b"Not found\n", "a text file that begins 'Not found'"),
    "cut-utf8": (("a" + 3000 * "\u00e9").encode(), f"a text file that begins {'a' + 59 * chr(0xE9)!a}"),
    "7z": (b"7z\xbc\xaf\x27\x1crest", "a 7z archive"),
    "zstd": (b"\x28\xb5\x2f\xfdrest", "a file compressed with zstd"),
    "rar": (b"Rar!\x1a\x07\x01\x00", "a RAR archive"),
    "parquet": (b"PAR1xxxxPAR1", "a Parquet file"),
    "npz": (npz(), "NumPy arrays (.npz)"),
    "safetensors": (safetensors(), "a safetensors file"),
    "pdf": (b"%PDF-1.7", "a PDF document"),
    "tar": (tar(), "a tar archive"),
    "zip": (zip_of("a/x", "b/x"), "a zip archive"),
    "zip-of-one": (zip_of("model_best.pth.tar"), "a zip archive that holds 'model_best.pth.tar' alone"),
    "zip-cut": (zip_of("a", "b")[:-30], "a damaged or cut zip archive"),
    "torch": (zip_of("archive/data.pkl", "archive/version"), "a PyTorch checkpoint"),
    "torchscript": (zip_of("m/data.pkl", "m/constants.pkl"), "a TorchScript program (torch.jit.save)"),
    "tar.gz": (gzip.compress(tar()), "a tar archive compressed with gzip"),
    "tar.xz": (lzma.compress(tar()), "a tar archive compressed with xz"),
    "checkpoint.gz": (gzip.compress(zip_of("archive/data.pkl", "b")), "a zip archive compressed with gzip"),
    "noise.bz2": (bz2.compress(bytes(range(128, 256))), "a file compressed with bzip2"),
    "gz-damaged": (b"\x1f\x8b" + b"0" * 100, "a damaged gzip file"),
    "pickle": (pickle.dumps({"a": 1}, protocol=4), "a Python pickle"),
    "png": (image("PNG"), "a PNG image"),
    "bmp": (image("BMP"), "a BMP image"),
    "webp": (image("WEBP"), "a WebP image"),
    "zeros": (bytes(100), "a file of zeros (a download that never came, or a damaged disk)"),
    "noise": (bytes(range(128, 256)), None),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_first_bytes_tell_what_a_file_is(tmp_path: Path, name: str) -> None:
    data, expected = KINDS[name]
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(data)
    assert describe_kind(path) == expected


def test_a_folder_is_a_folder(tmp_path: Path) -> None:
    assert describe_kind(tmp_path) == "a folder"


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert describe_kind(tmp_path / "pipe") == "a device, pipe or socket"


def test_a_missing_file_is_the_callers_to_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        describe_kind(tmp_path / "none")
