"""A row is made only of results that belong together."""

import pytest

from recu.errors import ResultError
from recu.report.rows import result_row


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
    with pytest.raises(ResultError, match=rf"seed1: .*other {word}.*evaluate it again"):
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


def test_something_else_altogether():
    with pytest.raises(ResultError, match="expected form"):
        result_row([], {})
