"""The convolutions of stages 0 and 1."""

import torch
import torch.nn.functional as F

from recu.nn import BinaryConv2d, RealConv2d, RescaledSignActivationConv2d, SignActivationConv2d


def _activation() -> torch.Tensor:
    return 0.4 * torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(2))


def test_the_key_and_shape_of_the_weight_are_those_of_the_binary_convolution() -> None:
    binary = BinaryConv2d(3, 4, 3).weight
    for kind in (RealConv2d, RescaledSignActivationConv2d, SignActivationConv2d):
        state = kind(3, 4, 3).state_dict()
        assert list(state) == ["weight"]
        assert state["weight"].shape == binary.shape


def test_stage_one_convolves_signs_with_real_weights_in_training_and_evaluation() -> None:
    activation = _activation()
    for kind in (RescaledSignActivationConv2d, SignActivationConv2d):
        layer = kind(3, 4, 3, stride=2, padding=1)
        expected = F.conv2d(torch.sign(activation), layer.weight, None, 2, 1)
        assert torch.equal(layer(activation), expected)
        assert torch.equal(layer.eval()(activation), expected)


def test_only_recu_rescales_and_only_while_training() -> None:
    def gradient(layer: torch.nn.Module) -> torch.Tensor:
        activation = _activation().requires_grad_()
        layer(activation).sum().backward()
        return activation.grad

    plain = SignActivationConv2d(3, 4, 3)
    rescaled = RescaledSignActivationConv2d(3, 4, 3)
    rescaled.load_state_dict(plain.state_dict())
    assert not torch.allclose(gradient(rescaled), gradient(plain))
    assert torch.equal(gradient(rescaled.eval()), gradient(plain))
