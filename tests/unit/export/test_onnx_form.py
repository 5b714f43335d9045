"""Every registered network as ONNX gives what the network gives; QONNX too, but for zeros."""

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="needs onnx, of the extra `export`")
pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra `export`")

from recu.base.errors import ConfigError  # noqa: E402
from recu.experiment.networks import ModelName  # noqa: E402
from recu.export.comparing import Zeros, compare  # noqa: E402
from recu.export.graph import operations_of  # noqa: E402
from recu.export.onnx_form import onnx_model, onnx_runner, qonnx_runner  # noqa: E402
from recu.nn.inference import inference_form  # noqa: E402
from tests.unit.export.test_graph import every_network, network  # noqa: E402

IMAGES = 4


def on_grid(values: torch.Tensor) -> torch.Tensor:
    """Multiples of 1/64: sums of their products are exact, so that no order turns signs of activations near 0."""
    return (values * 64).round() / 64


def batches() -> list:
    images = torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    return [(on_grid(images), None)]


@pytest.mark.parametrize(("entry", "stage"), every_network())
def test_onnx(entry, stage):
    model = network(entry, stage)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.data = on_grid(layer.weight.data)
    operations = operations_of(model)
    run = onnx_runner(onnx_model(operations, size=32))
    found = compare(inference_form(model), {"onnx": run}, batches())["onnx"]
    logits = inference_form(model)(batches()[0][0]).detach()
    assert found.differing == 0 and found.largest <= 0.05 * float(logits.abs().max())


@pytest.mark.parametrize("name", ["resnet20_1w1a", "resnet18A_1w1a", "vgg_small_1w1a"])
def test_qonnx_and_the_zeros_that_it_cannot_say(name):
    pytest.importorskip("qonnx", reason="needs qonnx, of the extra `export`")
    model = network(ModelName("cifar", name, None))
    operations = operations_of(model)
    zeros = Zeros(operations, plus_one=True)
    run = qonnx_runner(onnx_model(operations, size=32, signs="qonnx", batch=IMAGES), IMAGES)
    found = compare(inference_form(model), {"qonnx": run, "zeros": zeros}, batches())
    assert found["qonnx"].differing == 0 and zeros.zeros == 0 < zeros.activations
    assert found["zeros"].unequal == 0


@pytest.mark.parametrize("name", ["resnet20_1w1a", "resnet18A_1w1a", "vgg_small_1w1a"])
def test_what_zeros_alone_change_is_what_qonnx_gives(name):
    pytest.importorskip("qonnx", reason="needs qonnx, of the extra `export`")
    model = network(ModelName("cifar", name, None))
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            # Of a black image it makes 0 everywhere.
            torch.nn.init.zeros_(layer.bias)
            torch.nn.init.zeros_(layer.running_mean)
            break
    operations, black = operations_of(model), torch.zeros(IMAGES, 3, 32, 32)
    kept, replaced = Zeros(operations), Zeros(operations, plus_one=True)
    found = compare(inference_form(model), {"kept": kept, "replaced": replaced}, [(black, None)])
    assert kept.zeros == replaced.zeros > 0 and kept.activations == replaced.activations
    assert found["kept"].unequal == 0 < found["replaced"].unequal
    run = qonnx_runner(onnx_model(operations, size=32, signs="qonnx", batch=IMAGES), IMAGES)
    images = black.permute(0, 2, 3, 1).numpy()
    assert np.abs(run(images) - replaced(images)).max() < 1e-3 < found["replaced"].largest


def test_binary_weights_of_sign_zero_are_refused_by_qonnx_alone():
    model = network(ModelName("cifar", "resnet20_1w1a", None))
    with torch.no_grad():
        model.layer1[0].conv1.weight[3] = 0.25
    operations = operations_of(model)
    weights = [onnx.numpy_helper.to_array(each) for each in onnx_model(operations, size=32).graph.initializer]
    assert sum(int((each == 0).sum()) for each in weights if each.shape == (16, 16, 3, 3)) == 144
    with pytest.raises(ConfigError, match="144 binary weights have the sign 0, which BipolarQuant does not have"):
        onnx_model(operations, size=32, signs="qonnx")


def test_weights_are_exactly_one_and_minus_one():
    operations = operations_of(network(ModelName("cifar", "vgg_small_1w1a", None)))
    model = onnx_model(operations, size=32, said={"classes": "[]"})
    arrays = [onnx.numpy_helper.to_array(each) for each in model.graph.initializer]
    assert sum(set(np.unique(each)) == {-1.0, 1.0} for each in arrays if each.ndim == 4) == 5
    assert {each.key: each.value for each in model.metadata_props} == {"classes": "[]"}
