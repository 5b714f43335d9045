"""Miniature datasets in the layouts of the original ones."""

from __future__ import annotations

import io
import platform
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from recu.data import prepare
from recu.data.load.memory import MemoryLoader
from recu.experiment.augmentations import BATCH_AUGMENTATIONS
from recu.experiment.schema import Dataset

DALI_EXISTS = (sys.platform, platform.machine()) in {("linux", "x86_64"), ("linux", "aarch64")}
"""Whether NVIDIA DALI can be installed here; where it can, it is part of the test environment."""


def dataset(**changes) -> Dataset:
    """A small imagefolder entry; `changes` replace fields."""
    fields = {
        "title": "Mini",
        "kind": "imagefolder",
        "family": "cifar",
        "num_classes": 2,
        "image_size": 8,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.25, 0.3),
        "augmentation": "crop_flip",
    }
    return Dataset(**{**fields, **changes})


def image_bytes(seed: int, size: tuple[int, int] = (8, 8), kind: str = "PNG", mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind)
    return stream.getvalue()


def class_tree(
    classes=("ant", "bee"), per_class: dict[str, int] | None = None, suffix: str = "png"
) -> dict[str, bytes]:
    """Member name to content of train/<class>/N and test/<class>/N."""
    counts = per_class or {"train": 3, "test": 2}
    kind = {"png": "PNG", "JPEG": "JPEG", "jpg": "JPEG"}[suffix]
    return {
        f"{split}/{name}/{number}.{suffix}": image_bytes(hash_of(split, name, number), kind=kind)
        for split, count in counts.items()
        for name in classes
        for number in range(count)
    }


def hash_of(*parts: object) -> int:
    return sum(ord(character) * (position + 1) for position, character in enumerate(repr(parts)))


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar_with(path: Path, info: tarfile.TarInfo, content: bytes = b"") -> Path:
    """A tar with one member as `info` describes it."""
    with tarfile.open(path, "w") as tar:
        tar.addfile(info, io.BytesIO(content))
    return path


# The official CIFAR files were pickled by Python 2 (protocol 2), which no Python 3 pickler writes: text is in 8-bit
# string opcodes and arrays name numpy.core.multiarray. So they are spelled out here.


def python2_pickle(value: object) -> bytes:
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: object) -> bytes:
    if isinstance(value, str):
        return _python2_string(value.encode("latin1"))
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(_python2(item) for item in value) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(key) + _python2(item) for key, item in value.items()) + b"u"
    if isinstance(value, np.ndarray):
        return _python2_array(value)
    raise TypeError(type(value))


def _python2_string(data: bytes) -> bytes:
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data


def _python2_array(array: np.ndarray) -> bytes:
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _python2(0) + b"\x85" + _python2("b") + b"tR"
    dtype_state = b"(" + _python2(3) + _python2("|") + b"NNN" + _python2(-1) * 2 + _python2(0) + b"t"
    dtype = b"cnumpy\ndtype\n(" + _python2("u1") + _python2(0) + _python2(1) + b"tR" + dtype_state + b"b"
    shape = b"(" + b"".join(_python2(size) for size in array.shape) + b"t"
    state = b"(" + _python2(1) + shape + dtype + b"\x89" + _python2_string(array.tobytes()) + b"t"
    return empty + state + b"b"


def cifar10_files(per_batch: int = 4) -> dict[str, bytes]:
    """The members of cifar-10-python.tar.gz with few images."""
    files = {}
    parts = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for index, part in enumerate(parts):
        data = np.random.default_rng(index).integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        labels = [(index + position) % 10 for position in range(per_batch)]
        names = [f"{index}_{position}.png" for position in range(per_batch)]
        content = {"batch_label": part, "labels": labels, "data": data, "filenames": names}
        files[f"cifar-10-batches-py/{part}"] = python2_pickle(content)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    files["cifar-10-batches-py/batches.meta"] = python2_pickle({"label_names": names, "num_vis": 3072})
    files["cifar-10-batches-py/readme.html"] = b"<html></html>"
    return files


def cifar100_files(count: int = 5) -> dict[str, bytes]:
    """The members of cifar-100-python.tar.gz with few images."""
    files = {}
    for index, part in enumerate(("train", "test")):
        data = np.random.default_rng(index).integers(0, 256, (count, 3072), dtype=np.uint8)
        content = {
            "fine_labels": [(7 * position) % 100 for position in range(count)],
            "coarse_labels": [position % 20 for position in range(count)],
            "data": data,
        }
        files[f"cifar-100-python/{part}"] = python2_pickle(content)
    meta = {
        "fine_label_names": [f"f{label}" for label in range(100)],
        "coarse_label_names": [f"c{n}" for n in range(20)],
    }
    files["cifar-100-python/meta"] = python2_pickle(meta)
    return files


# TinyImageNet and ImageNet in the layouts of the distributed files.

WNIDS = ("n01440764", "n01443537", "n01484850")


def tinyimagenet_files(per_class: int = 3, validation: int = 6) -> dict[str, bytes]:
    """The members of tiny-imagenet-200.zip, with three classes."""
    root = "tiny-imagenet-200"
    files = {f"{root}/wnids.txt": "\n".join(WNIDS).encode(), f"{root}/words.txt": b"n01440764\ttench\n"}
    for wnid in WNIDS:
        for number in range(per_class):
            name = f"{root}/train/{wnid}/images/{wnid}_{number}.JPEG"
            files[name] = image_bytes(hash_of(wnid, number), (64, 64), "JPEG")
        files[f"{root}/train/{wnid}/{wnid}_boxes.txt"] = f"{wnid}_0.JPEG\t0\t0\t62\t62\n".encode()
    lines = []
    for number in range(validation):
        files[f"{root}/val/images/val_{number}.JPEG"] = image_bytes(1000 + number, (64, 64), "JPEG", mode="L")
        lines.append(f"val_{number}.JPEG\t{WNIDS[number % 3]}\t0\t0\t62\t62\n")
    files[f"{root}/val/val_annotations.txt"] = "".join(lines).encode()
    files[f"{root}/test/images/test_0.JPEG"] = image_bytes(5, (64, 64), "JPEG")
    return files


def tar_bytes(files: dict[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def devkit_bytes(train_counts: dict[str, int], truth: list[int]) -> bytes:
    """ILSVRC2012_devkit_t12.tar.gz: classes get the ids 1, 2, ... in reverse order of their names, as names need not
    sort like ids; one synset with children follows."""
    from scipy.io import savemat

    names = [
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    ]
    rows = [
        (number, wnid, f"words of {wnid}", "gloss", 0, [], 0, train_counts[wnid])
        for number, wnid in enumerate(sorted(train_counts, reverse=True), 1)
    ]
    rows.append((len(rows) + 1, "n00001740", "entity", "gloss", 2, [1, 2], 9, 0))
    synsets = np.array([tuple(row) for row in rows], dtype=[(name, object) for name in names]).reshape(-1, 1)
    stream = io.BytesIO()
    savemat(stream, {"synsets": synsets})
    root = "ILSVRC2012_devkit_t12"
    files = {
        f"{root}/readme.txt": b"readme",
        f"{root}/data/meta.mat": stream.getvalue(),
        f"{root}/data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{label}\n" for label in truth).encode(),
    }
    return tar_bytes(files, "w:gz")


def write_imagenet(folder: Path, per_class: int = 3, validation: int = 4) -> Path:
    """The three distributed files with three classes; validation image k has class id k modulo 3, plus 1."""
    folder.mkdir(parents=True, exist_ok=True)
    class_tars = {}
    for wnid in WNIDS:
        images = {
            f"{wnid}_{number}.JPEG": image_bytes(hash_of(wnid, number), (60 + number, 48), "JPEG")
            for number in range(per_class)
        }
        class_tars[f"{wnid}.tar"] = tar_bytes(images)
    write_tar(folder / "ILSVRC2012_img_train.tar", class_tars)
    truth = [number % 3 + 1 for number in range(validation)]
    images = {
        f"ILSVRC2012_val_{number:08}.JPEG": image_bytes(2000 + number, (50, 70), "JPEG")
        for number in range(1, validation + 1)
    }
    write_tar(folder / "ILSVRC2012_img_val.tar", images)
    counts = {wnid: per_class for wnid in WNIDS}
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(devkit_bytes(counts, truth))
    return folder


def large_dataset(**changes) -> Dataset:
    """An ImageNet-like entry with three classes."""
    fields = {"kind": "imagenet", "family": "imagenet", "num_classes": 3, "image_size": 32}
    return dataset(**{**fields, "augmentation": "resized_crop_lighting", "obtain": "get the files", **changes})


def prepared_as_it_is(folder: Path) -> Path:
    """Prepare the images that lie in a prepared folder, altered meanwhile, as data of their own."""
    again = folder.with_name(f"{folder.name}-as-it-is")
    prepare("im", large_dataset(), folder=again, source=folder / "images", workers=0)
    return again


def memory_loader(device: torch.device, count: int = 64, *, classes: int = 10) -> MemoryLoader:
    """Batches of 16 out of random images (count, 32, 32, 3) held on the device, cropped and mirrored."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return MemoryLoader(
        images,
        torch.randint(0, classes, (count,), generator=generator),
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
        batch_size=16,
        device=device,
        seed=1,
        augmentation=BATCH_AUGMENTATIONS["crop_flip"],
    )
