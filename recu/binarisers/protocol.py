"""What every binariser's convolution shares: what it says of its cost and its weights, and what it does not look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from recu.base.errors import ConfigError


class LayerCost(NamedTuple):
    """The answer of a layer's `layer_cost()`, by the convention of docs/costs.md.

    A class says it in its own body: a method that it inherits says what another layer costs.
    """

    bits: Sequence[Tensor] = ()
    """Tensors of which inference stores the signs, one bit a value."""
    values: Sequence[Tensor] = ()
    """Tensors of which it stores every value, 32 bits each."""
    derived_values: int = 0
    """Further values that it stores, 32 bits each, computed from the tensors."""
    operations_per_output: int = 0
    """Multiply-accumulates behind one value of the result."""
    binary: bool | None = None
    """Whether these operations have binary weights AND binary activations; None says nothing, and only a layer without
    operations may."""

    @classmethod
    def of_filters(
        cls, weight: Tensor, *, binary: bool | None = None, values: Sequence[Tensor] = (), derived_values: int = 0
    ) -> LayerCost:
        """Of a convolution or a linear layer: one multiply-accumulate for each weight of a filter, or of a row.

        Args:
            weight: (O, I, kH, kW) or (O, I).
            binary: whether it and the activations are binary; left out, no cost is counted of the layer.
            values: see above; the weights come by themselves.
            derived_values: see above.
        """
        stored = {"bits": (weight,), "values": tuple(values)} if binary else {"values": (weight, *values)}
        return cls(
            **stored,
            derived_values=derived_values,
            operations_per_output=weight[0].numel(),
            binary=binary,
        )


def stated_cost(layer: nn.Module) -> LayerCost | None:
    """What a layer's own class says in its own body; None where it says nothing."""
    return layer.layer_cost() if "layer_cost" in vars(type(layer)) else None  # type: ignore[operator]


def set_epoch_values(model: nn.Module, epoch: int, epochs: int) -> dict[str, float]:
    """Write what layers' classes say of an epoch, `epoch_values(epoch, epochs)`, into their buffers of these names.

    A class without that function is left as it is; tau, whose range the recipe has, is set by `recu.binarisers.recu`.

    Args:
        model: any network.
        epoch: counted from 0.
        epochs: length of the training.

    Returns:
        The values by name; none where no layer has such a schedule.

    Raises:
        ConfigError: `epoch` is outside 0..epochs, or a class names a buffer that it does not have.
    """
    scheduled: dict[str, float] = {}
    for layer in model.modules():
        schedule = getattr(type(layer), "epoch_values", None)
        values: Mapping[str, float] = {} if schedule is None else schedule(epoch, epochs)
        buffers = dict(layer.named_buffers(recurse=False))
        for name, value in values.items():
            if name not in buffers:
                raise ConfigError(
                    f"{type(layer).__name__}.epoch_values gives {name!r}, which is none of its buffers: register_buffer"
                    f"({name!r}, ...) in its constructor"
                )
            buffers[name].fill_(value)
        scheduled |= values
    return scheduled


def require_variance(weight: Tensor) -> None:
    """Refuse filters of a single weight. Raises ValueError.

    Args:
        weight: (O, I, kH, kW).
    """
    if weight[0].numel() < 2:
        raise ValueError("a binary filter needs two weights or more: it is divided by their deviation")


class LatentWeights(NamedTuple):
    """The answer of a layer's `latent_weights()`: what its binary weights are made of (docs/diagnostics.md).

    As with `layer_cost()`, a class says it in its own body.
    """

    before: Tensor
    """(O, ...), the values whose signs are the binary weights."""
    after: Tensor
    """Likewise, with those beyond the threshold brought back to it."""
    threshold: Tensor | None = None
    """() of those on the device of the weights: beyond it no gradient goes through a weight's sign. None for none."""
    scale: Tensor | None = None
    """(O,), what each filter is multiplied by. None for nothing."""


def stated_latent_weights(layer: nn.Module) -> LatentWeights | None:
    """What a layer's own class says in its own body; None where it says nothing, as those of real weights do."""
    return layer.latent_weights() if "latent_weights" in vars(type(layer)) else None  # type: ignore[operator]


def has_plain_geometry(layer: nn.Conv2d) -> bool:
    """Whether a layer has a stride and zeros around the image, and nothing else: no dilation, groups or bias."""
    pairs = (layer.stride, layer.padding)
    return (
        all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs)
        and layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and layer.bias is None
    )


def require_plain_geometry(layer: nn.Conv2d) -> None:
    """Refuse attributes that the layer's own forward would not look at.

    Raises:
        ValueError: see `has_plain_geometry`.
    """
    if not has_plain_geometry(layer):
        raise ValueError(
            f"{type(layer).__name__} has stride {layer.stride}, padding {layer.padding}, dilation {layer.dilation},"
            f" {layer.groups} groups, padding mode {layer.padding_mode!r} and {'no' if layer.bias is None else 'a'}"
            " bias: expected stride and padding as pairs of whole numbers, dilation (1, 1), one group, 'zeros' and no"
            " bias; a layer with others is a class of its own"
        )
