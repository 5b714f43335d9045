"""The binary convolution with a backward pass by hand against the method's steps, which autograd differentiates."""

import copy

import pytest
import torch
from torch import Tensor

from recu.binarisers.recu import quantile_threshold, rescale_per_sample, standardise_weight
from recu.kernels.binary_conv import convolve, latent_weight_gradient, sign_gradient
from recu.nn import BinaryConv2d, set_tau


def _layer(tau: float = 0.9, *, stride: int = 1, kernel_size: int = 3, padding: int = 1) -> BinaryConv2d:
    torch.manual_seed(3)
    layer = BinaryConv2d(4, 6, kernel_size, stride=stride, padding=padding).double()
    torch.nn.init.normal_(layer.weight, 0.1, 1.0)
    set_tau(layer, tau)
    return layer


def _activation(samples: int = 3, size: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    activation = torch.randn(samples, 4, size, size, dtype=torch.float64, generator=generator) + 0.2
    activation[0, 0, 0, :3] = 0.0
    return activation.requires_grad_()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("tau", [0.6, 0.9, 1.0])
@pytest.mark.parametrize(
    ("stride", "kernel_size", "padding"), [(1, 3, 1), (2, 3, 1), (2, 1, 0)], ids=["same", "strided", "1x1"]
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_value_and_gradients_equal_those_of_the_method(
    training: bool, tau: float, stride: int, kernel_size: int, padding: int, memory_format: torch.memory_format
) -> None:
    layer = _layer(tau, stride=stride, kernel_size=kernel_size, padding=padding).train(training)
    inputs = _activation().detach().contiguous(memory_format=memory_format).requires_grad_()
    leaves = (inputs, layer.weight, layer.alpha)
    fast, plain = convolve(layer, inputs), layer(inputs)
    assert torch.equal(fast, plain)
    incoming = torch.randn_like(plain)
    for ours, theirs in zip(
        torch.autograd.grad(fast, leaves, incoming), torch.autograd.grad(plain, leaves, incoming), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_single_precision_agrees_too() -> None:
    layer = _layer().float()
    inputs = _activation().detach().float().requires_grad_()
    leaves = (inputs, layer.weight, layer.alpha)
    fast, plain = convolve(layer, inputs), layer(inputs)
    assert torch.equal(fast, plain)
    for ours, theirs in zip(
        torch.autograd.grad(fast.square().sum(), leaves),
        torch.autograd.grad(plain.square().sum(), leaves),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


def test_weight_gradient_is_that_of_the_standardised_clamped_weight() -> None:
    generator = torch.Generator().manual_seed(5)
    weight, incoming = torch.randn(2, 2, 2, 3, 3, dtype=torch.float64, generator=generator)
    tau = torch.tensor(0.8, dtype=torch.float64)
    threshold = quantile_threshold(standardise_weight(weight), tau)

    def objective(value: Tensor) -> Tensor:
        return (incoming * standardise_weight(value).clamp(-threshold, threshold)).sum()

    std = torch.sqrt(weight.var((1, 2, 3), keepdim=True) + 1e-5)
    ours = latent_weight_gradient(incoming, standardise_weight(weight), std, threshold)
    assert 0 < (standardise_weight(weight).abs() > threshold).sum() < weight.numel()
    assert torch.allclose(ours, _numeric_gradient(objective, weight), rtol=1e-6, atol=1e-7)


def test_activation_gradient_is_that_of_the_rescaled_polynomial() -> None:
    generator = torch.Generator().manual_seed(6)
    activation, incoming = torch.randn(2, 2, 2, 3, 3, dtype=torch.float64, generator=generator)

    def objective(value: Tensor) -> Tensor:
        x = rescale_per_sample(value)
        return (incoming * torch.where(x.abs() < 1, 2 * x - x * x.abs(), torch.sign(x))).sum()

    ours = sign_gradient(incoming, activation, rescale=True)
    assert torch.allclose(ours, _numeric_gradient(objective, activation), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("form", [convolve, lambda layer, activation: layer(activation)], ids=["kernel", "method"])
def test_evaluation_depends_on_the_weights_signs_and_alpha_only(form) -> None:
    layer = _layer().eval()
    other = copy.deepcopy(layer)
    set_tau(other, 0.6)
    with torch.no_grad():
        mean = other.weight.mean((1, 2, 3), keepdim=True)
        other.weight.copy_(torch.sign(other.weight - mean))
        # The mean of the signs is not zero: without this the signs of (weight - mean) could differ.
        assert torch.equal(torch.sign(other.weight - other.weight.mean((1, 2, 3), keepdim=True)), other.weight)
        activation = _activation()
        assert torch.equal(form(layer, activation), form(other, activation * 7.0))
        other.alpha.mul_(2.0)
        assert torch.equal(2.0 * form(layer, activation), form(other, activation))


def test_without_gradients_the_values_are_the_same() -> None:
    for training in (True, False):
        layer = _layer().train(training)
        with torch.no_grad():
            inference = convolve(layer, _activation())
        assert torch.equal(inference, convolve(layer, _activation()))
        assert torch.equal(inference, layer(_activation()))


def test_padding_stays_zero_and_a_zero_activation_counts_for_nothing() -> None:
    layer = _layer().eval()
    assert torch.equal(layer(torch.zeros(1, 4, 5, 5).double()), torch.zeros(1, 6, 5, 5).double())


def test_initial_state() -> None:
    layer = BinaryConv2d(8, 5, 3)
    assert {key: tuple(value.shape) for key, value in layer.state_dict().items()} == {
        "weight": (5, 8, 3, 3),
        "alpha": (5, 1, 1),
        "tau": (),
    }
    assert layer.tau == 1.0
    assert ((layer.alpha >= 0) & (layer.alpha < 1)).all()


def test_memory_format_is_kept() -> None:
    layer = _layer()
    inputs = _activation().detach().contiguous(memory_format=torch.channels_last)
    assert convolve(layer, inputs).is_contiguous(memory_format=torch.channels_last)


def test_what_is_kept_for_the_backward_pass_is_the_activation_itself() -> None:
    layer = _layer()
    inputs = _activation(samples=32)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        convolve(layer, inputs)
    large = [tensor for tensor in saved if tensor.numel() >= inputs.numel()]
    assert [tensor.data_ptr() for tensor in large] == [inputs.data_ptr()]


def test_a_filter_of_one_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="two weights"):
        BinaryConv2d(1, 4, 1)


def test_no_gradient_is_computed_for_an_input_that_needs_none() -> None:
    layer = _layer()
    convolve(layer, _activation().detach()).sum().backward()
    assert layer.weight.grad is not None


def _numeric_gradient(objective, at: Tensor, step: float = 1e-6) -> Tensor:
    gradient = torch.zeros_like(at)
    for index in range(at.numel()):
        offset = torch.zeros_like(at)
        offset.view(-1)[index] = step
        gradient.view(-1)[index] = (objective(at + offset) - objective(at - offset)) / (2 * step)
    return gradient
