"""A program of several layers gives, image by image, what the loops give layer by layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recu.kernels import sign_codes, sign_network
from recu.kernels.sign_codes import Affine
from recu.kernels.sign_network import Program, Shape

RANDOM = np.random.default_rng(0)


def weight(filters: int, channels: int, taps: int = 3) -> np.ndarray:
    return RANDOM.choice(np.float32([-1, 1]), (filters, channels, taps, taps))


def affine(filters: int) -> Affine:
    return Affine(*(RANDOM.standard_normal(filters).astype(np.float32) for _ in range(3)))


def values(*shape: int) -> np.ndarray:
    drawn = RANDOM.standard_normal(shape).astype(np.float32)
    drawn.flat[::7] = 0
    drawn.flat[::1001] = np.nan
    return drawn


@pytest.mark.parametrize("channels", [5, 16, 40])
@pytest.mark.parametrize(("images", "threads"), [(7, 1), (7, 3), (1, 2), (3, 5), (1, 12)])
def test_layers_one_after_another(channels, images, threads, monkeypatch) -> None:
    # So little that threads share an image where there are more of them.
    monkeypatch.setattr(sign_network, "_LEAST_WORK", 1_000)
    given, added = values(images, 9, 6, channels), values(images, 9, 6, 20)
    first, second, third = weight(20, channels), weight(33, 20), weight(20, 33, 1)
    ends, last = affine(20), affine(20)
    direction, threshold = RANDOM.choice(np.int32([-1, 1]), 33), RANDOM.integers(-9, 9, 33, dtype=np.int32)
    filters = [sign_codes.pack_filters(each) for each in (first, second, third)]

    program = Program(np.float32, [Shape(9, 6, channels), Shape(9, 6, 20)])
    of_given, of_added = program.inputs
    signs = program.pack(of_given, (1, 1))
    program.release(of_given)
    middle, signs = program.convolve_to_values(
        signs, filters[0], (1, 1), ends, residual=of_added, hardtanh=True, code_padding=(0, 2)
    )
    bits = program.convolve_to_signs(signs, filters[1], (2, 1), direction, threshold, (0, 0))
    out, none = program.convolve_to_values(bits, filters[2], (1, 1), last)
    found = program.finish([middle, out]).run([given, added], threads)

    seen = sign_codes.pack_images(given, (1, 1), 1)
    expected = sign_codes.convolve_to_values(seen, filters[0], (1, 1), ends, 1, residual=added, hardtanh=True)
    seen = sign_codes.pack_images(expected, (0, 2), 1)
    seen = sign_codes.convolve_to_signs(seen, filters[1], (2, 1), direction, threshold, 1)
    assert none is None
    assert np.array_equal(found[0], expected, equal_nan=True)
    assert np.array_equal(found[1], sign_codes.convolve_to_values(seen, filters[2], (1, 1), last, 1))


def test_small_steps_are_not_shared(monkeypatch) -> None:
    filters, ends, given = sign_codes.pack_filters(weight(16, 16)), affine(16), values(1, 8, 8, 16)
    shared: list[int] = []
    in_pieces = sign_network.in_pieces
    monkeypatch.setattr(
        sign_network,
        "in_pieces",
        lambda loop, threads, *rest: (shared.append(threads), in_pieces(loop, threads, *rest)),
    )
    found = []
    for least in (1 << 21, 1 << 16):
        monkeypatch.setattr(sign_network, "_LEAST_WORK", least)
        program = Program(np.float32, [Shape(8, 8, 16)])
        out, _ = program.convolve_to_values(program.pack(program.inputs[0], (1, 1)), filters, (1, 1), ends)
        found += program.finish([out]).run([given], 4)
    assert shared == [2] and np.array_equal(*found, equal_nan=True)


def test_the_residuals_memory_and_that_of_what_nothing_reads_any_more_are_taken() -> None:
    filters, ends, given = sign_codes.pack_filters(weight(16, 16)), affine(16), values(3, 8, 8, 16)
    found = []
    for in_place in (False, True):
        program = Program(np.float32, [Shape(8, 8, 16)])
        (before,) = program.inputs
        for _ in range(5):
            signs = program.pack(before, (1, 1))
            after, _ = program.convolve_to_values(
                signs, filters, (1, 1), ends, residual=before, hardtanh=True, in_place=in_place
            )
            program.release(signs)
            if after is not before:
                program.release(before)
            before = after
        found.append((program.finish([before]).run([given], 1)[0], program.memory))
    (apart, twice), (in_place, once) = found
    assert np.array_equal(apart, in_place, equal_nan=True)
    assert once == (8 * 8 * 16, 10 * 10 * 4 + 48) and twice == (2 * 8 * 8 * 16, once[1])


def test_given_arrays_are_left_as_they_are() -> None:
    given, factor, shift = values(2, 4, 4, 3), np.float32([1, -2, 3]), np.float32([0.5, 0, -1])
    before = given.copy()
    program = Program(np.float32, [Shape(4, 4, 3)])
    program.normalise(program.inputs[0], factor, shift, hardtanh=True)
    (found,) = program.finish(program.inputs).run([given], 1)
    expected = before.copy()
    sign_codes.normalise(expected, factor, shift, 1, hardtanh=True)
    assert np.array_equal(given, before, equal_nan=True) and np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("side", [(8, 8), (7, 5)])
def test_pooling_is_pytorchs(side) -> None:
    given = values(3, *side, 6)
    program = Program(np.float32, [Shape(*side, 6)])
    average = program.average(program.inputs[0], 2, 1, 2)
    pools = [program.largest(program.inputs[0], *each) for each in ((2, 2, 0), (3, 2, 1))]
    found = program.finish([average, *pools]).run([given], 1)
    tensor = torch.from_numpy(given).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    expected = [
        F.pad(F.avg_pool2d(tensor, 2, ceil_mode=True), (0, 0, 0, 0, 1, 2)),
        F.max_pool2d(tensor, 2),
        F.max_pool2d(tensor, 3, 2, 1),
    ]
    for rows, images in zip(found, expected, strict=True):
        assert np.array_equal(rows, images.permute(0, 2, 3, 1).numpy(), equal_nan=True)


def test_what_does_not_fit_is_refused() -> None:
    program = Program(np.float32, [Shape(4, 4, 16), Shape(4, 3, 16)])
    first, second = program.inputs
    signs = program.pack(first, (1, 1))
    with pytest.raises(ValueError, match="residual's shape"):
        program.convolve_to_values(signs, sign_codes.pack_filters(weight(16, 16)), (1, 1), affine(16), residual=second)
    with pytest.raises(ValueError, match="finished"):
        program.run([values(1, 4, 4, 16), values(1, 4, 3, 16)], 1)
    program.finish([first])
    for wrong in (values(1, 4, 4, 16).astype(np.float64), values(1, 4, 4, 15), values(2, 4, 4, 16)):
        with pytest.raises(ValueError, match="was given"):
            program.run([values(1, 4, 4, 16), wrong], 1)
