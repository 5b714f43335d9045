"""The operations of a packed network in NumPy: plain, slow, and what every faster form of one is held to.

An operation is made of its attributes once and then applied to arrays: images (N, H, W, C) float32, or rows (N, C).
Whoever has a faster form puts it into `OPERATIONS` under the same name, with the same attributes.

Every number is what PyTorch's evaluation on a CPU gives to the last bit, but for three operations whose sums PyTorch
takes in an order of its library's choice (`convolution`, `linear`, `mean`): here they are taken in float64, in the
order that each says, and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Pair = tuple[int, int]
Apply = Callable[..., Values]
"""From the values that an operation takes to its result."""


def binary(
    *,
    weight: NDArray[np.int8],
    stride: Pair,
    padding: Pair,
    scale: Values | None = None,
    factor: Values | None = None,
    shift: Values | None = None,
    hardtanh: bool = False,
    threshold: NDArray[np.int32] | None = None,
) -> Apply:
    """hardtanh(scale * (sign(x) convolved with signs) * factor + shift + residual), or the sign of such a thing.

    The convolution is a whole number. It is multiplied with the scale, then with the factor while the shift is added
    (one rounding), then the residual is added: three roundings, none of which may be left out or put elsewhere.

    Args:
        weight: (O, kH, kW, I) of -1, 0 and 1.
        stride: down and across.
        padding: zeros above and below, left and right; a zero stays zero under the sign.
        scale: (O,), or (1,) for all.
        factor: (O,); None for no BatchNorm.
        shift: (O,), likewise.
        hardtanh: whether the result is clipped to [-1, 1].
        threshold: (O,), in the place of scale, factor, shift and hardtanh: the result is 1 where the convolution is
            above it, else -1.

    Returns:
        From x (N, H, W, I), and a residual like the result where there is one, to (N, H', W', O).
    """
    if (scale is None) == (threshold is None):
        raise TypeError("it has a scale or a threshold")
    taps = np.ascontiguousarray(weight.transpose(1, 2, 3, 0)).astype(np.float32)

    def apply(x: Values, residual: Values | None = None) -> Values:
        # Sums of whole numbers below 2 ** 24: exact in any order.
        whole = _sum(part @ taps[tap] for tap, part in _windows(sign()(x), taps.shape[:2], stride, padding))
        if threshold is not None:
            return np.where(whole > threshold, np.float32(1), np.float32(-1))
        out = whole if scale is None else whole * scale
        if factor is not None and shift is not None:
            out = fused_multiply_add(out, factor, shift)
        if residual is not None:
            out = out + residual
        return np.clip(out, np.float32(-1), np.float32(1)) if hardtanh else out

    return apply


def convolution(*, weight: Values, stride: Pair, padding: Pair, bias: Values | None = None) -> Apply:
    """A convolution with real weights (O, kH, kW, I): sums in float64 by row, column and channel of the filter, with
    the bias last, rounded once."""
    taps = np.ascontiguousarray(weight.transpose(1, 2, 3, 0)).astype(np.float64)

    def apply(x: Values) -> Values:
        out = np.zeros(())
        for tap, part in _windows(x.astype(np.float64), taps.shape[:2], stride, padding):
            for channel in range(taps.shape[2]):
                out = out + part[..., channel, None] * taps[(*tap, channel)]
        total: Values = (out if bias is None else out + bias).astype(np.float32)
        return total

    return apply


def linear(*, weight: Values, bias: Values | None = None) -> Apply:
    """Rows (N, I) times weights (O, I): sums in float64 in the order of the inputs, with the bias last, rounded
    once."""
    columns = weight.T.astype(np.float64)

    def apply(x: Values) -> Values:
        out = np.zeros((len(x), columns.shape[1]))
        for number, column in enumerate(columns):
            out += x[:, number, None].astype(np.float64) * column
        return (out if bias is None else out + bias).astype(np.float32)

    return apply


def mean() -> Apply:
    """The mean of each channel over an image's pixels, (N, 1, 1, C): a sum in float64 row by row, divided, rounded."""

    def apply(x: Values) -> Values:
        pixels = x.reshape(len(x), -1, x.shape[-1]).astype(np.float64)
        total = np.zeros((len(x), x.shape[-1]))
        for number in range(pixels.shape[1]):
            total += pixels[:, number]
        return (total / pixels.shape[1]).astype(np.float32)[:, None, None]

    return apply


def average_pool(*, window: Pair | None, stride: Pair = (1, 1)) -> Apply:
    """The average of each window, by a sum row by row in float32; one that reaches beyond the image counts what is
    inside.

    There are as many as it takes to have every pixel under one, each beginning inside. No window: all of the image.
    """

    def apply(x: Values) -> Values:
        taps, steps = (window, stride) if window else (x.shape[1:3], x.shape[1:3])
        room = [_beyond(*each) for each in zip(x.shape[1:3], taps, steps, strict=True)]
        total, count = (
            _sum(part for _, part in _windows(np.pad(each, ((0, 0), *room, (0, 0))), taps, steps, (0, 0)))
            for each in (x, np.ones((1, *x.shape[1:3], 1), np.float32))
        )
        return total / count

    return apply


def _beyond(side: int, tap: int, step: int) -> Pair:
    """How far windows reach beyond an image's beginning and end along a side."""
    return 0, max(0, (windows_along(side, tap, step) - 1) * step + tap - side)


def windows_along(side: int, tap: int, step: int) -> int:
    """How many windows it takes to have every pixel of a side under one, each beginning inside."""
    windows = -(-max(side - tap, 0) // step) + 1
    return windows - ((windows - 1) * step >= side)


def max_pool(*, window: Pair, stride: Pair, padding: Pair) -> Apply:
    """The largest value of each window inside of the image."""

    def apply(x: Values) -> Values:
        parts = [part for _, part in _windows(x, window, stride, padding, outside=-np.inf)]
        largest: Values = np.maximum.reduce(parts)
        return largest

    return apply


def norm(*, factor: Values, shift: Values) -> Apply:
    """x * factor + shift in each channel, rounded once: a BatchNorm."""
    return lambda x: fused_multiply_add(x, factor, shift)


def scale(*, factor: Values) -> Apply:
    """x * factor in each channel."""
    return lambda x: x * factor


def bias(*, shift: Values) -> Apply:
    """x + shift in each channel."""
    return lambda x: x + shift


def prelu(*, slope: Values) -> Apply:
    """x where it is above 0, else x * slope, in each channel."""
    return lambda x: np.where(x > 0, x, x * slope)


def hardtanh(*, low: float, high: float) -> Apply:
    """x clipped to [low, high]; what is not a number stays so."""
    return lambda x: np.clip(x, np.float32(low), np.float32(high))


def relu() -> Apply:
    """x where it is above 0, else 0."""
    return lambda x: np.maximum(x, np.float32(0))


def sign() -> Apply:
    """1, -1, or 0 of zero and of what is not a number."""
    return lambda x: (x > 0).astype(np.float32) - (x < 0).astype(np.float32)


def add() -> Apply:
    """The sum of two results of one shape."""
    return lambda x, other: x + other


def subsample(*, step: int) -> Apply:
    """Every `step`-th row and column, the first one first."""
    return lambda x: x[:, ::step, ::step]


def pad_channels(*, before: int, after: int) -> Apply:
    """As many zero channels before and behind."""
    return lambda x: np.pad(x, ((0, 0), (0, 0), (0, 0), (before, after)))


def flatten() -> Apply:
    """Images as rows (N, C * H * W), channel by channel and in each row by row; rows stay as they are."""
    return lambda x: x.transpose(0, 3, 1, 2).reshape(len(x), -1) if x.ndim == 4 else x


OPERATIONS: Mapping[str, Callable[..., Apply]] = MappingProxyType(
    {
        made.__name__: made
        for made in (
            binary, convolution, linear, mean, average_pool, max_pool, norm, scale, bias, prelu, hardtanh, relu, sign,
            add, subsample, pad_channels, flatten,
        )
    }
)  # fmt: skip
"""By the name that a file has for them."""


def fused_multiply_add(x: Values, factor: Values, term: Values) -> Values:
    """x * factor + term, rounded once to float32, for which NumPy has no operation.

    The product is exact in float64, and rounding the sum there first makes a difference only where that ends in the
    middle between two numbers of float32, or below its normal range.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        product, wide = x.astype(np.float64) * factor.astype(np.float64), term.astype(np.float64)
        total = product + wide
        in_the_middle = (total.view(np.int64) & (2 * _HALF - 1)) == _HALF
        doubtful = in_the_middle | ((np.abs(total) < _SMALLEST_NORMAL) & (total != 0))
        if doubtful.any():
            total[doubtful] = _sum_to_odd(product[doubtful], np.broadcast_to(wide, total.shape)[doubtful])
        return total.astype(np.float32)


_HALF = 1 << 28
"""Half of what lies between two numbers of float32, in the last bits of float64."""
_SMALLEST_NORMAL = float(np.finfo(np.float32).smallest_normal)


def _sum_to_odd(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """A sum in float64, rounded to odd, which a second rounding cannot spoil (Boldo and Melquiond, "Emulation of a FMA
    and correctly rounded sums", IEEE Transactions on Computers, 2008)."""
    total = first + second
    back = total - first
    lost = (first - (total - back)) + (second - back)
    even = (total.view(np.int64) & 1) == 0
    return np.where(even & (lost != 0), np.nextafter(total, np.where(lost > 0, np.inf, -np.inf)), total)


def _sum(parts: Iterator[Values]) -> Values:
    """Their sum, one after the other."""
    total = next(parts)
    for part in parts:
        total = total + part
    return total


def _windows(
    x: NDArray[Any], taps: tuple[int, ...], stride: Pair, padding: Pair, outside: float = 0.0
) -> Iterator[tuple[Pair, NDArray[Any]]]:
    """For each place of a filter, row by row, what lies under it wherever it is put: (N, H', W', C)."""
    down, across = padding
    padded = np.pad(x, ((0, 0), (down, down), (across, across), (0, 0)), constant_values=outside)
    height, width = ((side - tap) // step for side, tap, step in zip(padded.shape[1:3], taps, stride, strict=True))
    for row in range(taps[0]):
        for column in range(taps[1]):
            rows = slice(row, row + height * stride[0] + 1, stride[0])
            yield (row, column), padded[:, rows, column : column + width * stride[1] + 1 : stride[1]]
