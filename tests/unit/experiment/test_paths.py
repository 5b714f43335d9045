"""Paths as people write them."""

import argparse
import importlib
from pathlib import Path

import pytest

from recu.base.errors import ConfigError
from recu.cli.main import commands
from recu.experiment.params import parse_workflow_config
from recu.experiment.paths import PARAMS_DIR, find_params, user_path


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("SCRATCH", "/scratch/ann")
    monkeypatch.delenv("SCRATC", raising=False)
    monkeypatch.chdir(tmp_path)


def test_params_beside_the_snakefile_or_in_the_package_serve_where_the_working_directory_has_none(tmp_path: Path):
    (tmp_path / "params").mkdir()
    assert find_params() == PARAMS_DIR and find_params(tmp_path / "other") == tmp_path / "other"
    (tmp_path / "params/config.yaml").touch()
    assert find_params(tmp_path / "other") == find_params() == Path("params")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/A", "/home/ann/A"),
        ("~", "/home/ann"),
        ("$SCRATCH/A", "/scratch/ann/A"),
        ("${SCRATCH}/A", "/scratch/ann/A"),
        ("$HOME/${SCRATCH}x", "/home/ann//scratch/annx"),
        ("./~/A", "~/A"),
        ("A/~", "A/~"),
        ("costs/5$", "costs/5$"),
        ("a b/'c'", "a b/'c'"),
    ],
)
def test_home_and_variables_are_replaced(written: str, meant: str) -> None:
    assert user_path(written) == Path(meant)


@pytest.mark.parametrize("written", ["$SCRATC/A", "${SCRATC}/A", "x$SCRATC", "${}/A"])
def test_a_variable_that_is_not_set_is_named(written: str) -> None:
    with pytest.raises(ConfigError, match=r"the variable \S+ is not set; set it or write the whole path"):
        user_path(written)


def test_an_unknown_home_folder_is_named() -> None:
    with pytest.raises(ConfigError, match="~no-such-user-here/A: the home folder is not known"):
        user_path("~no-such-user-here/A")


def test_a_name_that_exists_as_written_stays(tmp_path: Path) -> None:
    (tmp_path / "a$SCRATC b").mkdir()
    assert user_path("a$SCRATC b/results") == Path("a$SCRATC b/results")
    (tmp_path / "b$HOME c").mkdir()
    assert user_path(tmp_path / "b$HOME c/params") == tmp_path / "b$HOME c/params", "of a variable that is set, too"


@pytest.mark.parametrize("command", commands())
def test_every_option_that_is_a_path_expands_it(command: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"recu.cli.{command}").add_arguments(parser)
    assert [action.dest for action in actions(parser) if action.type is Path] == []


def actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            found += [inner for each in action.choices.values() for inner in actions(each)]
    return found


CONFIG = {"suites": "demo", "data_dir": "~/d", "results_dir": "$SCRATCH/r", "runs_dir": "runs", "reports_dir": "rep"}


def test_the_workflows_paths_are_expanded_and_empty_ones_stay_empty() -> None:
    config = parse_workflow_config(CONFIG | {"tracking_uri": "", "sources": {"small": "${SCRATCH}/A"}})
    assert (config.data_dir, config.results_dir, config.runs_dir) == ("/home/ann/d", "/scratch/ann/r", "runs")
    assert (config.sources, config.teacher_weights) == ({"small": "/scratch/ann/A"}, "")


def test_the_workflows_unset_variable_is_named_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"config.yaml.*sources.small: \$SCRATC/A: the variable SCRATC is not set"):
        parse_workflow_config(CONFIG | {"tracking_uri": "", "sources": {"small": "$SCRATC/A"}})
