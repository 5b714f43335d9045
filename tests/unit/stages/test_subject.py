"""What a checkpoint file is measured as."""

from pathlib import Path

import pytest
import torch

from recu.base.errors import CheckpointError, ConfigError
from recu.models import build_model
from recu.stages.subject import recognise
from recu.training.checkpoint import CheckpointFile
from tests.unit.training.ours import DATASET, experiment, our_checkpoint


def file_of(content) -> CheckpointFile:
    return CheckpointFile(path=Path("f.pth"), content=content, weights_key="state_dict", sha256="0" * 64)


def foreign(stage, *, model="birealnet18", family="birealnet", **content) -> CheckpointFile:
    with torch.device("meta"):
        network = build_model(model, family=family, num_classes=6, stage=stage)
    return file_of({"state_dict": network.state_dict()} | content)


def test_a_file_of_ours_needs_no_options():
    found = recognise(file_of(our_checkpoint(experiment(variant="2021-03", stage=1))), {}, "six", DATASET)
    assert (found.network, found.stage) == ("cifar-2021-03.resnet20_1w1a", 1)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_competitors_stages_have_the_same_tensors_so_the_stage_must_be_given(stage):
    file, asked = foreign(stage), {"model": "birealnet18", "family": "birealnet"}
    with pytest.raises(ConfigError, match="tensors are those of stages 0 and 1 and 2: give --stage"):
        recognise(file, asked, "six", DATASET)
    assert recognise(file, asked | {"stage": stage}, "six", DATASET).stage == stage


def test_stages_before_the_last_of_recu_have_the_same_tensors_and_the_last_has_more():
    asked = {"model": "resnet20_1w1a"}
    networks = {"model": "resnet20_1w1a", "family": "cifar"}
    with pytest.raises(ConfigError, match="tensors are those of stages 0 and 1: give --stage"):
        recognise(foreign(1, **networks), asked, "six", DATASET)
    assert recognise(foreign(2, **networks), asked, "six", DATASET).stage == 2


def test_a_stage_that_a_network_cannot_have_is_refused():
    with pytest.raises(ConfigError, match="has no stage 7"):
        recognise(foreign(1), {"model": "birealnet18", "family": "birealnet", "stage": 7}, "six", DATASET)


def test_who_asks_and_what_to_do_are_named():
    file = file_of(our_checkpoint(experiment(stage=1)))
    with pytest.raises(CheckpointError, match="stage 1, but the entry a would have stage 2: correct the entry"):
        recognise(file, {"stage": 2}, "six", DATASET, by="the entry a", advice="correct the entry")
