"""The binary layers of a network, measured after each epoch; nothing here changes a bit of the training.

What flipped is counted from the signs at the epoch's start. Between epochs those are the signs of the weights
themselves; within an epoch they travel in the checkpoint, one bit a weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recu.binarisers.diagnostics import histogram, measure, positive
from recu.binarisers.protocol import LatentWeights, stated_latent_weights
from recu.results.records import EpochWeights

_DIGITS = 7
"""Of a number in a record, about what single precision holds."""


def has_histograms(epoch: int, epochs: int) -> bool:
    """Whether an epoch, counted from 0, is the first, the middle or the last one."""
    return epoch in (0, (epochs - 1) // 2, epochs - 1)


class WeightDiagnostics:
    """Measures the layers that say what their binary weights are made of; those of real weights do not.

    Args:
        model: placed on its device.
    """

    def __init__(self, model: nn.Module) -> None:
        found = model.named_modules()
        self._layers = {name: layer for name, layer in found if stated_latent_weights(layer) is not None}
        self._start: Mapping[str, Tensor] = {}
        """By layer which binary weights were +1 at the epoch's start; of a layer that is not here it is not known."""

    @torch.no_grad()
    def begin(self) -> None:
        """Note the signs at an epoch's start."""
        self._start = {name: positive(_latent(layer).before) for name, layer in self._layers.items()}

    def packed_start(self) -> dict[str, Tensor]:
        """The signs at the epoch's start for a checkpoint, uint8, eight to a byte."""
        return {name: torch.from_numpy(np.packbits(plus.cpu().numpy())) for name, plus in self._start.items()}

    def continue_epoch(self, packed: Mapping[str, Tensor]) -> None:
        """Take up an epoch that was begun elsewhere; the inverse of `packed_start`.

        Args:
            packed: empty where nothing was noted, and what flips is not known.

        Raises:
            ValueError: it is of other layers.
        """
        self._start = {}
        for name in self._layers.keys() & packed.keys():
            weight = _latent(self._layers[name]).before
            if packed[name].numel() != -(-weight.numel() // 8):
                raise ValueError(f"the signs of {name} are not those of {weight.numel()} weights")
            bits = np.unpackbits(packed[name].numpy(), count=weight.numel()).astype(bool)
            self._start[name] = torch.from_numpy(bits).view(weight.shape).to(weight.device)

    @torch.no_grad()
    def measured(self, epoch: int, *, histograms: bool) -> EpochWeights | None:
        """The layers as an epoch left them; None where there is none to measure. Waits for the device once.

        Args:
            epoch: its number.
            histograms: whether those of the latent weights are wanted, which takes longer.
        """
        if not self._layers:
            return None
        latents = [_latent(layer) for layer in self._layers.values()]
        starts = [self._start.get(name) for name in self._layers]
        measured = [measure(latent, start) for latent, start in zip(latents, starts, strict=True)]
        values = torch.stack([value for each in measured for value in each.values()]).view(len(latents), -1)
        columns: dict[str, Any] = {
            name: tuple(map(_rounded, column)) for name, column in zip(measured[0], values.T.tolist(), strict=True)
        }
        if histograms:
            # Both, since a layer of one's own may bring weights to larger values.
            limits = [
                max(float(values.abs().max()) for values in (latent.before, latent.after)) or 1.0 for latent in latents
            ]
            pairs = list(zip(latents, limits, strict=True))
            columns["limit"] = tuple(limits)
            columns["before"] = tuple(histogram(latent.before, limit) for latent, limit in pairs)
            columns["after"] = tuple(histogram(latent.after, limit) for latent, limit in pairs)
        return EpochWeights(
            epoch=epoch,
            layers=tuple(self._layers),
            weights=tuple(latent.before.numel() for latent in latents),
            **columns,
        )


def _latent(layer: nn.Module) -> LatentWeights:
    found = stated_latent_weights(layer)
    assert found is not None, "only layers that say it are kept"
    return found


def _rounded(value: float) -> float | None:
    """None for what a layer does not have, and for the infinite threshold of weights that nothing clamps."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
