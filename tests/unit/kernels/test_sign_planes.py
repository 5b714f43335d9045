"""Bits that are counted give the sums of products of signs, on any processor."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from llvmlite import binding

from recu.kernels import sign_codes, sign_lanes, sign_planes
from recu.kernels.sign_lookup import SPARE_STARTS

RANDOM = np.random.default_rng(0)
_FEATURES = binding.get_host_cpu_features()


@pytest.fixture(name="planes")
def _planes(monkeypatch) -> None:
    """As on a processor that counts bits in vectors, as far as NumPy goes; compiled loops know what this one does."""
    monkeypatch.setattr(sign_planes, "has_bit_counts", lambda: True)


def signs(*shape: int) -> np.ndarray:
    return RANDOM.integers(-1, 2, shape).astype(np.float32)


@numba.njit
def count(codes: Any, first: Any, starts: Any, positions: Any, offsets: Any, numbers: Any, sums: Any) -> None:
    sign_planes.count_in_planes(codes, first, starts, positions, offsets, numbers, sums)


@pytest.mark.usefixtures("planes")
@pytest.mark.parametrize("filters", [16, 32, 48, 112])
@pytest.mark.parametrize(("channels", "stride"), [(64, 1), (64, 2), (192, 1)])
def test_sums(filters, channels, stride) -> None:
    images, weight = signs(2, 7, 5, channels), RANDOM.choice(np.float32([-1, 1]), (filters, channels, 3, 3))
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    packed = sign_codes.pack_filters(weight)
    codes = sign_codes.SignCodes(sign_planes.planes_of(padded), (1, 1), channels)
    geometry = sign_codes.Geometry.of(codes, packed, (stride, stride))
    height, width = geometry.size
    positions = geometry.rows * width
    starts = np.append(geometry.starts, np.repeat(geometry.starts[-1:], SPARE_STARTS))
    sums = np.full((positions + SPARE_STARTS, filters), -1, np.int16)
    second = codes.codes[0].size
    count(codes.codes.reshape(-1), second, starts, positions, geometry.offsets, packed.numbers, sums)
    expected = sum(
        np.tensordot(padded[1, down:, across:][:7:stride, :5:stride], weight[:, :, down, across], ((2,), (1,)))
        for down in range(3)
        for across in range(3)
    )
    assert geometry.run == sign_planes.BYTES and geometry.rows == height
    assert np.array_equal(sums[:positions].reshape(height, width, filters), expected)
    assert (sums[positions + 3 :] == -1).all()
    if _FEATURES.get("avx512vpopcntdq"):
        assert "vpopcntq" in next(iter(count.inspect_asm().values()))


@numba.njit
def pack(values: Any, codes: Any) -> None:
    for place in range(0, len(values), sign_lanes.LANES):
        sign_lanes.pack_planes(values, place, codes)


@numba.njit
def compare(counts: Any, direction: Any, threshold: Any, codes: Any) -> None:
    for place in range(0, len(counts), sign_lanes.LANES):
        sign_lanes.compare_to_planes(counts, direction, threshold, place, codes)


@numba.njit
def finish(counts: Any, ends: Any, added: Any, out: Any, codes: Any) -> None:
    scale, factor, shift = ends
    for place in range(0, len(counts), sign_lanes.LANES):
        sign_lanes.finish_to_planes_with(counts, scale, factor, shift, added, np.float32(1), place, out, codes)


def test_values_become_planes_and_signs_again() -> None:
    values = RANDOM.standard_normal((3, 128)).astype(np.float32)
    values[:, ::5], values[0, 7], values[1, 64] = 0, np.nan, -0.0
    codes = np.full((3, 32), 0xFF, np.uint8)
    pack(values.reshape(-1), codes.reshape(-1))
    expected = np.nan_to_num(np.sign(values))
    assert np.array_equal(codes, sign_planes.planes_of(expected))
    assert np.array_equal(sign_planes.signs_of(codes), expected)


def test_comparisons_and_finished_values_become_planes() -> None:
    counts = RANDOM.integers(-9, 10, 128).astype(np.int16)
    direction, threshold = RANDOM.choice(np.int16([-1, 1]), 128), RANDOM.integers(-3, 4, 128).astype(np.int16)
    codes = np.empty(32, np.uint8)
    compare(counts, direction, threshold, codes)
    assert np.array_equal(sign_planes.signs_of(codes), np.where(counts * direction > threshold, 1, -1))
    ends = tuple(RANDOM.choice(np.float32([-1, 0, 0.25]), 128) for _ in range(3))
    added, out = RANDOM.choice(np.float32([-1, 0, np.nan]), 128), np.empty(128, np.float32)
    finish(counts, ends, added, out, codes)
    expected = np.clip(counts * ends[0] * ends[1] + ends[2] + added, np.float32(-1), np.float32(1))
    assert np.array_equal(out, expected, equal_nan=True)
    assert np.array_equal(sign_planes.signs_of(codes), np.nan_to_num(np.sign(expected)))


def test_channels_in_planes(monkeypatch) -> None:
    for has in (True, False):
        monkeypatch.setattr(sign_planes, "has_bit_counts", lambda has=has: has)
        assert [sign_planes.in_planes(channels) for channels in (16, 63, 64, 96, 128)] == [
            False,
            False,
            has,
            False,
            has,
        ]
