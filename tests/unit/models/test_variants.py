"""Recognising the earlier forms and normalising state dicts."""

import pytest
import torch

from recu.models import ModelName, available_models, build_model, normalise_state_dict, recognise_variant


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("entry", available_models(stage=2), ids=lambda entry: "-".join(filter(None, entry)))
def test_every_network_is_recognised_by_its_keys(entry: ModelName, prefix: str) -> None:
    with torch.device("meta"):  # no values are looked at
        model = build_model(entry.name, family=entry.family, num_classes=10, variant=entry.variant)
    assert recognise_variant(prefix + key for key in model.state_dict()) == entry.variant


def test_a_data_parallel_checkpoint_loads_after_normalisation() -> None:
    torch.manual_seed(0)
    source = build_model("resnet20_1w1a", family="cifar", num_classes=10)
    trained = {
        f"module.{key}": value.reshape(1) * 0.9 if key.endswith(".tau") else value
        for key, value in source.state_dict().items()
    }
    target = build_model("resnet20_1w1a", family="cifar", num_classes=10)
    target.load_state_dict(normalise_state_dict(trained))
    assert target.layer1[0].conv1.tau == torch.tensor(0.9)
    assert torch.equal(target.layer3[2].conv2.weight, source.layer3[2].conv2.weight)
    assert trained["module.layer1.0.conv1.tau"].shape == (1,)


def test_only_a_leading_prefix_is_stripped_and_other_tensors_keep_their_shape() -> None:
    state = {"module.layer.module.weight": torch.zeros(1), "tau": torch.ones(1)}
    normalised = normalise_state_dict(state)
    assert {key: tuple(value.shape) for key, value in normalised.items()} == {
        "layer.module.weight": (1,),
        "tau": (),
    }
