"""Convolutions of signs for PyTorch's tensors on a CPU; `recu.kernels.sign_codes` computes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recu.kernels import sign_codes
from recu.kernels.sign_codes import LARGEST_COUNT, Affine, FilterCodes, SignCodes
from recu.kernels.tensors import as_images, as_rows, compiled_for


def suits(activation: Tensor, weight: Tensor, padding: Sequence[int] = (0, 0)) -> bool:
    """Whether signs can be convolved as codes; whether a weight is zero, only `pack_filters` knows.

    Where shapes do not fit together they cannot: the library's convolution says so, a loop would not notice.

    Args:
        activation: (N, I, H, W).
        weight: (O, I, kH, kW).
        padding: zeros above and below, left and right.
    """
    return (
        compiled_for(activation, weight)
        and activation.dim() == weight.dim() == 4
        and activation.shape[1] == weight.shape[1]
        and can_filter(activation.shape[2:], weight.shape[2:], padding)
        and 0 < weight[0].numel() <= LARGEST_COUNT
    )


def can_filter(sides: Sequence[int], taps: Sequence[int], padding: Sequence[int]) -> bool:
    """Whether filters of `taps` lie inside of images of `sides` with padding around, all (height, width)."""
    return all(zeros >= 0 and side + 2 * zeros >= tap for side, tap, zeros in zip(sides, taps, padding, strict=True))


def pack_filters(binary_weight: Tensor) -> FilterCodes | None:
    """Binary weights (O, I, kH, kW), float32 or float64; None where one of them is zero or not a number."""
    return sign_codes.pack_filters(binary_weight.detach().numpy())


def pack_images(activation: Tensor, padding: tuple[int, int]) -> SignCodes:
    """The signs of images (N, I, H, W), float32 or float64."""
    return sign_codes.pack_images(as_rows(activation), padding, torch.get_num_threads())


def unpack_images(images: SignCodes, dtype: torch.dtype) -> Tensor:
    """The signs of images as a tensor (N, C, H, W)."""
    return as_images(sign_codes.unpack_images(images)).to(dtype)


def result_shape(images: SignCodes, filters: FilterCodes, stride: tuple[int, int]) -> tuple[int, int, int, int]:
    """(N, O, H', W') of a convolution."""
    return len(images.codes), filters.filters, *sign_codes.result_size(images, filters, stride)


def convolve(images: SignCodes, filters: FilterCodes, stride: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """The convolution of signs, padded as the images are, and what a BatchNorm wants to know of it.

    Returns:
        The convolution, int16 (N, O, H', W') in channels_last memory format; its sum and the sum of its squares over
        all images and pixels, float64 (O,).
    """
    counts, *sums = sign_codes.convolve(images, filters, stride, torch.get_num_threads())
    total, squares = (torch.from_numpy(values).sum(0).double() for values in sums)
    return as_images(counts), total, squares


def affine_of(scale: Tensor, norm: tuple[Tensor, Tensor] | None) -> Affine:
    """A scale (O,) and factor and shift of a BatchNorm, or None, as arrays."""
    factor, shift = norm or (torch.ones_like(scale), torch.zeros_like(scale))
    return Affine(*(values.detach().numpy() for values in (scale, factor, shift)))


def convolve_to_values(
    images: SignCodes,
    filters: FilterCodes,
    stride: tuple[int, int],
    scale: Tensor,
    *,
    norm: tuple[Tensor, Tensor] | None = None,
    residual: Tensor | None = None,
    hardtanh: bool = False,
    in_place: bool = False,
) -> Tensor:
    """hardtanh(convolution * scale * factor + shift + residual).

    Args:
        images: signs of images.
        filters: binary weights.
        stride: of the convolution.
        scale: (O,).
        norm: factor and shift of a BatchNorm, both (O,); None for no BatchNorm.
        residual: (N, O, H', W') or None for none.
        hardtanh: whether the result is clipped to [-1, 1].
        in_place: whether the result may take the residual's memory.

    Returns:
        (N, O, H', W') in channels_last memory format, of the type of `scale`.
    """
    out = sign_codes.convolve_to_values(
        images,
        filters,
        stride,
        affine_of(scale, norm),
        torch.get_num_threads(),
        residual=None if residual is None else as_rows(residual),
        hardtanh=hardtanh,
        in_place=in_place,
    )
    return as_images(out)


def convolve_to_signs(
    images: SignCodes, filters: FilterCodes, stride: tuple[int, int], direction: Tensor, threshold: Tensor
) -> SignCodes:
    """The signs +1 where convolution * direction > threshold, both int32 (O,), and else -1."""
    bounds = direction.numpy(), threshold.numpy()
    return sign_codes.convolve_to_signs(images, filters, stride, *bounds, torch.get_num_threads())
