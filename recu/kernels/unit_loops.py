"""The loops of training around a convolution of signs: BatchNorm, residual, hardtanh and the rescaled sign.

Each reads and writes memory once where the same in PyTorch's operations takes up to a dozen passes. Images are arrays
(N, H, W, C), channel after channel; every loop takes the samples from `first` to `stop`, see
`recu.kernels.compiled.in_threads`. They go through an image as one long array, whose slices cost less than its rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recu.binarisers.recu import VARIANCE_EPSILON
from recu.kernels.compiled import compiled, compiled_sums
from recu.kernels.tensors import as_images, as_row, as_rows, over_samples


def normalise(counts: Tensor, scale: Tensor, shift: Tensor, added: Tensor | None, hardtanh: bool) -> Tensor:
    """counts * scale + shift + added, clipped to [-1, 1] if wanted.

    Args:
        counts: convolution of signs, int16 (N, O, H, W) in channels_last memory format.
        scale: (O,), of the type of the result.
        shift: likewise.
        added: residual like the result, or None.
        hardtanh: whether to clip.

    Returns:
        (N, O, H, W), channels_last.

    Raises:
        ValueError: the residual has another shape.
    """
    if added is not None and added.shape != counts.shape:
        raise ValueError(f"the residual's shape is {tuple(added.shape)}, the convolution's {tuple(counts.shape)}")
    rows = as_rows(counts)
    out = np.empty(rows.shape, scale.numpy().dtype)
    more = out if added is None else as_rows(added)
    flags = (added is not None, hardtanh)
    over_samples(_normalise, len(out), rows, as_row(scale, rows), as_row(shift, rows), more, *flags, out)
    return as_images(out)


def through_hardtanh(grad: Tensor, output: Tensor | None, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient before the hardtanh, and what a BatchNorm's gradient needs to know of it.

    Args:
        grad: of the hardtanh's result, (N, O, H, W).
        output: that result; None where there was no hardtanh.
        counts: convolution of signs, int16, like `grad`.

    Returns:
        The gradient, zero where the result was clipped (`grad` itself without a hardtanh), channels_last; its sum over
        images and pixels, and that of its product with the counts, float64 (O,).
    """
    rows, factors = as_rows(grad), as_rows(counts)
    passed = rows if output is None else np.empty_like(rows)
    bounds = rows if output is None else as_rows(output)
    sums, products = (np.empty((len(rows), rows.shape[3])) for _ in range(2))
    over_samples(_through_hardtanh, len(rows), rows, bounds, factors, output is not None, passed, sums, products)
    return as_images(passed), torch.from_numpy(sums).sum(0), torch.from_numpy(products).sum(0)


def norm_gradient(
    grad: Tensor, counts: Tensor, factor: Tensor, of_count: Tensor, constant: Tensor, out: Tensor
) -> None:
    """Write grad * factor + counts * of_count + constant, the gradient of a BatchNorm's input, into `out`.

    Args:
        grad: of the BatchNorm's result, (N, O, H, W), channels_last like all others.
        counts: what it was computed of, int16, like `grad`.
        factor: (O,), of the type of `grad`, like the next two.
        of_count: see above.
        constant: see above.
        out: like `grad`.
    """
    rows = as_rows(grad)
    factors = (as_row(values, rows) for values in (factor, of_count, constant))
    over_samples(norm_gradient_loop, len(rows), rows, as_rows(counts), *factors, as_rows(out))


def sign_gradient(grad: Tensor, activation: Tensor, added: Tensor | None, *, rescale: bool, out: Tensor) -> None:
    """Write the gradient through sign(activation / s) into `out`, s each sample's standard deviation over its n values.

    With g = grad * max(0, 2 - 2|a / s|) / s it is g - (a - mean(a)) * sum(g a) / (s^2 (n - 1)); the second term is the
    gradient through s.

    Args:
        grad: of the sign, (N, C, H, W), float32 or float64 on the CPU.
        activation: like `grad`.
        added: another gradient of the activation, to be added, or None.
        rescale: False for s = 1, a constant.
        out: like `grad`, in channels_last memory format.
    """
    more = grad if added is None else added
    arrays = [as_rows(values) for values in (grad, activation, more, out)]
    over_samples(sign_gradient_loop, len(grad), *arrays[:3], added is not None, rescale, VARIANCE_EPSILON, arrays[3])


def latent_gradient(grad: Tensor, standardised: Tensor, threshold: Tensor, scale: Tensor, projection: float) -> Tensor:
    """(g - mean(g) - w * sum(g w) * projection) * scale for each filter, g the gradient where |w| <= threshold, else 0.

    Args:
        grad: (O, I, kH, kW), float32 or float64 on the CPU.
        standardised: w, like `grad`.
        threshold: (), likewise.
        scale: of each filter, O numbers, likewise.
        projection: see above.

    Returns:
        (O, I, kH, kW), channels_last.
    """
    rows = [as_rows(values) for values in (grad, standardised)]
    out = np.empty_like(rows[0])
    filters = (values.reshape(len(out), -1) for values in (*rows, out))
    over_samples(_latent_gradient, len(out), *filters, threshold.item(), scale.detach().flatten().numpy(), projection)
    return as_images(out)


@compiled
def _normalise(first, stop, counts, scale, shift, added, adds, clips, out):
    low, high = out.dtype.type(-1), out.dtype.type(1)
    length = len(scale)
    for image in range(first, stop):
        image_counts, image_added, image_out = (
            counts[image].reshape(-1),
            added[image].reshape(-1),
            out[image].reshape(-1),
        )
        for y in range(0, len(image_out), length):
            count, more, row = image_counts[y : y + length], image_added[y : y + length], image_out[y : y + length]
            for i in range(length):
                value = out.dtype.type(count[i]) * scale[i] + shift[i]
                if adds:
                    value += more[i]
                if clips:
                    # In this form what is not a number stays so.
                    value = low if value < low else value
                    value = high if value > high else value
                row[i] = value


@compiled
def _through_hardtanh(first, stop, grad, output, counts, clipped, passed, sums, products):
    channels, length = grad.shape[3], grad.shape[2] * grad.shape[3]
    high, zero = grad.dtype.type(1), grad.dtype.type(0)
    row_sums, row_products = np.empty(length, grad.dtype), np.empty(length, grad.dtype)
    for image in range(first, stop):
        # Columns are summed in the gradient's own type, the rest in float64: exact enough, and fast.
        row_sums[:] = 0
        row_products[:] = 0
        image_grad, image_counts = grad[image].reshape(-1), counts[image].reshape(-1)
        image_output, image_passed = output[image].reshape(-1), passed[image].reshape(-1)
        for y in range(0, len(image_grad), length):
            row, count = image_grad[y : y + length], image_counts[y : y + length]
            bound, result = image_output[y : y + length], image_passed[y : y + length]
            for i in range(length):
                value = row[i]
                if clipped:
                    value = zero if abs(bound[i]) >= high else value
                    result[i] = value
                row_sums[i] += value
                row_products[i] += value * grad.dtype.type(count[i])
        total, product = sums[image], products[image]
        total[:] = 0
        product[:] = 0
        for start in range(0, length, channels):
            for c in range(channels):
                total[c] += row_sums[start + c]
                product[c] += row_products[start + c]


@compiled
def norm_gradient_loop(first, stop, grad, counts, factor, of_count, constant, out):
    """`norm_gradient` of some images, with factors as `recu.kernels.tensors.as_row` gives them."""
    length = len(factor)
    for image in range(first, stop):
        image_grad, image_counts, image_out = grad[image].reshape(-1), counts[image].reshape(-1), out[image].reshape(-1)
        for y in range(0, len(image_out), length):
            row, count, result = image_grad[y : y + length], image_counts[y : y + length], image_out[y : y + length]
            for i in range(length):
                result[i] = row[i] * factor[i] + (out.dtype.type(count[i]) * of_count[i] + constant[i])


@compiled_sums
def sign_gradient_loop(first, stop, grad, activation, added, adds, rescales, epsilon, out):
    """`sign_gradient` of some images; the result may take the place of the gradient."""
    value_of = out.dtype.type
    zero = value_of(0)
    length = activation.shape[2] * activation.shape[3]
    size = activation.shape[1] * length
    # A loop that may read and write the same row would go value by value.
    passed = np.empty(length, out.dtype)
    for image in range(first, stop):
        values, gradients = activation[image].reshape(-1), grad[image].reshape(-1)
        more, results = added[image].reshape(-1), out[image].reshape(-1)
        # Rows are summed in the activation's own type, the image in float64.
        mean, variance, inverse_variance = 0.0, 0.0, 1.0
        if rescales:
            for y in range(0, size, length):
                a, total = values[y : y + length], zero
                for i in range(length):
                    total += a[i]
                mean += total
            mean /= size
            centre = value_of(mean)
            for y in range(0, size, length):
                a, total = values[y : y + length], zero
                for i in range(length):
                    total += (a[i] - centre) * (a[i] - centre)
                variance += total
            inverse_variance = 1.0 / (variance / (size - 1) + epsilon)
        at_zero, slope = value_of(2 * np.sqrt(inverse_variance)), value_of(2 * inverse_variance)
        through_std = 0.0
        for y in range(0, size, length):
            a, g, result, total = values[y : y + length], gradients[y : y + length], results[y : y + length], zero
            for i in range(length):
                window = at_zero - slope * abs(a[i])
                value = g[i] * (zero if window < zero else window)
                passed[i] = value
                total += value * a[i]
            for i in range(length):
                result[i] = passed[i]
            through_std += total
        centre, pull = value_of(mean), value_of(through_std * inverse_variance / (size - 1))
        if rescales:
            for i in range(size):
                results[i] -= (values[i] - centre) * pull
        if adds:
            for i in range(size):
                results[i] += more[i]


@compiled_sums
def _latent_gradient(first, stop, grad, weight, out, threshold, scale, projection):
    value_of = out.dtype.type
    threshold, zero, one = value_of(threshold), value_of(0), value_of(1)
    for o in range(first, stop):
        g, w, result, factor = grad[o], weight[o], out[o], scale[o]
        total, product = zero, zero
        for i in range(len(g)):
            # As a product: what is not a number stays so.
            value = g[i] * (one if abs(w[i]) <= threshold else zero)
            result[i] = value
            total += value
            product += value * w[i]
        mean, pull = value_of(total / len(g)), value_of(product * projection)
        for i in range(len(g)):
            result[i] = (result[i] - mean - w[i] * pull) * factor
