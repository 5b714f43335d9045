"""Layers that are taken image by image give what they give one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from recu.kernels.inference_norm import InferenceNorm2d
from recu.models import build_model
from recu.nn import BinaryConv2d
from recu.nn.inference import inference_form
from recu.nn.inference_body import SignBody
from recu.nn.inference_conv import InferenceConv2d
from recu.nn.layers import AveragePoolShortcut, HardTanh
from tests.golden.fill import fill


def network(name: str, family: str) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(name, family=family, num_classes=5)
    fill(model, 0.9)
    return model.eval()


def form_of(model: nn.Module, *shape: int) -> nn.Module:
    """The form for evaluation, which gives what the network gives on random images of that shape, to the last bit."""
    fill(model, 0.9)
    form, batch = inference_form(model.eval()), torch.randn(*shape).contiguous(memory_format=torch.channels_last)
    assert torch.equal(form(batch), model(batch))
    return form


def bodies(form: nn.Module) -> list[SignBody]:
    return [layer for layer in form.modules() if isinstance(layer, SignBody)]


@pytest.mark.parametrize(
    ("family", "name", "parts"),
    [
        ("cifar", "resnet20_1w1a", 1),
        ("cifar", "resnet18_1w1a", 1),
        ("cifar", "vgg_small_1w1a", 1),
        ("imagenet", "resnet18_1w1a", 4),
    ],
)
@torch.inference_mode()
def test_how_much_of_a_network_is_taken_at_once(family, name, parts) -> None:
    form = inference_form(network(name, family))
    found = bodies(form)
    assert len(found) == parts
    inside = {layer for body in found for layer in body.modules() if isinstance(layer, InferenceConv2d)}
    assert inside == {layer for layer in form.modules() if isinstance(layer, InferenceConv2d)}


@pytest.mark.parametrize(("family", "name"), [("cifar", "resnet20_1w1a"), ("imagenet", "resnet18_1w1a")])
@torch.inference_mode()
def test_images_of_every_size_and_number(family, name) -> None:
    model = network(name, family)
    form = inference_form(model)
    for shape in ((1, 32, 32), (5, 32, 32), (2, 45, 32), (3, 65, 70)):
        batch = torch.randn(shape[0], 3, *shape[1:]).contiguous(memory_format=torch.channels_last)
        assert torch.equal(form(batch), model(batch))


@torch.inference_mode()
def test_other_types_go_layer_by_layer() -> None:
    model = network("resnet20_1w1a", "cifar")
    form, batch = inference_form(model), torch.randn(3, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(form(batch).float(), model(batch).float(), rtol=0.05, atol=0.05)
    assert not any(body._programs for body in bodies(form))


@torch.inference_mode()
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    form, batch = inference_form(network("resnet18_1w1a", "cifar")), torch.randn(5, 3, 32, 32)
    (body,) = bodies(form)
    stem = torch.randn(5, 64, 32, 32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4, 7):
            torch.set_num_threads(threads)
            # All at once, and one by one: then, and where there are fewer than threads, these share an image.
            found += [body(stem), torch.cat([body(image) for image in stem.split(1)])]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each, found[0]) for each in found[1:])
    assert form(batch).shape == (5, 5)


class Branches(nn.Module):
    """Results that are read inside and outside of what is taken at once, with different paddings, and a pooling."""

    fixed_graph = True

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm0 = nn.BatchNorm2d(16)
        self.wide, self.narrow = BinaryConv2d(16, 16, 3, padding=1), BinaryConv2d(16, 16, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.hardtanh(self.norm0(self.stem(x)))
        one, other = self.norm1(self.wide(x)), self.norm2(self.narrow(x))
        last = self.pool(F.hardtanh(self.narrow(F.hardtanh(one)) + other))
        return torch.cat([last.flatten(1), torch.sin(other).flatten(1), one.flatten(1)], 1)


@torch.inference_mode()
def test_results_that_others_read_too() -> None:
    torch.manual_seed(0)
    form = form_of(Branches(), 4, 3, 8, 6)
    assert bodies(form)


class Named(nn.Module):
    """Layers and a tensor with the names that parts might be given."""

    fixed_graph = True

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = BinaryConv2d(3, 8, 3), BinaryConv2d(8, 8, 3), nn.BatchNorm2d(8)
        self.body_0, self.body_conv = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.third, self.fourth = BinaryConv2d(8, 8, 3), BinaryConv2d(8, 8, 3)
        self.body_1 = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body_0(F.hardtanh(self.norm(self.second(F.hardtanh(self.norm(self.first(x)))))))
        x = self.fourth(F.hardtanh(self.norm(self.third(x * self.body_1))))
        return self.body_conv(x)


@torch.inference_mode()
def test_layers_with_the_names_of_parts_stay_what_they_are() -> None:
    torch.manual_seed(0)
    form = form_of(Named(), 2, 3, 12, 12)
    assert len(bodies(form)) == 2


class Overwriting(nn.Module):
    """Writes over a result that has been read and is read again, and uses no new name for it."""

    fixed_graph = True

    def __init__(self, write: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(BinaryConv2d(8, 8, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))
        self.write = write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x)) + x
            self.write(x)
        return x


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2)


@pytest.mark.parametrize(
    "write",
    [
        *(HardTanh(), nn.ReLU(inplace=True), Doubled(), torch.neg_, lambda x: x.clamp_(0)),
        *(lambda x: F.hardtanh(x, inplace=True), lambda x: F.relu(x, True), lambda x: torch.mul(x, 2, out=x)),
    ],
)
@torch.inference_mode()
def test_results_that_are_written_over(write: Callable[[torch.Tensor], object]) -> None:
    torch.manual_seed(0)
    form = form_of(Overwriting(write), 2, 8, 6, 6)
    assert any(isinstance(layer, InferenceConv2d) for layer in form.modules())


class Halves(nn.Module):
    """Slices alone read a result; results that nobody reads."""

    fixed_graph = True

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(BinaryConv2d(8, 8, 3, padding=1) for _ in range(6))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(6))

    def block(self, number: int, x: torch.Tensor) -> torch.Tensor:
        return F.hardtanh(self.norms[number](self.convs[number](x)) + x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.block(1, self.block(0, torch.sin(x)))
        whole = self.block(3, self.block(2, x))
        first, second = whole[:, :4], whole[:, 4:]
        return self.block(5, self.block(4, torch.cat([second, first], 1)))


@torch.inference_mode()
def test_results_that_slices_alone_read_and_those_that_nobody_does() -> None:
    torch.manual_seed(0)
    form = form_of(Halves(), 2, 8, 6, 6)
    assert len(bodies(form)) == 2


class Added(nn.Module):
    """One map is added to every image."""

    fixed_graph = True

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(BinaryConv2d(8, 8, 3, padding=1) for _ in range(2))
        self.map = nn.Parameter(torch.randn(1, 8, 6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.convs
        return second(F.hardtanh(first(x) + self.map))


@torch.inference_mode()
def test_what_is_added_to_one_image_is_added_to_several() -> None:
    torch.manual_seed(0)
    model = Added().eval()
    form = inference_form(model)
    assert len(bodies(form)) == 1
    for count in (1, 3, 1, 0, 2):
        batch = torch.randn(count, 8, 6, 6).contiguous(memory_format=torch.channels_last)
        assert torch.equal(form(batch), model(batch))


@pytest.mark.parametrize(("more", "stride"), [(16, 2), (8, 2), (5, 1), (4, 2), (1, 3)])
@torch.inference_mode()
def test_a_shortcut_to_more_channels_or_fewer(more: int, stride: int) -> None:
    torch.manual_seed(0)
    conv, shortcut = BinaryConv2d(8, 8, 3, padding=1), AveragePoolShortcut(8, more, stride)
    model = nn.Sequential(conv, nn.BatchNorm2d(8), shortcut, BinaryConv2d(more, 4, 3, padding=1), nn.BatchNorm2d(4))
    assert len(bodies(form_of(model, 3, 8, 7, 6))) == 1


@torch.inference_mode()
def test_inputs_that_a_graph_names_between_operations() -> None:
    torch.manual_seed(0)
    graph, root = fx.Graph(), nn.Module()
    results = []
    for number in range(3):
        norm = nn.BatchNorm2d(4)
        norm.running_mean.normal_()
        root.add_module(f"norm{number}", InferenceNorm2d(norm.eval(), hardtanh=True))
        results.append(graph.call_module(f"norm{number}", (graph.placeholder(f"x{number}"),)))
    graph.output(tuple(results))
    body = SignBody(fx.GraphModule(root, graph))
    batches = [torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last) for _ in range(3)]
    assert all(torch.equal(*pair) for pair in zip(body(*batches), body.segment(*batches), strict=True))
    assert all(body._programs.values())


@torch.inference_mode()
def test_images_too_small_are_refused_as_by_the_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(BinaryConv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Hardtanh(), BinaryConv2d(4, 4, 3)).eval()
    form, batch = inference_form(model), torch.randn(2, 4, 4, 4)
    for network in (model, form):
        with pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
            network(batch)
