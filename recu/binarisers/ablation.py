"""ReCU with another step 1, for ablations: centred only, not even that, or another scale b than the paper's.

No kernel stands for these layers: training and evaluation run `BinaryConv2d.forward`.
"""

from __future__ import annotations

import math

from torch import Tensor

from recu.binarisers.recu import BinaryConv2d, centre_weight, standardise_weight


class CentredBinaryConv2d(BinaryConv2d):
    """The mean of each filter is taken off; its deviation stays as it is."""

    layer_cost, latent_weights = BinaryConv2d.layer_cost, BinaryConv2d.latent_weights

    def standardised(self) -> Tensor:
        """See `BinaryConv2d`."""
        return centre_weight(self.weight)


class UnstandardisedBinaryConv2d(BinaryConv2d):
    """The latent weights stay as they are, so that a binary weight is the sign of the latent one itself."""

    layer_cost, latent_weights = BinaryConv2d.layer_cost, BinaryConv2d.latent_weights

    def standardised(self) -> Tensor:
        """See `BinaryConv2d`."""
        return self.weight


class NarrowBinaryConv2d(BinaryConv2d):
    """Each filter is brought to the deviation of a Laplacian of b = 1, half the paper's."""

    layer_cost, latent_weights = BinaryConv2d.layer_cost, BinaryConv2d.latent_weights

    def standardised(self) -> Tensor:
        """See `BinaryConv2d`."""
        return standardise_weight(self.weight, 1.0 * math.sqrt(2.0))


class WideBinaryConv2d(BinaryConv2d):
    """The same of b = 4, twice the paper's."""

    layer_cost, latent_weights = BinaryConv2d.layer_cost, BinaryConv2d.latent_weights

    def standardised(self) -> Tensor:
        """See `BinaryConv2d`."""
        return standardise_weight(self.weight, 4.0 * math.sqrt(2.0))
