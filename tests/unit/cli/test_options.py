"""Options that are made from the models of params/."""

import argparse
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Literal

import pytest

from recu.base.errors import ConfigError, Interrupted
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


@pytest.mark.parametrize(
    ("end_time", "error", "said"),
    [
        ("55", ConfigError, r"--end_time is 55, expected the job's end in seconds of Unix time"),
        ("-1", ConfigError, "--end_time is -1, expected"),
        ("nan", ConfigError, "--end_time is nan, expected"),
        ("1999999000", Interrupted, r"the time of this job is over \(--end_time, 1000 s ago\), nothing was begun"),
        ("1999913600", Interrupted, "86400 s ago"),
        ("1999913599", ConfigError, "--end_time is 1999913599, expected"),
        ("2000000000", None, ""),
        ("inf", None, ""),
        ("0", None, ""),
    ],
)
def test_a_time_that_is_over_begins_nothing_and_what_is_no_time_is_refused(monkeypatch, end_time, error, said):
    monkeypatch.setattr(options, "time", SimpleNamespace(time=lambda: 2e9))
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    given = parser.parse_args([f"--end_time={end_time}", "--tracking_uri="])
    with nullcontext() if error is None else pytest.raises(error, match=said):
        assert options.running_of(given).end_time == float(end_time)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", 0.0),
        (" ", 0.0),
        ("2000000000", 2e9),
        ("soon", "SLURM_JOB_END_TIME in the environment is soon, expected the job's end in seconds of Unix time"),
        ("55", "SLURM_JOB_END_TIME in the environment is 55, expected"),
        ("nan", "SLURM_JOB_END_TIME in the environment is nan, expected"),
        ("1999999000", r"is over \(SLURM_JOB_END_TIME in the environment, 1000 s ago\)"),
    ],
)
def test_what_slurm_says_of_the_end_counts_where_it_says_something_and_no_option_does(monkeypatch, said, expected):
    monkeypatch.setattr(options, "time", SimpleNamespace(time=lambda: 2e9))
    monkeypatch.setenv("SLURM_JOB_END_TIME", said)
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    assert options.running_of(parser.parse_args(["--end_time=0", "--tracking_uri="])).end_time == 0
    given = parser.parse_args(["--tracking_uri="])
    if isinstance(expected, float):
        assert options.running_of(given).end_time == expected
    else:
        with pytest.raises((ConfigError, Interrupted), match=expected):
            options.running_of(given)


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
