"""Options that are made from the models of params/."""

import argparse
from typing import Literal

import pytest

from recu.cli import options, train
from recu.experiment.schema import Hyperparameters

FILES_OR_ELSEWHERE = {"loader", "init_from", "teacher"}


class More(Hyperparameters):
    smoothing: float = 0.0
    """Share of each label that goes to all classes, 5 % of it `evenly`."""
    shape: Literal["Round", "square"] = "square"
    """Of nothing."""


def actions() -> dict[str, argparse.Action]:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    return {action.dest: action for action in parser._actions}


@pytest.mark.parametrize("name", sorted(Hyperparameters.model_fields.keys() - FILES_OR_ELSEWHERE))
def test_a_hyper_parameters_option_says_what_its_field_says(name):
    said = actions()[name].help
    assert said and said.split() == (Hyperparameters.model_fields[name].description or "").replace("`", "").split()
    assert actions()[name].default == options.NOT_GIVEN


def test_a_new_hyper_parameter_is_an_option_without_more_ado(monkeypatch, capsys):
    monkeypatch.setattr(options, "Hyperparameters", More)
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    given = parser.parse_args(["--smoothing", "0.1", "--shape", "SQUARE"])
    assert (given.smoothing, given.shape) == (0.1, "square")
    assert options.given_hyperparameters(given) == {"smoothing": 0.1, "shape": "square"}
    assert "smoothing" not in parser.parse_args([])
    parser.print_help()
    assert "all classes, 5 % of it evenly" in " ".join(capsys.readouterr().out.split())
