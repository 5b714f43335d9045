"""A packed file holds what was written, and anything else is refused in one line."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from recu.runtime import reader
from recu.runtime.reader import PackedError, parse
from recu.runtime.writer import packed_bytes

HEADER = {"network": "a.b", "classes": ["cat", "Köter\n"], "image": {"mean": [0.5, 0.25, 0.125]}}


def operations() -> list[dict]:
    generator = np.random.default_rng(0)
    signs = np.where(generator.random((5, 3, 3, 7)) > 0.5, np.int8(1), np.int8(-1))
    ternary = signs.copy()
    ternary[2, 1] = 0
    return [
        {"op": "convolution", "of": [0], "weight": generator.random((4, 3, 3, 3)).astype(np.float32), "stride": [1, 1]},
        {"op": "binary", "of": [1], "weight": signs, "scale": np.float32([0.5]), "hardtanh": True},
        {"op": "binary", "of": [2, 1], "weight": ternary, "threshold": np.array([1, -2, 3, 2**31 - 1, 5], np.int32)},
        {"op": "linear", "of": [3], "weight": np.empty((0, 4), np.float32)},
    ]


def test_what_was_written_is_read():
    data = packed_bytes(HEADER, operations())
    found = parse(data)
    assert found.header == HEADER and found.sha256 == hashlib.sha256(data).hexdigest()
    for read, written in zip(found.operations, operations(), strict=True):
        assert read.keys() == written.keys()
        for key, value in written.items():
            if isinstance(value, np.ndarray):
                assert read[key].dtype == value.dtype
                np.testing.assert_array_equal(read[key], value)
            else:
                assert read[key] == value
    assert packed_bytes(HEADER, operations()) == data


def test_the_reader_is_a_hundred_lines_of_numpy():
    text = Path(reader.__file__).read_text()
    assert len(text.splitlines()) <= 100
    assert "torch" not in text and "recu." not in text.replace("recu.runtime.reader", "")


def test_bits_lie_as_the_page_says():
    weight = np.int8([1, -1, -1, 1, 1, -1, 1, 1, -1, 1] * 2).reshape(2, 1, 2, 5)
    data = packed_bytes({}, [{"op": "binary", "of": [0], "weight": weight}])
    magic, version, length = struct.unpack_from("<8sII", data)
    assert (magic, version) == (b"ReCUbits", 1)
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()
    assert json.loads(data[16 : 16 + length])["operations"][0]["weight"] == {"bits": [2, 1, 2, 5], "at": 0}
    assert data[16 + length : -32] == bytes([0b11011001, 0b10] * 2)


def changed(position: int) -> bytes:
    data = bytearray(packed_bytes(HEADER, operations()))
    data[position] ^= 1
    return bytes(data)


@pytest.mark.parametrize("position", [12, 16, 40, 500, -40, -1])
def test_a_bit_that_fell_over_is_noticed(position):
    with pytest.raises(PackedError, match="damaged or cut off"):
        parse(changed(position))


@pytest.mark.parametrize("kept", [0, 5, 8, 16, 47, 48, 300, -1])
def test_a_file_that_is_cut_off(kept):
    with pytest.raises(PackedError, match=r"no packed network|cut off"):
        parse(packed_bytes(HEADER, operations())[:kept])


def test_a_newer_file_and_another_kind_of_file():
    data = bytearray(packed_bytes(HEADER, operations()))
    data[8] = 2
    with pytest.raises(PackedError, match="has version 2 of the packed form, expected 1"):
        parse(bytes(data))
    for other in (b"PK\x03\x04" + bytes(100), b"ReCUBITS" + bytes(100), bytes(100)):
        with pytest.raises(PackedError, match="is no packed network"):
            parse(other)


def sealed(header: object, tensors: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    body = struct.pack("<8sII", b"ReCUbits", 1, len(text)) + text + tensors
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize(
    "header",
    [
        [],
        {},
        {"operations": []},
        {"operations": [3]},
        {"operations": [{"op": "add"}]},
        {"operations": [{"op": "add", "of": [1]}]},
        {"operations": [{"op": "add", "of": [-1]}]},
        {"operations": [{"op": "add", "of": ["x"]}]},
        {"operations": [{"op": "scale", "of": [0], "factor": {"float32": [3], "at": 0}}]},
        {"operations": [{"op": "scale", "of": [0], "factor": {"float32": [1], "at": -4}}]},
        {"operations": [{"op": "scale", "of": [0], "factor": {"float32": [-1], "at": 0}}]},
        {"operations": [{"op": "scale", "of": [0], "factor": {"float64": [1], "at": 0}}]},
        {"operations": [{"op": "scale", "of": [0], "factor": {"at": 0}}]},
        {"operations": [{"op": "scale", "of": [0], "factor": {"float32": [1]}}]},
        {"operations": [{"op": "scale", "of": [0], "factor": {"bits": [], "at": 0}}]},
        {"operations": [{"op": "scale", "of": [0], "factor": {"bits": [2**60, 2**60], "at": 0}}]},
        {"operations": [{"op": "scale", "of": [0], "factor": {"bits": [10**12, 1, 1, 0], "at": 0}}]},
        {"operations": [{"op": "scale", "of": [0], "factor": {"float32": [10**12], "at": 0}}]},
        {
            "operations": [
                {"op": "binary", "of": [0], "weight": {"bits": [1, 8], "at": 0}, "zeros": {"int32": [1], "at": 4}}
            ]
        },
        {
            "operations": [
                {"op": "binary", "of": [0], "weight": {"bits": [1, 8], "at": 0}, "zeros": {"int32": [1], "at": 8}}
            ]
        },
    ],
)
def test_a_header_that_makes_no_sense(header):
    with pytest.raises(PackedError, match="has no valid header"):
        parse(sealed(header, struct.pack("<iiii", 0, -1, 8, 0)))


def test_a_header_that_is_nested_without_end():
    text = b"[" * 100_000
    body = struct.pack("<8sII", b"ReCUbits", 1, len(text)) + text
    with pytest.raises(PackedError, match="has no valid header"):
        parse(body + hashlib.sha256(body).digest())


def test_a_number_that_is_not_finite_is_not_read():
    said = {"operations": [{"op": "scale", "of": [0], "factor": {"float32": [1], "at": 0}}]}
    parse(sealed(said, np.float32([1]).tobytes()))
    with pytest.raises(PackedError, match="a number that is not finite"):
        parse(sealed(said, np.float32([np.nan]).tobytes()))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_not_written(value):
    with pytest.raises(ValueError, match="a factor is not finite"):
        packed_bytes({}, [{"op": "scale", "of": [0], "factor": np.float32([value])}])
