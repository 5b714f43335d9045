"""Both engines do the work they are asked for, on the same images."""

import pytest
import torch

from benchmarks import engines
from benchmarks.reference import networks
from recu.base.errors import ConfigError

CPU = torch.device("cpu")


def build(kind: str) -> engines.Engine:
    return engines.build_engine(
        kind,
        "resnet20_1w1a",
        train=engines.random_images(10),
        test=engines.random_images(7),
        batch_size=4,
        batch_size_test=3,
        device=CPU,
    )


@pytest.mark.parametrize("kind", engines.ENGINES)
def test_every_batch_of_every_epoch(kind):
    engine = build(kind)
    assert [engine.load() for _ in range(7)] == [4, 4, 2, 4, 4, 2, 4]
    assert [engine.train() for _ in range(4)] == [4, 4, 2, 4]
    assert engine.evaluate() == 7


def test_images_are_the_same_each_time():
    first, second = engines.random_images(3), engines.random_images(3)
    assert torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)
    assert first.images.shape == (3, 32, 32, 3) and first.images.dtype == torch.uint8


def test_unknown_models_and_models_without_a_reference(monkeypatch):
    with pytest.raises(ConfigError, match="did you mean 'resnet20_1w1a'"):
        engines.check_model("resnet20_1w1")
    engines.check_model("vgg_small_1w1a")
    # A network that a user adds.
    builders = networks.BUILDERS
    monkeypatch.delitem(builders, ("cifar", "vgg_small_1w1a", None))
    with pytest.raises(ConfigError, match=r"has no cifar\.vgg_small_1w1a to compare with"):
        engines.check_model("vgg_small_1w1a")
