"""What the paper is about, as numbers: dead weights, flips, quantisation error and entropy of a layer's binary weights.

Each function is one definition of docs/diagnostics.md. They are pure, and nothing here waits for the device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recu.binarisers.protocol import LatentWeights
from recu.binarisers.recu import quantile_threshold

TAIL_TAU = 0.99
"""Of the tail, which is the same for every schedule of tau, and there without ReCU too."""
BINS = 64


def positive(before: Tensor) -> Tensor:
    """Which binary weights are +1 (the others, zero among them, count as -1 here). Any shape, to bool."""
    return before > 0


def share_beyond(before: Tensor, threshold: Tensor) -> Tensor:
    """Share of the weights with |w| > threshold, in [0, 1].

    Args:
        before: latent weights (O, ...).
        threshold: ().
    """
    return _mean(before.abs() > threshold)


def flipped_share(now: Tensor, earlier: Tensor) -> Tensor:
    """Share of the binary weights that differ, in [0, 1]; both as `positive` gives them."""
    return _mean(now != earlier)


def quantisation_error(after: Tensor) -> Tensor:
    """Mean of (w - s b)^2 over a layer, b = +-1 the binary weight and s = mean|w| of its filter, the best scale.

    Args:
        after: what is binarised, (O, ...).
    """
    magnitude = after.abs()
    return _mean((magnitude - magnitude.mean(_per_filter(after), keepdim=True)).square())


def entropy(plus: Tensor) -> Tensor:
    """Bits that a binary weight holds: -p log2 p - (1 - p) log2(1 - p), p a filter's share of +1; mean over filters.

    Args:
        plus: as `positive` gives it, (O, ...).
    """
    share = plus.double().mean(_per_filter(plus))
    return _mean(torch.special.entr(share) + torch.special.entr(1.0 - share)) / math.log(2.0)


@torch.no_grad()
def measure(latent: LatentWeights, earlier: Tensor | None) -> dict[str, Tensor]:
    """All quantities of one layer.

    Args:
        latent: of the layer.
        earlier: `positive` of it at the epoch's start; None where that is not known.

    Returns:
        By name, each float64 () on the layer's device; NaN where the layer has no such quantity.
    """
    before, after, threshold, scale = latent
    plus, none = positive(before), before.new_full((), math.nan)
    tail = quantile_threshold(before, before.new_full((), TAIL_TAU))
    values = {
        "threshold": none if threshold is None else threshold,
        "dead_share": none if threshold is None else share_beyond(before, threshold),
        "tail_share": share_beyond(before, tail),
        "flipped_share": none if earlier is None else flipped_share(plus, earlier),
        "quantisation_error": quantisation_error(after),
        "entropy": entropy(plus),
        "scale_min": none if scale is None else scale.min(),
        "scale_mean": none if scale is None else scale.mean(),
        "scale_max": none if scale is None else scale.max(),
    }
    return {name: value.double() for name, value in values.items()}


def histogram(values: Tensor, limit: float) -> tuple[int, ...]:
    """How many values lie in each of `BINS` equal parts of [-limit, limit], the last with its upper end.

    Args:
        values: of any shape, within the limit.
        limit: above 0.
    """
    # On the CPU, since PyTorch's count on GPUs is none of its deterministic functions.
    return tuple(map(int, torch.histc(values.detach().double().cpu(), BINS, -limit, limit).tolist()))


def _mean(values: Tensor) -> Tensor:
    return values.mean(dtype=torch.float64)


def _per_filter(values: Tensor) -> tuple[int, ...]:
    return tuple(range(1, values.ndim))
