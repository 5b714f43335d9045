"""Convolutions of signs give the whole numbers that a convolution of floats gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recu.kernels import sign_codes, sign_convolution
from recu.kernels.tensors import as_images


def random_signs(*shape: int, seed: int, dtype: torch.dtype = torch.float32, zeros: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    values[torch.rand(*shape, generator=generator) < zeros] = 0
    return values.to(dtype)


def convolve(
    values: torch.Tensor, weight: torch.Tensor, padding: tuple[int, int], stride: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images, filters = sign_convolution.pack_images(values, padding), sign_convolution.pack_filters(weight)
    return sign_convolution.convolve(images, filters, stride)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 5),
    channels=st.sampled_from([1, 3, 15, 16, 17, 32, 40, 64, 65, 130]),
    outputs=st.sampled_from([1, 2, 16, 33, 64]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.sampled_from([1, 2, 3, 5]),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    zeros=st.sampled_from([0.0, 0.1, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_every_shape(seed, count, channels, outputs, size, kernel, stride, padding, zeros, dtype) -> None:
    if any(side + 2 * pad < kernel for side, pad in zip(size, padding, strict=True)):
        return
    values = random_signs(count, channels, *size, seed=seed, dtype=dtype, zeros=zeros)
    weight = random_signs(outputs, channels, kernel, kernel, seed=seed + 1, dtype=dtype).sign()
    counts, total, squares = convolve(values, weight, padding, stride)
    expected = F.conv2d(values.sign().double(), weight.double(), None, stride, padding)
    assert torch.equal(counts.double(), expected)
    assert torch.equal(total, expected.sum((0, 2, 3)))
    assert torch.equal(squares, expected.square().sum((0, 2, 3)))


def test_sums_of_many_large_numbers_do_not_overflow() -> None:
    values, weight = torch.ones(2, 512, 40, 40), torch.ones(3, 512, 7, 7)
    assert sign_convolution.suits(values, weight)
    counts, total, squares = convolve(values, weight, (0, 0), (1, 1))
    size, numbers = 512 * 49, 2 * 34 * 34
    assert (counts == size).all()
    assert total.tolist() == [size * numbers] * 3 and squares.tolist() == [size**2 * numbers] * 3


def test_filters_too_large_for_two_bytes_are_refused() -> None:
    assert not sign_convolution.suits(torch.empty(1, 4096, 3, 3), torch.empty(1, 4096, 3, 3))


@pytest.mark.parametrize("bad", [0.0, torch.nan])
def test_weights_without_a_sign_are_refused(bad) -> None:
    weight = torch.ones(3, 5, 3, 3)
    weight[1, 2, 0, 1] = bad
    assert sign_convolution.pack_filters(weight) is None


@pytest.mark.parametrize("channel", [3, 19])  # among the sixteen packed at once, and behind them
def test_what_is_not_a_number_has_sign_zero_as_in_the_library(channel) -> None:
    values, weight = torch.randn(3, 20, 4, 4), torch.randn(5, 20, 3, 3).sign()
    values[2, channel, 1, 1] = torch.nan
    expected = F.conv2d(values.sign(), weight, None, 1, 1)
    assert expected.isfinite().all()
    counts, _, _ = sign_convolution.convolve(
        sign_convolution.pack_images(values, (1, 1)), sign_convolution.pack_filters(weight), (1, 1)
    )
    assert torch.equal(counts.float(), expected)


@pytest.mark.parametrize("channels", [5, 16, 33, 200])
def test_packing_padding_and_unpacking(channels) -> None:
    values = random_signs(2, channels, 3, 4, seed=0)
    images = sign_convolution.pack_images(values, (1, 0))
    for padding in ((1, 0), (0, 0), (2, 3)):
        again = sign_codes.with_padding(images, padding)
        assert again.codes.shape[1:3] == (3 + 2 * padding[0], 4 + 2 * padding[1])
        assert torch.equal(sign_convolution.unpack_images(again, torch.float32), values.sign())


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    values, weight = random_signs(7, 20, 9, 9, seed=1), random_signs(40, 20, 3, 3, seed=2).sign()
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 16):
            torch.set_num_threads(threads)
            results.append(convolve(values, weight, (1, 1), (1, 1)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for result in results[1:] for pair in zip(result, results[0], strict=True))


def test_memory_format() -> None:
    values, weight = random_signs(2, 3, 5, 5, seed=1), random_signs(4, 3, 3, 3, seed=2).sign()
    counts, _, _ = sign_convolution.convolve(
        sign_convolution.pack_images(values, (1, 1)), sign_convolution.pack_filters(weight), (1, 1)
    )
    assert counts.dtype == torch.int16 and counts.is_contiguous(memory_format=torch.channels_last)
    assert as_images(counts.permute(0, 2, 3, 1).numpy()).data_ptr() == counts.data_ptr()
