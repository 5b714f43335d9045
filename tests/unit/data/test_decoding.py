"""Every kind of image becomes the same RGB with 8 bits, whatever reads it, or is refused by name."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from recu.base.errors import DataError
from recu.data import build_loaders, decoding, open_prepared, prepare
from recu.data.decoding import change_notes, inspect_image, open_image
from recu.data.load.transforms import decode

from .builders import DALI_EXISTS, class_tree, dataset, image_bytes, write_folder, write_tar

needs_dali = pytest.mark.skipif(not DALI_EXISTS, reason="NVIDIA DALI exists for Linux on x86_64 and aarch64 only")

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def animation(kind: str) -> bytes:
    first, second = (Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (40, 200))
    return encoded(
        first,
        kind,
        save_all=True,
        append_images=[second],
        duration=50,
        **({"lossless": True} if kind == "WEBP" else {}),
    )


def rgb_png_of_16_bits(values: np.ndarray) -> bytes:
    """Pillow writes none: (H, W, 3) uint16."""
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    stream = io.BytesIO(b"")
    stream.write(b"\x89PNG\r\n\x1a\n")
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        PngImagePlugin.putchunk(stream, name, data)
    return stream.getvalue()


WIDE = GREY.astype(np.uint16) * 257
DEEP = {
    "png": encoded(Image.fromarray(WIDE), "PNG"),
    "tiff": encoded(Image.fromarray(WIDE), "TIFF"),
    "tiff-big-endian": encoded(Image.fromarray(WIDE.astype(">u2")), "TIFF"),
    "pgm": b"P5\n16 16\n65535\n" + WIDE.astype(">u2").tobytes(),
    "pgm-12": b"P5\n16 16\n4095\n" + np.rint(GREY * (4095 / 255)).astype(">u2").tobytes(),
    "rgb-png": rgb_png_of_16_bits(np.stack([WIDE] * 3, -1)),
    "tiff-white-is-zero": encoded(Image.fromarray(65535 - WIDE), "TIFF", tiffinfo={262: 0}),
}


@pytest.mark.parametrize("kind", DEEP)
def test_images_of_16_bits_are_scaled_by_their_depth(kind: str) -> None:
    image = np.asarray(open_image(DEEP[kind], "x"))
    assert np.array_equal(image, np.stack([GREY] * 3, -1))
    assert inspect_image(DEEP[kind], "x") == (True, False)


def test_grey_of_16_bits_is_rounded_to_the_nearest_level() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (16, 16), dtype=np.uint16)
    image = np.asarray(open_image(encoded(Image.fromarray(values), "PNG"), "x"))[..., 0]
    assert np.array_equal(image, np.rint(values / 257).astype(np.uint8))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    assert np.all(np.asarray(open_image(animation(kind), "x")) == 40)
    assert inspect_image(animation(kind), "x") == (False, True)


PICTURE = Image.open(io.BytesIO(image_bytes(1, (20, 16))))
TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
"""Orientation 6: to be shown turned by 90 degrees."""

ORDINARY = {
    "jpeg": image_bytes(1, (20, 16), "JPEG"),
    "jpeg-grey": image_bytes(1, (20, 16), "JPEG", mode="L"),
    "jpeg-progressive": encoded(PICTURE, "JPEG", progressive=True),
    "jpeg-cmyk": image_bytes(1, (20, 16), "JPEG", mode="CMYK"),
    "jpeg-turned": encoded(PICTURE, "JPEG", exif=TURNED),
    "png": image_bytes(1, (20, 16)),
    "png-grey-alpha": image_bytes(1, (20, 16), mode="LA"),
    "png-alpha": image_bytes(1, (20, 16), mode="RGBA"),
    "png-palette-transparent": encoded(PICTURE.convert("P"), "PNG", transparency=3),
    "png-1-bit": image_bytes(1, (20, 16), mode="1"),
    "gif": image_bytes(1, (20, 16), "GIF", mode="P"),
    "bmp": image_bytes(1, (20, 16), "BMP"),
    "webp": image_bytes(1, (20, 16), "WEBP"),
    "one-pixel": image_bytes(1, (1, 1)),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_images_are_what_pillow_converts_to_rgb(kind: str) -> None:
    expected = np.asarray(Image.open(io.BytesIO(ORDINARY[kind])).convert("RGB"))
    assert np.array_equal(np.asarray(open_image(ORDINARY[kind], "x")), expected)
    assert inspect_image(ORDINARY[kind], "x") == (False, False)


@pytest.mark.parametrize("data", [*DEEP.values(), *ORDINARY.values(), animation("GIF"), animation("PNG")])
def test_the_loaders_decoder_gives_the_same_pixels(data: bytes) -> None:
    expected = np.asarray(open_image(data, "x"))
    assert np.array_equal(decode(data, "x").permute(1, 2, 0).numpy(), expected)


REFUSED = {
    "float": (encoded(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"), r"x: its pixels are of mode 'F'"),
    "32-bit": (encoded(Image.fromarray(GREY.astype(np.int32) * 1000), "TIFF"), r"x: its pixels are of mode 'I'"),
    "signed": (
        encoded(Image.fromarray(GREY), "TIFF", tiffinfo={339: 2}),
        r"x: its pixels are signed numbers.*convert it to 8 or 16 bits",
    ),
    "odd-tiff": (
        encoded(Image.fromarray(GREY), "TIFF").replace(
            b"\x02\x01\x03\0\x01\0\0\0\x08", b"\x02\x01\x03\0\x01\0\0\0\x09"
        ),
        r"x: it is a TIFF image, damaged or of a form that Pillow does not read",
    ),
    "cut": (image_bytes(1, (60, 60), "JPEG")[:-20], "unreadable image x: image file is truncated"),
    "without-end-mark": (image_bytes(1, (60, 60), "JPEG")[:-2], "unreadable image x: image file is truncated"),
    "page": (b"<!DOCTYPE html><html></html>", "unreadable image x: it is an HTML page"),
    "empty": (b"", "unreadable image x: it is an empty file"),
    "zeros": (bytes(100), "unreadable image x: it is a file of zeros"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_right_pixels_is_refused_by_both_decoders(kind: str) -> None:
    data, text = REFUSED[kind]
    for read in (open_image, decode):
        with pytest.raises(DataError, match=text):
            read(data, "x")


def test_absurd_sizes_are_refused_by_both_decoders(monkeypatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 300)
    for read in (open_image, decode):
        with pytest.raises(DataError, match=r"image x is too large .*20x16 pixels.*at most 300"):
            read(ORDINARY["jpeg"], "x")
    monkeypatch.setattr(decoding, "MAX_IMAGE_BYTES", 100)
    with pytest.raises(DataError, match=r"x has .* bytes, more than the 100"):
        open_image(ORDINARY["jpeg"], "x")


def test_a_bomb_is_refused_by_its_header() -> None:
    data = encoded(Image.new("1", (20000, 20000)), "PNG")
    with pytest.raises(DataError, match="image x is too large"):
        open_image(data, "x")


def test_whatever_pillow_raises_names_the_image(monkeypatch) -> None:
    def fails(*_args, **_options):
        raise IndexError("list index out of range")

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(DataError, match="unreadable image x: list index out of range"):
        open_image(b"", "x")


def mixed_tree() -> dict[str, bytes]:
    files = class_tree(suffix="JPEG")
    odd = {"7.gif": animation("GIF"), "8.png": DEEP["png"], "9.png": ORDINARY["png-palette-transparent"]}
    return files | {f"test/ant/{name}": data for name, data in odd.items()}


@pytest.mark.parametrize("source", ["folder", "tar"])
@pytest.mark.parametrize("augmentation", ["crop_flip", "resized_crop_lighting"])
def test_preparing_says_what_decoding_changes(tmp_path: Path, source: str, augmentation: str) -> None:
    path = {"folder": write_folder, "tar": write_tar}[source](tmp_path / "source", mixed_tree())
    prepared = prepare("x", dataset(augmentation=augmentation), folder=tmp_path / "data", source=path, workers=0)
    assert prepared.manifest.notes[-2:] == change_notes(1, 1)


@pytest.mark.parametrize("source", ["folder", "tar"])
@pytest.mark.parametrize("augmentation", ["crop_flip", "resized_crop_lighting"])
def test_preparing_refuses_pixels_without_black_and_white(tmp_path: Path, source: str, augmentation: str) -> None:
    files = class_tree() | {"train/ant/float.tiff": REFUSED["float"][0]}
    path = {"folder": write_folder, "tar": write_tar}[source](tmp_path / "source", files)
    with pytest.raises(DataError, match=r"train/ant/float\.tiff: its pixels are of mode 'F'"):
        prepare("x", dataset(augmentation=augmentation), folder=tmp_path / "data", source=path, workers=0)


@pytest.mark.parametrize(
    "loader", ["torchvision", pytest.param("dali", marks=pytest.mark.skipif(not DALI_EXISTS, reason="no DALI"))]
)
def test_every_loader_shows_unusual_images_as_the_others(tmp_path: Path, loader: str) -> None:
    # Images of 37x37 need no scaling for a view of 32, so that pixels are comparable to the last bit.
    side = 37
    grey = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    plain = encoded(Image.fromarray(grey), "PNG")
    kinds = {
        "png": plain,
        "deep.png": encoded(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"),
        "moving.gif": encoded(Image.fromarray(grey), "GIF", save_all=True, append_images=[Image.fromarray(255 - grey)]),
        "palette.png": encoded(Image.fromarray(grey).convert("P"), "PNG", transparency=3),
    }
    files = class_tree(("ant",), suffix="JPEG", per_class={"train": 2, "test": 0})
    files |= {f"test/ant/{name}": data for name, data in kinds.items()}
    files |= {f"{split}/bee/0.png": plain for split in ("train", "test")}
    entry = dataset(augmentation="resized_crop_lighting", image_size=32)
    source = write_folder(tmp_path / "source", files)
    prepare("x", entry, folder=tmp_path / "data", source=source, workers=0)
    loaders = build_loaders(
        open_prepared(tmp_path / "data", entry),
        entry,
        batch_size=3,
        batch_size_test=5,
        loader=loader,
        seed=1,
        device="cpu",
        workers=1 if loader == "dali" else 0,
    )
    ((images, _),) = loaders.test.batches(0)
    assert images.shape == (5, 3, 32, 32)
    assert all(torch.equal(image, images[0]) for image in images[1:])
