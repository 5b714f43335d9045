"""Each definition of docs/diagnostics.md against a small case worked by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from recu.binarisers.diagnostics import (
    BINS,
    entropy,
    flipped_share,
    histogram,
    measure,
    positive,
    quantisation_error,
    share_beyond,
)
from recu.binarisers.protocol import LatentWeights, stated_latent_weights
from recu.binarisers.react import CompetitorBinaryConv2d
from recu.binarisers.real import RealConv2d, RescaledSignActivationConv2d, SignActivationConv2d
from recu.binarisers.recu import BinaryConv2d, recu_clamp, set_tau, standardise_weight
from recu.experiment.binarisers import available_binarisers
from recu.models.build import convolution_of


def filters(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).view(len(rows), -1, 1, 1)


def layer(kind: type[nn.Conv2d], *rows: list[float]) -> nn.Conv2d:
    conv = kind(len(rows[0]), len(rows), 1).double()
    conv.weight.data.copy_(filters(*rows))
    return conv


def measured(conv: nn.Conv2d, earlier: Tensor | None = None) -> dict[str, float]:
    latent = stated_latent_weights(conv)
    assert latent is not None
    return {name: value.item() for name, value in measure(latent, earlier).items()}


def test_zero_counts_as_minus_one() -> None:
    assert positive(filters([-1.0, 0.0, 2.0])).flatten().tolist() == [False, False, True]


def test_dead_weights_lie_beyond_the_threshold_on_either_side_and_not_on_it() -> None:
    assert share_beyond(filters([1.0, -2.0], [3.0, -4.0]), torch.tensor(2.0)).item() == 0.5
    assert share_beyond(filters([1e30, -1e30]), torch.tensor(math.inf)).item() == 0.0


def test_flipped_share() -> None:
    now, earlier = filters([1.0, -1.0, 1.0, 1.0]), filters([1.0, 1.0, -1.0, 1.0])
    assert flipped_share(positive(now), positive(earlier)).item() == 0.5


def test_quantisation_error_uses_each_filters_best_scale() -> None:
    # Scales 2 and 2: (1-2)^2, (-3+2)^2 and twice 0; the mean over all four.
    assert quantisation_error(filters([1.0, -3.0], [2.0, -2.0])).item() == 0.5
    weights = filters([0.0, -3.0, 4.5], [1.0, 1.5, -2.0])
    binary = torch.where(weights > 0, 1.0, -1.0)

    def error(scale: Tensor) -> float:
        return (weights - scale * binary).square().mean().item()

    best = weights.abs().mean((1, 2, 3), keepdim=True)
    assert quantisation_error(weights).item() == pytest.approx(error(best), rel=1e-14)
    assert error(best) < min(error(best + 0.01), error(best - 0.01))


def test_entropy_is_the_mean_over_the_filters() -> None:
    half, quarter, none = [1.0, 1.0, -1.0, -1.0], [1.0, -1.0, -1.0, -1.0], [-1.0] * 4
    bits = -0.25 * math.log2(0.25) - 0.75 * math.log2(0.75)
    assert entropy(positive(filters(half))).item() == 1.0
    assert entropy(positive(filters(none))).item() == 0.0
    assert entropy(positive(filters(half, quarter, none))).item() == pytest.approx((1.0 + bits) / 3, rel=1e-14)


def test_histogram_counts_every_value_once_the_upper_end_too() -> None:
    counts = histogram(filters([-1.0, -0.99, 0.0, 0.02, 0.04, 1.0]), 1.0)
    assert len(counts) == BINS and sum(counts) == 6
    assert (counts[0], counts[BINS // 2], counts[BINS // 2 + 1], counts[-1]) == (2, 2, 1, 1)


def test_a_layer_of_recu() -> None:
    # Filters 1, 3 and 2, 6: means 2 and 4, unbiased variances 2 and 8.
    conv = layer(BinaryConv2d, [1.0, 3.0], [2.0, 6.0])
    conv.alpha.data.copy_(torch.tensor([0.5, 2.0]).view(2, 1, 1))
    set_tau(conv, 0.75)
    values = (2 * math.sqrt(2) / math.sqrt(2 + 1e-5), 4 * math.sqrt(2) / math.sqrt(8 + 1e-5))
    m = sum(values) / 2
    found = measured(conv, positive(filters([1.0, 1.0], [-1.0, 1.0])))
    assert found == pytest.approx(
        {
            "threshold": -m * math.log(0.5),  # 1.39, below all four magnitudes, 2.0
            "dead_share": 1.0,
            "tail_share": 0.0,  # -m ln 0.02 = 7.8
            "flipped_share": 0.25,
            "quantisation_error": 0.0,  # all of them are clamped to one magnitude
            "entropy": 1.0,
            "scale_min": 0.5,
            "scale_mean": 1.25,
            "scale_max": 2.0,
        },
        rel=1e-12,
        abs=1e-12,
    )
    latent = stated_latent_weights(conv)
    assert torch.equal(latent.before, standardise_weight(conv.weight))
    assert torch.equal(latent.after, recu_clamp(latent.before, conv.tau))


def test_the_tail_is_beyond_the_99th_percentile_whatever_tau_is() -> None:
    sample = torch.distributions.Laplace(0.0, 2.0).icdf(torch.linspace(0.0005, 0.9995, 1000).double())
    latent = LatentWeights(sample.view(1, -1), sample.view(1, -1))
    found = measure(latent, None)
    # A weight is beyond Q(tau) on the right with probability 1 - tau, and as often on the left.
    assert found["tail_share"].item() == pytest.approx(2 * 0.01, abs=0.002)
    assert all(found[name].isnan() for name in ("threshold", "dead_share", "flipped_share", "scale_mean"))


def test_without_a_clamp_no_weight_is_dead() -> None:
    conv = layer(BinaryConv2d, [1.0, 3.0, 9.0])
    set_tau(conv, 1.0)
    found = measured(conv)
    assert found["threshold"] == math.inf and found["dead_share"] == 0.0 and math.isnan(found["flipped_share"])
    latent = stated_latent_weights(conv)
    assert torch.equal(latent.before, latent.after) and found["quantisation_error"] > 0


def test_the_competitors_layer_is_measured_as_it_is_defined_there() -> None:
    found = measured(layer(CompetitorBinaryConv2d, [0.5, -1.5], [2.0, 1.0]))
    assert (found["threshold"], found["dead_share"], found["entropy"]) == (1.0, 0.5, 0.5)
    assert found["quantisation_error"] == pytest.approx(0.25**2 / 2)  # of 0.5, -1 and of 1, 1
    assert (found["scale_min"], found["scale_max"]) == (1.0, 1.5)


@pytest.mark.parametrize("name", available_binarisers())
def test_every_binariser_says_signs_that_are_those_of_its_convolution(name: str) -> None:
    torch.manual_seed(0)
    conv = convolution_of("cifar", 2, name)(3, 4, 3, padding=1).double().eval()
    before, after, threshold, scale = stated_latent_weights(conv)
    activation = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    binary = torch.nn.functional.conv2d(activation.sign(), before.sign(), None, 1, 1)
    with torch.no_grad():
        assert torch.allclose(conv(activation), binary * scale.view(-1, 1, 1))
    bound = math.inf if threshold is None else threshold.item()
    assert torch.equal(after, before.clamp(-bound, bound))


@pytest.mark.parametrize("kind", [RealConv2d, SignActivationConv2d, RescaledSignActivationConv2d, nn.Conv2d])
def test_real_weights_are_not_measured(kind: type[nn.Conv2d]) -> None:
    assert stated_latent_weights(kind(2, 2, 1)) is None


def test_what_a_class_inherits_says_what_another_layer_measures() -> None:
    class Own(BinaryConv2d):
        pass

    assert stated_latent_weights(Own(2, 2, 1)) is None
