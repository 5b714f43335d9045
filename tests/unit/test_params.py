from pathlib import Path

import pytest

from recu import params
from recu.config import Defaults, Suite
from recu.errors import ConfigError
from recu.paths import PARAMS_DIR

SUITE = """
title: T
description: D
dataset: digits
seeds: [1]
methods: {vanilla: {}}
rows: [{model: resnet20_1w1a}]
"""


def parse(tmp_path: Path, text: str, kind=Suite):
    file = tmp_path / "suite.yaml"
    file.write_text(text)
    return params.parse_file(file, kind)


def test_everything_shipped_is_valid():
    params.load_defaults(PARAMS_DIR)
    params.load_datasets(PARAMS_DIR)
    params.load_published(PARAMS_DIR)
    for name in params.available_suites(PARAMS_DIR):
        params.load_suite(PARAMS_DIR, name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "seeds: [1]\n->seeds: [-1]\n",
            r"suite.yaml: seeds.0: should be greater than or equal to 0, found -1",
        ),
        (
            "vanilla: {}->vanilla: {epochs: -3}",
            r"methods.vanilla.epochs: should be greater than or equal to 1, found -3",
        ),
        ("vanilla: {}->vanilla: {epoch: 3}", r"methods.vanilla.epoch: unknown key; did you mean 'epochs'\?"),
        ("vanilla: {}->vanilla: {lr: high}", r"methods.vanilla.lr: should be a valid number, found 'high'"),
        (
            "vanilla: {}->vanilla: {lr: 1e-3}",
            r"found '1e-3' \(a text to YAML; write the number with a point, e.g. 1.0e-3\)",
        ),
        (
            "vanilla: {}->vanilla: {epochs: 3.5}",
            r"methods.vanilla.epochs: should be a valid integer.*found 3.5",
        ),
        (
            "vanilla: {}->vanilla: {lr_type: cosine}",
            r"lr_type: should be 'cos', 'step', 'linear' or 'linear_start', found",
        ),
        (
            "{model: resnet20_1w1a}->{modle: x}",
            r"rows.0.model: missing.*rows.0.modle: unknown key; did you mean 'model'",
        ),
        ("title: T->titel: T", r"title: missing"),
        ("{model: resnet20_1w1a}->{model: '../../etc'}", r"rows.0.model: .*pattern"),
        ("seeds: [1]->seeds: [1]\nseeds: [2]", r"not valid YAML: key 'seeds' appears twice"),
        ("title: T->title: [", r"not valid YAML"),
    ],
)
def test_each_mistake_is_one_line_naming_file_key_and_expectation(tmp_path, change, message):
    old, new = change.split("->")
    assert old in SUITE
    with pytest.raises(ConfigError, match=message) as caught:
        parse(tmp_path, SUITE.replace(old, new))
    assert "\n" not in str(caught.value)


def test_tags_that_would_run_code_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse(tmp_path, "title: !!python/object/apply:os.system ['true']")


def test_values_that_contradict_each_other_are_refused(tmp_path):
    text = (PARAMS_DIR / "defaults.yaml").read_text().replace("tau_min: 0.85", "tau_min: 0.999")
    with pytest.raises(ConfigError, match=r"hyperparameters: tau_min \(0.999\) must not exceed tau_max"):
        parse(tmp_path, text, Defaults)


def test_an_unknown_suite_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'cifar10'"):
        params.load_suite(PARAMS_DIR, "cifra10")


def test_suites_may_be_one_name_or_a_list():
    config = {key: "x" for key in ("data_dir", "results_dir", "runs_dir", "reports_dir", "tracking_uri")}
    assert params.suite_names(params.parse_workflow_config(config | {"suites": "demo"})) == ("demo",)
    assert params.suite_names(params.parse_workflow_config(config | {"suites": ["a", "b", "a"]})) == (
        "a",
        "b",
    )
    with pytest.raises(ConfigError, match="suite: unknown key; did you mean 'suites'"):
        params.parse_workflow_config(config | {"suites": "demo", "suite": "demo"})
