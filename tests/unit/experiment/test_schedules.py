"""tau and the learning rate against the authors' sequences and against hand-computed values."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from recu.base.errors import ConfigError
from recu.binarisers.recu import tau_at
from recu.experiment.schedules import LearningRateType, learning_rate_at

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "schedules.json").read_text())


@pytest.mark.parametrize("key", [key for key in GOLDEN if key.startswith("tau_")])
def test_tau_equals_the_authors_sequence(key: str) -> None:
    _, epochs, tau_min, tau_max = key.split("_")
    ours = [tau_at(epoch, int(epochs), float(tau_min), float(tau_max)) for epoch in range(int(epochs))]
    # The authors' values are rounded to single precision.
    assert ours == pytest.approx(GOLDEN[key], rel=2e-7)


@pytest.mark.parametrize("key", [key for key in GOLDEN if key.startswith("lr_")])
def test_learning_rate_equals_the_authors_sequence(key: str) -> None:
    match = re.fullmatch(r"lr_(cos|step|linear)_(\d+)_([\d.]+)_(warm|nowarm)((?:_\d+)*)", key)
    assert match, f"a golden key of unknown form: {key}"
    lr_type, epochs, lr, warm_up, steps = match.groups()
    ours = [
        learning_rate_at(
            epoch,
            epochs=int(epochs),
            lr=float(lr),
            lr_type=lr_type,
            warm_up=warm_up == "warm",
            lr_decay_step=tuple(map(int, steps.split("_")[1:])),
        )
        for epoch in range(int(epochs))
    ]
    assert ours == pytest.approx(GOLDEN[key], rel=1e-12, abs=0.0)


def test_every_kind_of_golden_sequence_was_found() -> None:
    assert sum(key.startswith("tau_") for key in GOLDEN) == 3
    assert sum(key.startswith("lr_") for key in GOLDEN) == len(GOLDEN) - 3 >= 8


def test_tau_starts_at_its_minimum_and_approaches_its_maximum() -> None:
    assert tau_at(0, 600, 0.85, 0.99) == pytest.approx(0.85, abs=1e-15)
    assert tau_at(599, 600, 0.85, 0.99) < 0.99
    assert tau_at(600, 600, 0.85, 0.99) == pytest.approx(0.99, abs=1e-15)


def test_the_competitors_schedule_ends_at_zero_and_never_uses_the_full_rate() -> None:
    rates = [learning_rate_at(epoch, epochs=4, lr=1.0, lr_type="linear_start", warm_up=False) for epoch in range(4)]
    assert rates == pytest.approx([0.75, 0.5, 0.25, 0.0])


@pytest.mark.parametrize("lr_type", [name for name in get_args(LearningRateType) if name != "linear_start"])
def test_a_run_within_the_warm_up_only_warms_up(lr_type: str) -> None:
    rates = [learning_rate_at(e, epochs=3, lr=1.0, lr_type=lr_type, warm_up=True) for e in range(3)]
    assert rates == pytest.approx([0.2, 0.4, 0.6])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_type": "cosine"}, "did you mean 'cos'"),
        ({"lr_type": "linear_start", "warm_up": True}, "warm_up"),
        ({"epochs": 0}, "at least one epoch"),
        ({"epoch": -1}, "epoch -1"),
        ({"epoch": 31}, "epoch 31 of 30"),
    ],
)
def test_wrong_arguments_are_named(changes: dict, message: str) -> None:
    right = {"epoch": 3, "epochs": 30, "lr": 0.1, "lr_type": "cos", "warm_up": False}
    with pytest.raises(ConfigError, match=message):
        learning_rate_at(**{**right, **changes})
