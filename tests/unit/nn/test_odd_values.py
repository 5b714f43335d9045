"""Values that are odd, and shapes and memory that are, give the loops what they give PyTorch's operations."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recu.nn import BinaryConv2d, CompetitorBinaryConv2d, binary_unit
from recu.nn.inference import inference_form

ODD = {
    "zero": 0.0,
    "zero below": -0.0,
    "smallest": 1e-320,
    "smallest below": -1e-320,
    "infinite": float("inf"),
    "infinite below": float("-inf"),
    "not a number": float("nan"),
}
odd_values = pytest.mark.parametrize("value", ODD.values(), ids=ODD.keys())
CHANNELS, SIDE = 20, 6


@contextmanager
def plainly() -> Iterator[None]:
    """Within the block no loop is taken."""
    with pytest.MonkeyPatch.context() as patch:
        kernels = ("sign_convolution", "winograd", "binary_conv", "binary_unit", "inference_norm")
        for module in (*(f"recu.kernels.{kernel}" for kernel in kernels), "recu.nn.inference_conv"):
            patch.setattr(importlib.import_module(module), "compiled_for", lambda *_: False)
        yield


def activation(value: float, count: int = 3) -> Tensor:
    values = torch.randn(count, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values.flatten()[::7] = value
    return values.contiguous(memory_format=torch.channels_last)


class Unit(nn.Module):
    fixed_graph = True

    def __init__(self, kind: type[nn.Conv2d]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.last = kind(CHANNELS, 17, 3, padding=1), nn.BatchNorm2d(17), kind(17, 5, 3, stride=2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(binary_unit(self.conv, self.norm, x, hardtanh=True))


def step(unit: Unit, values: Tensor) -> dict[str, Tensor]:
    """Result and all gradients."""
    unit, values = copy.deepcopy(unit).train(), values.clone().requires_grad_()
    out = unit(values)
    out.sum().backward()
    found = {name: parameter.grad for name, parameter in unit.named_parameters()}
    return found | dict(unit.named_buffers()) | {"result": out.detach(), "activation": values.grad}


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-9, atol=1e-12, equal_nan=True)


@odd_values
@pytest.mark.parametrize("kind", [BinaryConv2d, CompetitorBinaryConv2d])
@torch.no_grad()
def test_evaluation(kind, value: float) -> None:
    unit, values = Unit(kind).eval(), activation(value)
    fast, form = unit(values), inference_form(unit)(values)
    with plainly():
        plain = unit(values)
    assert close(fast, plain) and close(form, plain)


@odd_values
def test_a_training_step(value: float) -> None:
    fast = step(Unit(BinaryConv2d), activation(value))
    with plainly():
        plain = step(Unit(BinaryConv2d), activation(value))
    for name, expected in plain.items():
        # The BatchNorm undoes alpha, whose gradient is what rounding leaves of large terms, layer by layer.
        assert name == "conv.alpha" or close(fast[name], expected), name


@pytest.mark.parametrize("where", ["weight", "alpha", "norm.weight", "norm.running_var"])
@torch.no_grad()
def test_evaluation_with_a_parameter_that_is_not_a_number(where: str) -> None:
    unit = Unit(BinaryConv2d).eval()
    tensor = {"weight": unit.conv.weight, "alpha": unit.conv.alpha, "norm.weight": unit.norm.weight}.get(where)
    (unit.norm.running_var if tensor is None else tensor).data.flatten()[3] = torch.nan
    values = activation(1.0)
    fast, form = unit(values), inference_form(unit)(values)
    with plainly():
        plain = unit(values)
    assert close(fast, plain) and close(form, plain)


MEMORY = {
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x,
    "transposed": lambda x: x.transpose(2, 3),
    "a part": lambda x: F.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1],
    "strided": lambda x: torch.cat([x, x], dim=1)[:, ::2],
    "expanded": lambda x: x[:1].expand(4, -1, -1, -1),
    "one": lambda x: x[:1],
    "none": lambda x: x[:0],
    "flipped": lambda x: x.flip(3),
    "of one pixel": lambda x: x[:, :, :3, :3],
}


@pytest.mark.parametrize("view", MEMORY.values(), ids=MEMORY.keys())
def test_memory_of_any_layout_and_batches_of_any_size(view) -> None:
    unit, values = Unit(BinaryConv2d), view(activation(0.0))
    with torch.no_grad():
        unit.eval()
        fast, form = unit(values), inference_form(unit)(values)
        with plainly():
            plain = unit(values)
    assert fast.shape == plain.shape and close(fast, plain) and close(form, plain)
    if len(values):
        fast = step(unit, values)
        with plainly():
            plain = step(unit, values)
        assert all(name == "conv.alpha" or close(fast[name], expected) for name, expected in plain.items())


@pytest.mark.parametrize("type_of", ["alpha", "norm", "residual", "activation"])
def test_types_that_differ_are_left_to_pytorch(type_of: str) -> None:
    unit = Unit(BinaryConv2d).float()
    values, residual = activation(0.0).float(), torch.randn(3, 17, SIDE, SIDE)
    if type_of == "alpha":
        unit.conv.alpha.data = unit.conv.alpha.data.double()
    elif type_of == "norm":
        unit.norm.double()
    elif type_of == "residual":
        residual = residual.double()
    else:
        values = values.double()

    def outcome() -> Tensor | str:
        try:
            return binary_unit(copy.deepcopy(unit.conv), copy.deepcopy(unit.norm), values, residual)
        except RuntimeError as error:
            return str(error).split("\n")[0]

    fast = outcome()
    with plainly():
        plain = outcome()
    assert fast == plain if isinstance(plain, str) else (fast.dtype == plain.dtype and torch.equal(fast, plain))
