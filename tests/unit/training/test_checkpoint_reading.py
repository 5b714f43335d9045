"""What may stand beside weights, what may not, and what a file is that is no checkpoint."""

import argparse
import bz2
import datetime
import gzip
import io
import pathlib
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import Counter, defaultdict, deque

import numpy as np
import pytest
import torch

from recu.base.errors import CheckpointError
from recu.training.checkpoint import read_checkpoint

WEIGHTS = {"weight": torch.arange(6.0).view(2, 3)}
NUMBERS = {
    "float64": (np.float64(61.69), 61.69),
    "float32": (np.float32(61.5), 61.5),
    "int64": (np.int64(-3), -3),
    "bool": (np.bool_(True), True),
    "big-endian": (np.dtype(">f8").type(2.5), 2.5),
}
HARMLESS = {
    "namespace": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/x")),
    "defaultdict": defaultdict(list, {"loss": [1.0]}),
    "counter": Counter([30, 60]),
    "deque": deque([1, 2], maxlen=3),
    "path": pathlib.PosixPath("/x"),
    "windows path": pathlib.PureWindowsPath("c:/x"),
    "datetime": datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC),
    "timedelta": datetime.timedelta(seconds=3),
    "device": torch.device("cuda:0"),
    "size": torch.Size([3]),
    "dtype": torch.float16,
    "version": torch.__version__,
    "array": np.arange(3.0),
    "array of text": np.array(["a", "b"]),
    "array of objects": np.array([None, "b"], dtype=object),
    "random state": np.random.RandomState(0).get_state(),
    "type": np.float32,
    "frozenset": frozenset({1}),
    "bytes": b"abc",
}


def saved(folder, content, **more) -> pathlib.Path:
    torch.save(content, folder / "file.pth", **more)
    return folder / "file.pth"


def refused(file) -> str:
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(file)
    message = str(raised.value)
    assert "\n" not in message and str(file) in message and "remove" not in message
    return message


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", HARMLESS)
def test_what_can_run_no_code_may_stand_beside_the_weights(tmp_path, kind, zip_format):
    file = saved(tmp_path, {"state_dict": WEIGHTS, "x": HARMLESS[kind]}, _use_new_zipfile_serialization=zip_format)
    assert torch.equal(read_checkpoint(file)["state_dict"]["weight"], WEIGHTS["weight"])


@pytest.mark.parametrize("kind", NUMBERS)
def test_single_numbers_of_numpy_are_numbers(tmp_path, kind):
    value, expected = NUMBERS[kind]
    found = read_checkpoint(saved(tmp_path, {"state_dict": WEIGHTS, "best_prec1": value}))["best_prec1"]
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize("order", ["<f4", ">f4", "<f8"])
def test_arrays_as_weights_keep_their_values(tmp_path, order):
    array = np.asfortranarray(np.arange(6, dtype=order).reshape(2, 3))
    found = read_checkpoint(saved(tmp_path, {"state_dict": {"weight": array}}))["state_dict"]["weight"]
    assert torch.equal(found.float(), WEIGHTS["weight"])


def test_a_crafted_type_of_numbers_is_not_followed(tmp_path):
    class Crafted:
        """An array whose type claims to hold objects in plain bytes: NumPy would take the bytes for addresses."""

        def __reduce__(self):
            kind = np.dtype("O")
            state = (1, (1,), kind, False, b"\x41" * 8)
            return np.array([0]).__reduce__()[0], (np.ndarray, (0,), b"b"), state

    file = saved(tmp_path, {"state_dict": WEIGHTS, "x": Crafted()})
    assert read_checkpoint(file)["x"].values is None


class Other(torch.nn.Linear):
    """A class that this program does not know."""


def test_a_whole_network_is_refused_with_its_class_and_converts_as_advised(tmp_path):
    message = refused(saved(tmp_path, Other(2, 2)))
    assert "test_checkpoint_reading.Other" in message
    assert "c = torch.load(FILE, map_location='cpu', weights_only=False), then torch.save(c.state_dict(), " in message
    network = torch.load(tmp_path / "file.pth", map_location="cpu", weights_only=False)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    assert set(read_checkpoint(tmp_path / "weights.pth")["state_dict"]) == {"weight", "bias"}


def test_another_class_beside_the_weights_is_refused_and_converts_as_advised(tmp_path):
    message = refused(saved(tmp_path, {"state_dict": WEIGHTS, "criterion": Other(2, 2)}))
    assert "test_checkpoint_reading.Other" in message and "torch.save(c['state_dict'], 'weights.pth')" in message
    content = torch.load(tmp_path / "file.pth", map_location="cpu", weights_only=False)
    torch.save(content["state_dict"], tmp_path / "weights.pth")
    assert torch.equal(read_checkpoint(tmp_path / "weights.pth")["state_dict"]["weight"], WEIGHTS["weight"])


def checkpoint_bytes() -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": WEIGHTS}, stream)
    return stream.getvalue()


def zip_around() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model_best.pth.tar", checkpoint_bytes())
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, weight=WEIGHTS["weight"].numpy())
    return stream.getvalue()


def safetensors() -> bytes:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return struct.pack("<Q", len(header)) + header + bytes(4)


def torchscript() -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), stream)
    return stream.getvalue()


KINDS = {
    "lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0d\nsize 19332096\n", "a Git LFS pointer"),
    "html": (lambda: b"<!DOCTYPE html><html><title>Virus scan warning</title></html>", "an HTML page"),
    "gzip": (lambda: gzip.compress(checkpoint_bytes()), "compressed with gzip; decompress it and give what comes out"),
    "bzip2": (lambda: bz2.compress(checkpoint_bytes()), "compressed with bzip2; decompress it and give what comes out"),
    "zip": (zip_around, "that holds 'model_best.pth.tar' alone; unpack it and give the file inside"),
    "torchscript": (torchscript, "a TorchScript program (torch.jit.save); convert it: torch.save(torch.jit.load"),
    "safetensors": (safetensors, "a safetensors file; convert it: torch.save(safetensors.torch.load_file"),
    "npz": (npz, "NumPy arrays (.npz); convert it: torch.save({n: torch.from_numpy(a)"),
    "pickle": (lambda: pickle.dumps({"weight": 1.0}), "a Python pickle; write it where it was made"),
    "empty": (lambda: b"", "an empty file; fetch it again"),
    "text": (lambda: b"404: Not Found", "a text file that begins '404: Not Found'"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_is_no_checkpoint_is_named(tmp_path, kind):
    make, expected = KINDS[kind]
    (tmp_path / "file.pth").write_bytes(make())
    message = refused(tmp_path / "file.pth")
    assert "is no checkpoint: it is " in message and expected in message


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_other_kinds_converted_as_advised_are_read(tmp_path):
    weights = tmp_path / "weights.pth"
    (tmp_path / "a.npz").write_bytes(npz())
    torch.save({n: torch.from_numpy(a) for n, a in np.load(tmp_path / "a.npz").items()}, weights)
    assert torch.equal(read_checkpoint(weights)["state_dict"]["weight"], WEIGHTS["weight"])
    (tmp_path / "script.pt").write_bytes(torchscript())
    torch.save(torch.jit.load(tmp_path / "script.pt", map_location="cpu").state_dict(), weights)
    assert set(read_checkpoint(weights)["state_dict"]) == {"weight", "bias"}


def test_a_folder_and_a_missing_file(tmp_path):
    assert "it is a folder" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "none.pth")


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_a_small_file_that_claims_a_terabyte_is_refused(tmp_path, zip_format):
    wide = torch.zeros(1).as_strided((10**6, 10**6), (0, 0))
    file = saved(tmp_path, {"state_dict": {"weight": wide}}, _use_new_zipfile_serialization=zip_format)
    assert "claims 4000000000000 bytes" in refused(file)


def test_a_zip_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(20 << 20))
    assert "unpack to 20971520" in refused(tmp_path / "file.pth")


def test_a_file_that_nests_without_end_or_holds_itself(tmp_path):
    payload = b"\x80\x02}q\x00(X\x0a\x00\x00\x00state_dictq\x01]q\x02h\x02aX\x01\x00\x00\x00xq\x03" + b"]" * 5000
    payload += b"a" * 4999 + b"u."
    with zipfile.ZipFile(tmp_path / "file.pth", "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    assert "found the keys state_dict, x" in refused(tmp_path / "file.pth")


def test_reading_imports_nothing_that_a_file_names(tmp_path):
    """`this` prints when it is imported; the class of a path on Windows cannot even be made elsewhere."""
    code = f"""
import sys
from recu.training.checkpoint import read_checkpoint
from recu.base.errors import CheckpointError
try:
    read_checkpoint(__import__("pathlib").Path({str(tmp_path / "file.pth")!r}))
except CheckpointError:
    pass
sys.exit("this" in sys.modules)
"""
    file = saved(tmp_path, {"state_dict": WEIGHTS})
    content = io.BytesIO()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(content, "w") as target:
        for part in source.infolist():
            data = source.read(part)
            target.writestr(part.filename, b"cthis\ns\n." if part.filename.endswith("data.pkl") else data)
    file.write_bytes(content.getvalue())
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
