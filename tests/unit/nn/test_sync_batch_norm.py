"""BatchNorm over several processes, some of which have no image: the layers around it take none, forward and backward.

Its numbers: `tests/golden/test_replicas.py`.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recu.base.errors import ConfigError
from recu.models import build_model
from recu.nn.sync_batch_norm import synchronise

NETWORKS = [
    ("cifar", "resnet20_1w1a", None),
    ("cifar", "resnet18_1w1a", "2021-03"),
    ("cifar", "vgg_small_1w1a", None),
    ("imagenet", "resnet18_1w1a", None),
    ("reactnet", "resnet18_1w1a", None),
    ("birealnet", "birealnet18", None),
]


@pytest.mark.parametrize(("family", "name", "variant"), NETWORKS)
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.filterwarnings("ignore:var")
def test_every_family_takes_a_batch_without_images(
    family: str, name: str, variant: str | None, stage: int, precision: str
) -> None:
    network = build_model(name, family=family, num_classes=7, variant=variant, stage=stage)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.eval()  # as a synchronised one, it wants no image of its own
    images = torch.empty(0, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits = network(images)
    assert logits.shape == (0, 7)
    (logits.sum() * 0.0).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name


class _OwnNorm(nn.BatchNorm2d):
    pass


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, momentum=None), nn.BatchNorm3d(4), _OwnNorm(4)]
)
def test_a_layer_that_it_cannot_stand_in_for_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"layer 1, .* is no usual BatchNorm; leave"):
        synchronise(nn.Sequential(nn.Conv2d(3, 4, 3), layer))
