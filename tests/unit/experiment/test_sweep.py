"""A row with a sweep: one row for each combination, each named, and none twice."""

import json

import pytest

from recu.base.errors import ConfigError
from recu.experiment.params import load_datasets, load_defaults, validate_model
from recu.experiment.paths import PARAMS_DIR
from recu.experiment.plan import alias
from recu.experiment.resolving import as_hashed, parse_experiment, resolve_suite
from recu.experiment.schema import Suite


def resolve(*rows, methods=("vanilla",)):
    data = {
        "title": "T",
        "description": "D",
        "dataset": "digits",
        "seeds": [1],
        "methods": methods if isinstance(methods, dict) else {name: {"epochs": 4} for name in methods},
        "rows": [{"model": "resnet20_1w1a"} | row for row in rows],
    }
    suite = validate_model(data, Suite, "params/suites/test.yaml")
    return resolve_suite("test", suite, load_defaults(PARAMS_DIR), load_datasets(PARAMS_DIR))


def test_one_value_a_row_named_by_it():
    found = resolve({"sweep": {"tau_max": [0.90, 0.95, 0.99]}})
    assert list(found) == [f"test/digits/cifar.resnet20_1w1a+tau_max-{tau}/vanilla/seed1" for tau in (0.9, 0.95, 0.99)]
    assert [each.hyperparameters.tau_max for each in found.values()] == [0.9, 0.95, 0.99]
    assert next(alias(each) for each in found.values()) == "test-digits-cifar.resnet20_1w1a+tau_max-0.9-vanilla-seed1"
    assert len({each.spec_hash for each in found.values()}) == 3


def test_several_lists_are_a_product_with_what_else_the_row_says():
    row = {"name": "small", "hyperparameters": {"lr": 0.5}, "sweep": {"warm_up": [True, False], "batch_size": [8, 16]}}
    found = list(resolve(row, {}).values())
    names = [f"small--batch_size-{size}--warm_up-{warm}" for size in (8, 16) for warm in ("true", "false")]
    assert [each.row for each in found] == [*names, None], "in the order in which docs/reference.md lists them"
    settings = [
        (each.hyperparameters.lr, each.hyperparameters.batch_size, each.hyperparameters.warm_up) for each in found
    ]
    assert settings[:4] == [(0.5, 8, True), (0.5, 8, False), (0.5, 16, True), (0.5, 16, False)]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"lr": [1, 0.5]}, ["1.0", "0.5"]),
        ({"lr_decay_step": [[], [3], [3, 9]]}, ["none", "3", "3_9"]),
        ({"augmentation": [None, "none"]}, ["null", "none"]),
        ({"lr": [1e-5, 0.1]}, ["1e-05", "0.1"]),
    ],
)
def test_values_of_every_kind_have_a_name(values, names):
    (key,) = values
    assert [each.row for each in resolve({"sweep": values}).values()] == [f"{key}-{name}" for name in names]


def test_what_starts_from_another_starts_from_that_of_its_own_row():
    found = resolve({"sweep": {"tau_max": [0.9, 0.95]}}, methods=("vanilla", "finetune"))
    assert [each.init_from and each.init_from.id for each in found.values()] == [
        None, "test/digits/cifar.resnet20_1w1a+tau_max-0.9/vanilla/seed1",
        None, "test/digits/cifar.resnet20_1w1a+tau_max-0.95/vanilla/seed1",
    ]  # fmt: skip


def test_a_teacher_is_named_with_its_row():
    rows = ({"name": "a", "only": ["teacher"]}, {"name": "b", "only": ["vanilla"]})
    taught = {"vanilla": {"teacher": "cifar.resnet20_1w1a+a/teacher"}, "teacher": {}}
    first, second = resolve(*rows, methods=taught).values()
    assert second.teacher == first.origin


def test_a_row_without_a_name_is_written_as_before_there_were_names():
    (plain,) = resolve({}).values()
    (named,) = resolve({"name": "same"}).values()
    assert "row" not in plain.model_dump() and "row" not in json.loads(plain.canonical)
    assert as_hashed(plain.model_dump(mode="json")) == plain.hashed
    assert named.row == "same" and named.spec_hash != plain.spec_hash
    for each in (plain, named):
        assert parse_experiment(each.canonical).id == each.id


def test_one_network_on_two_datasets():
    assert [each.dataset for each in resolve({}, {"dataset": "cifar10"}).values()] == ["digits", "cifar10"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{}, {}], r"cifar.resnet20_1w1a on digits is given twice: give one of the rows a name"),
        ([{"name": "a"}, {"name": "a"}], r"cifar.resnet20_1w1a\+a on digits is given twice"),
        ([{"name": "a"}, {"name": "A"}], r"differ in capitals only: rename one"),
        ([{"sweep": {"tau_max": [0.9, 0.90]}}], r"rows.0.sweep.tau_max: the value 0.9 is given twice"),
        ([{"sweep": {"tau_max": []}}], r"rows.0.sweep.tau_max: .*at least 1 item"),
        ([{"sweep": {"tau_max": 0.9}}], r"rows.0.sweep.tau_max: .*valid (tuple|array|list)"),
        ([{"sweep": {"tau_max": [0.9, 1.5]}}], r"rows.0.sweep.tau_max.1: .*less than or equal to 1, found 1.5"),
        ([{"sweep": {"tau_mx": [0.9]}}], r"rows.0.sweep.tau_mx: unknown key; did you mean 'tau_max'\?"),
        ([{"sweep": {"epochs": [1, "2"]}}], r"rows.0.sweep.epochs.1: .*integer, found '2'"),
        ([{"name": "a/b"}], r"rows.0.name: should be letters, digits"),
        ([{"sweep": {"teacher": ["torchvision:resnet34"]}}], r"resnet20_1w1a: sweep: the row's name"),
        (
            [{"sweep": {"lr": [0.1]}, "hyperparameters": {"lr": 0.2}}],
            r"resnet20_1w1a: lr is in sweep and in hyperparameters: expected in one of the two",
        ),
        ([{"sweep": {"lr": [0.1]}, "methods": {"vanilla": {"lr": 0.2}}}], r"lr is in sweep and in methods.vanilla"),
        (
            [{"sweep": {"tau_min": [0.99], "tau_max": [0.9]}}],
            r"resnet20_1w1a\+tau_min-0.99--tau_max-0.9, vanilla: tau_min \(0.99\) must not exceed tau_max",
        ),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(rows, message):
    with pytest.raises(ConfigError, match=rf"^params/suites/test\.yaml.*{message}") as raised:
        resolve(*rows)
    assert "\n" not in str(raised.value)
