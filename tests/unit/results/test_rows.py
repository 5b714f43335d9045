"""A row is made only of results that belong together."""

import pytest

from recu.base.errors import ResultError
from recu.results.rows import DisagreementError, MixedDataError, RowError, check_rows, result_row


def test_the_evaluation_gives_the_best_epochs_numbers_and_the_training_the_last(results):
    train, evaluate = results(top1=92.8, last=92.5)
    evaluate["top1"] = 92.79
    row = result_row(train, evaluate)
    assert (row["top1_best"], row["top1_best_training"], row["top1_last"]) == (92.79, 92.8, 92.5)
    assert (row["network"], row["batch_size"], row["epochs"], row["shortcut"]) == (
        "cifar.resnet18_1w1a",
        256,
        600,
        "one per block",
    )
    assert row["curve"]["epoch"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "key, word", [("spec_hash", "parameters"), ("checkpoint_sha256", "checkpoint"), ("data_fingerprint", "data")]
)
def test_hashes_that_differ(results, key, word):
    train, evaluate = results()
    evaluate[key] = "other"
    with pytest.raises(ResultError, match=rf"seed1: .*other {word} than the training"):
        result_row(train, evaluate)


def test_results_of_two_experiments(results):
    with pytest.raises(ResultError, match="two experiments"):
        result_row(results(seed=1)[0], results(seed=2)[1])


def test_an_unfinished_training(results):
    train, evaluate = results()
    train["epochs"] = 10
    with pytest.raises(ResultError, match="10 of 600 epochs"):
        result_row(train, evaluate)


@pytest.mark.parametrize("key", ["best", "spec_hash", "history", "provenance"])
def test_a_missing_key_is_one_readable_line(results, key):
    train, evaluate = results()
    del train[key]
    with pytest.raises(ResultError, match=f"seed1 are not of the expected form.*{key}"):
        result_row(train, evaluate)


def test_the_pieces_of_a_training_are_kept_and_an_older_training_is_one_piece(results):
    train, evaluate = results()
    (whole,) = result_row(train, evaluate)["segments"]
    assert (whole["from_epoch"], whole["to_epoch"], whole["provenance"]) == (0, 4, train["provenance"])
    pieces = [
        {
            "from_epoch": 0,
            "to_epoch": 2,
            "experiment": {},
            "spec_hash": train["spec_hash"],
            "provenance": {"device": "a"},
        },
        {
            "from_epoch": 3,
            "to_epoch": 4,
            "experiment": {},
            "spec_hash": train["spec_hash"],
            "provenance": {"device": "b"},
        },
    ]
    row = result_row(train | {"segments": pieces}, evaluate)
    assert [piece["provenance"]["device"] for piece in row["segments"]] == ["a", "b"]
    pieces[0]["spec_hash"] = "other"
    with pytest.raises(RowError, match="some epochs were trained with other parameters") as error:
        result_row(train | {"segments": pieces}, evaluate)
    assert error.value.afresh


@pytest.mark.parametrize(
    ("name", "by", "images"),
    [("top1", 0.21, 10000), ("top5", -0.21, 10000), ("top1", 0.6, 360), ("loss", 0.005, 10000), ("top1", 20.1, 10)],
)
def test_a_difference_beyond_rounding_is_refused(results, name, by, images):
    train, evaluate = results(top1=50.0)
    evaluate["n"] = images
    evaluate[name] += by
    with pytest.raises(DisagreementError, match=f"seed1: the evaluation of its checkpoint gave {name} "):
        result_row(train, evaluate)


@pytest.mark.parametrize(
    ("name", "by", "images"),
    [("top1", 0.2, 10000), ("top1", -200 / 360, 360), ("top1", 20.0, 10), ("loss", 0.0039, 10000)],
)
def test_rounding_is_not(results, name, by, images):
    train, evaluate = results(top1=50.0)
    evaluate["n"] = images
    evaluate[name] += by
    result_row(train, evaluate)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("best", "top1", float("nan")), ("last", "top5", 100.5), ("best", "top1", True), ("last", "top1", "92"),
        ("best", "loss", float("inf")), ("last", "loss", -0.1), (None, "train_seconds", float("nan")),
        ("evaluate", "top1", float("nan")), ("evaluate", "top5", -1), ("evaluate", "loss", None),
        ("evaluate", "n", 0), ("evaluate", "n", 2.5), ("evaluate", "n", True), ("history", "test_top1", 101.0),
        ("history", "train_top1", float("nan")),
    ],
)  # fmt: skip
def test_numbers_that_no_stage_writes_are_refused(results, place, key, value):
    train, evaluate = results()
    holder = {"evaluate": evaluate, "history": train["history"][2], None: train}.get(place) or train[place]
    holder[key] = value
    with pytest.raises(RowError, match=r"seed1: .* is .*, expected"):
        result_row(train, evaluate)


def test_rows_on_different_data_cannot_stand_together(row):
    first, second, third = row(seed=1), row(seed=2), row(dataset="digits")
    third["data_fingerprint"] = "e" * 64
    check_rows([first, second, third])
    second["data_fingerprint"] = "f" * 64
    with pytest.raises(
        MixedDataError, match=r"dataset cifar10 .* dddddddddddd \(.*seed1\) and ffffffffffff \(.*seed2\)"
    ):
        check_rows([first, second, third])


@pytest.mark.parametrize("role", ["parent", "teacher"])
def test_a_child_of_another_checkpoint_is_refused(row, role):
    parent, child = row(), row(method="finetune")
    child[role] = {"id": parent["experiment_id"], "checkpoint_sha256": parent["checkpoint_sha256"]}
    check_rows([parent, child])
    check_rows([child])
    child[role]["checkpoint_sha256"] = "other"
    with pytest.raises(RowError, match=f"finetune/seed1 rests on another checkpoint of its {role}") as error:
        check_rows([parent, child])
    assert error.value.train == (child["experiment_id"],)


def test_rows_taught_by_different_weights_of_one_name_are_refused(row):
    first, second = row(seed=1), row(seed=2)
    for each in (first, second):
        each["teacher"] = {"id": "torchvision:resnet34", "weights_sha256": "a"}
    check_rows([first, second])
    second["teacher"] = {"id": "torchvision:resnet34", "weights_sha256": "b"}
    with pytest.raises(RowError, match="seed2 was taught by other weights of torchvision:resnet34"):
        check_rows([first, second])


def test_something_else_altogether():
    with pytest.raises(ResultError, match="expected form"):
        result_row([], {})
