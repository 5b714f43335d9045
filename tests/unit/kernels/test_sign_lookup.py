"""Every form of the loop that looks products up gives the sums of products, whatever the processor prefers."""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
import pytest
from llvmlite import binding

from recu.kernels import sign_codes, sign_lookup, sign_planes
from recu.kernels.sign_lookup import GROUP, SPARE_STARTS

_FEATURES = binding.get_host_cpu_features()
_FORMS = {
    "avx2": (sign_lookup.count_by_32_lanes, "vpshufb"),
    "ssse3": (sign_lookup.count_by_16_lanes, "pshufb"),
    "neon": (sign_lookup.count_by_16_lanes, "tbl"),
    "portable": (sign_lookup.count_one_by_one, None),
}


def available(form: str) -> bool:
    if form == "neon" or sign_lookup.best_form() == "neon":
        return form in (sign_lookup.best_form(), "portable")
    return form == "portable" or bool(_FEATURES.get(form))


def codes_of(signs: np.ndarray) -> np.ndarray:
    """Twice the number whose digits to the base 3 are four signs plus 1, the first the least."""
    missing = -signs.shape[-1] % 4
    fours = np.pad(signs, ((0, 0), (0, 0), (0, 0), (0, missing))).reshape(*signs.shape[:-1], -1, 4)
    return ((fours + 1) @ np.float32([2, 6, 18, 54])).astype(np.uint8)


@cache
def compiled(form: str) -> Any:
    return numba.njit(_FORMS[form][0])


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("filters", [16, 32, 48, 64, 112, 128])
@pytest.mark.parametrize("channels", [3, 16, 64, 130])
def test_sums(form, filters, channels, monkeypatch) -> None:
    if not available(form):
        pytest.skip(f"this processor has no {form}")
    count, instruction = compiled(form), _FORMS[form][1]
    random = np.random.default_rng(filters + channels)
    signs = random.integers(-1, 2, (2, 7, 5, channels)).astype(np.float32)
    weight = random.choice(np.float32([-1, 1]), (filters, channels, 3, 3))
    # As codes, whatever this processor keeps so many channels as.
    monkeypatch.setattr(sign_planes, "has_bit_counts", lambda: False)
    packed = sign_codes.pack_filters(weight)
    images = sign_codes.SignCodes(codes_of(np.pad(signs, ((0, 0), (1, 1), (1, 1), (0, 0)))), (1, 1), channels)
    geometry = sign_codes.Geometry.of(images, packed, (1, 1))
    positions = geometry.rows * geometry.size[1]
    starts = np.append(geometry.starts, np.repeat(geometry.starts[-1:], SPARE_STARTS))
    sums = np.full((positions + SPARE_STARTS, filters), -1, np.int16)
    second = images.codes[0].size
    count(
        images.codes.reshape(-1),
        second,
        starts,
        positions,
        geometry.offsets,
        geometry.run,
        packed.numbers,
        geometry.table,
        sums,
    )
    padded = np.pad(signs[1], ((1, 1), (1, 1), (0, 0)))
    expected = sum(
        np.tensordot(padded[down : down + 7, across : across + 5], weight[:, :, down, across], ((2,), (1,)))
        for down in range(3)
        for across in range(3)
    )
    assert geometry.rows == 7 and packed.numbers.shape[1] % GROUP == 0
    assert np.array_equal(sums[:positions].reshape(7, 5, filters), expected)
    if instruction is not None:
        assert instruction in next(iter(count.inspect_asm().values()))


def test_products_of_every_code_and_weight() -> None:
    table = sign_lookup.products()
    assert table.shape == (81, 16) and table.ctypes.data % 64 == 0
    assert table[40].tolist() == [0] * 16  # four zeros
    assert table[80].tolist() == [2 * bin(number).count("1") - 4 for number in range(16)]  # four times 1
    assert (table[::-1] == -table).all()
    # 1, 0, 0, -1 with weights 1, 1, 1, -1: 1 + 0 + 0 + 1.
    assert table[2 + 3 + 9 + 0, 0b0111] == 2


def test_outside_of_compiled_loops_it_counts_too() -> None:
    codes = np.uint8([2 * 80, 2 * 40, 2 * 13])  # 1 1 1 1; 0 0 0 0; 0 0 0 -1
    numbers = np.uint8([[0b1111, 0b0001], [0b1111, 0b0001], [0b1111, 0b0001]])
    sums, starts, offsets = np.zeros((1, 2), np.int16), np.zeros(1, np.int64), np.arange(3)
    sign_lookup.count(codes, 0, starts, 1, offsets, 1, numbers, sign_lookup.products().reshape(-1), sums)
    assert sums.tolist() == [[4 + 0 - 1, -2 + 0 + 1]]
