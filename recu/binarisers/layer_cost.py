"""What a layer says of itself where costs are counted: how its state is stored, and what its operations are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


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
    binary: bool = False
    """Whether these operations have binary weights AND binary activations."""

    @classmethod
    def of_filters(
        cls, weight: Tensor, *, binary: bool, values: Sequence[Tensor] = (), derived_values: int = 0
    ) -> LayerCost:
        """Of a convolution or a linear layer: one multiply-accumulate for each weight of a filter, or of a row.

        Args:
            weight: (O, I, kH, kW) or (O, I).
            binary: whether it and the activations are binary.
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
    return layer.layer_cost() if "layer_cost" in vars(type(layer)) else None
