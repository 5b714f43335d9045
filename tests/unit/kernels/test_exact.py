"""A layer is exactly what its class says unless anything on it takes part when it is called."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations, prune

from recu.kernels.exact import is_altered, is_exactly, switch_off
from recu.nn import BinaryConv2d


class Derived(BinaryConv2d):
    pass


def layer() -> BinaryConv2d:
    return BinaryConv2d(4, 4, 3)


def test_a_fresh_a_copied_and_a_loaded_layer() -> None:
    other = layer()
    other.load_state_dict(layer().state_dict())
    for found in (layer(), copy.deepcopy(layer()), other.double().eval().requires_grad_(False)):
        assert is_exactly(found, nn.BatchNorm2d, BinaryConv2d)
    assert not is_exactly(layer(), nn.Conv2d) and not is_exactly(Derived(4, 4, 3), BinaryConv2d)


@pytest.mark.parametrize(
    "alter",
    [
        lambda conv: conv.register_forward_hook(lambda *_: None),
        lambda conv: conv.register_forward_pre_hook(lambda *_: None),
        lambda conv: conv.register_full_backward_hook(lambda *_: None),
        lambda conv: conv.register_full_backward_pre_hook(lambda *_: None),
        lambda conv: setattr(conv, "forward", lambda x: x),
        lambda conv: setattr(conv, "_conv_forward", lambda *_: None),
        lambda conv: prune.random_unstructured(conv, "weight", 0.5),
        lambda conv: parametrizations.weight_norm(conv),
    ],
    ids=[
        "forward hook",
        "pre-hook",
        "backward hook",
        "backward pre-hook",
        "forward",
        "method",
        "pruned",
        "parametrised",
    ],
)
def test_what_is_put_on_a_layer_makes_it_another(alter) -> None:
    conv = layer()
    alter(conv)
    assert not is_exactly(conv, BinaryConv2d)


def test_a_hook_that_was_removed_is_none() -> None:
    conv = layer()
    conv.register_forward_hook(lambda *_: None).remove()
    assert is_exactly(conv, BinaryConv2d)


def test_a_hook_on_all_layers_of_the_process_counts_for_each() -> None:
    def look(_layer: nn.Module, _inputs: tuple[Tensor, ...], _output: Tensor) -> None: ...

    handle = torch_module.register_module_forward_hook(look)
    try:
        assert is_altered(layer())
    finally:
        handle.remove()
    assert not is_altered(layer())


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_recorded_network_is_not_a_constant() -> None:
    torch.manual_seed(0)
    conv = layer().eval()
    with torch.no_grad():
        recorded = torch.jit.trace(conv, torch.randn(1, 4, 5, 5), check_trace=False)
        other = torch.randn(1, 4, 5, 5)
        assert torch.equal(recorded(other), conv(other))


def test_with_kernels_switched_off_a_copy_has_none_either() -> None:
    conv = layer()
    switch_off(conv)
    assert not is_exactly(conv, BinaryConv2d) and not is_exactly(copy.deepcopy(conv), BinaryConv2d)
