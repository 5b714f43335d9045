"""A row is made only of results that belong together."""

import pytest

from recu.base.errors import ResultError
from recu.results.records import Source
from recu.results.rows import DisagreementError, MixedDataError, RowError, check_rows
from tests.unit.results.made import evaluation, made_row, provenance, training


@pytest.fixture
def results():
    """A function that makes the two metrics of one experiment."""

    def make(**changes):
        train = training(**changes)
        return train, evaluation(train)

    return make


def test_the_evaluation_gives_the_best_epochs_numbers_and_the_training_the_last(results):
    train, evaluate = results(top1=92.8, last=92.5)
    evaluate["top1"] = 92.79
    row = made_row(train, evaluate)
    assert (row.top1_best, row.top1_best_training, row.top1_last) == (92.79, 92.8, 92.5)
    assert (row.network, row.batch_size, row.epochs, row.shortcut) == (
        "cifar.resnet18_1w1a",
        256,
        600,
        "one per block",
    )
    assert row.curve.epoch == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    "key, word", [("spec_hash", "parameters"), ("checkpoint_sha256", "checkpoint"), ("data_fingerprint", "data")]
)
def test_hashes_that_differ(results, key, word):
    train, evaluate = results()
    evaluate[key] = "other"
    with pytest.raises(ResultError, match=rf"seed1: .*other {word} than the training"):
        made_row(train, evaluate)


def test_results_of_two_experiments(results):
    with pytest.raises(ResultError, match="two experiments"):
        made_row(results(seed=1)[0], results(seed=2)[1])


def test_an_unfinished_training(results):
    train, evaluate = results()
    train["epochs"] = 10
    with pytest.raises(ResultError, match="10 of 600 epochs"):
        made_row(train, evaluate)


@pytest.mark.parametrize("key", ["best", "spec_hash", "history", "provenance"])
def test_a_missing_key_is_one_readable_line(results, key):
    train, evaluate = results()
    del train[key]
    with pytest.raises(ResultError, match=f"is not of the expected form.*: {key}: missing"):
        made_row(train, evaluate)


def test_the_pieces_of_a_training_are_kept_and_an_older_training_is_one_piece(results):
    train, evaluate = results()
    (piece,) = train.pop("segments")
    (whole,) = made_row(train, evaluate).segments
    assert (whole.from_epoch, whole.to_epoch) == (0, 4)
    assert whole.provenance.as_plain() == train["provenance"]
    pieces = [
        piece | {"to_epoch": 2, "provenance": provenance(device="a")},
        piece | {"from_epoch": 3, "provenance": provenance(device="b")},
    ]
    row = made_row(train | {"segments": pieces}, evaluate)
    assert [each.provenance.device for each in row.segments] == ["a", "b"]
    assert set(row.as_plain()["segments"][0]) == {"from_epoch", "to_epoch", "provenance"}
    pieces[0]["spec_hash"] = "other"
    with pytest.raises(RowError, match="some epochs were trained with other parameters") as error:
        made_row(train | {"segments": pieces}, evaluate)
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
        made_row(train, evaluate)


@pytest.mark.parametrize(
    ("name", "by", "images"),
    [("top1", 0.2, 10000), ("top1", -200 / 360, 360), ("top1", 20.0, 10), ("loss", 0.0039, 10000)],
)
def test_rounding_is_not(results, name, by, images):
    train, evaluate = results(top1=50.0)
    evaluate["n"] = images
    evaluate[name] += by
    made_row(train, evaluate)


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
    where = {"evaluate": "", "history": "history.2.", None: ""}.get(place, f"{place}.")
    with pytest.raises(ResultError, match=rf"not of the expected form .*: {where}{key}: .*, found "):
        made_row(train, evaluate)


def test_parameters_that_this_version_does_not_know_are_one_readable_line(results):
    train, evaluate = results()
    del train["experiment"]["hyperparameters"]["stage"]
    with pytest.raises(ResultError, match=r"seed1: hyperparameters\.stage: missing"):
        made_row(train, evaluate)


def test_rows_on_different_data_cannot_stand_together(row):
    first, second = row(seed=1), row(seed=2)
    third = row(dataset="digits").model_copy(update={"data_fingerprint": "e" * 64})
    check_rows([first, second, third])
    second = second.model_copy(update={"data_fingerprint": "f" * 64})
    with pytest.raises(
        MixedDataError, match=r"dataset cifar10 .* dddddddddddd \(.*seed1\) and ffffffffffff \(.*seed2\)"
    ):
        check_rows([first, second, third])


@pytest.mark.parametrize("role", ["parent", "teacher"])
def test_a_child_of_another_checkpoint_is_refused(row, role):
    def child(checkpoint):
        source = Source(id=parent.experiment_id, spec_hash="s", checkpoint_sha256=checkpoint)
        return row(method="finetune").model_copy(update={role: source})

    parent = row()
    check_rows([parent, child(parent.checkpoint_sha256)])
    check_rows([child(parent.checkpoint_sha256)])
    with pytest.raises(RowError, match=f"finetune/seed1 rests on another checkpoint of its {role}") as error:
        check_rows([parent, child("other")])
    assert error.value.train == (child("other").experiment_id,)


def test_rows_taught_by_different_weights_of_one_name_are_refused(row):
    def taught(seed, weights):
        source = Source(id="torchvision:resnet34", spec_hash="s", weights_sha256=weights)
        return row(seed=seed).model_copy(update={"teacher": source})

    check_rows([taught(1, "a"), taught(2, "a")])
    with pytest.raises(RowError, match="seed2 was taught by other weights of torchvision:resnet34"):
        check_rows([taught(1, "a"), taught(2, "b")])


def test_something_else_altogether():
    with pytest.raises(ResultError, match="expected form"):
        made_row([], {})


def test_what_was_measured_of_the_weights_is_in_the_row_as_means_over_the_network():
    train = training()
    row = made_row(train, evaluation(train))
    assert row.weights.epoch == (0, 1, 2, 3, 4)
    # Of 100 and 300 weights; what flipped is known of the first layer alone.
    assert row.weights.dead_share[0] == pytest.approx(100 * 0.1 / 400)
    assert row.weights.flipped_share == pytest.approx((0.0, 0.01, 0.02, 0.03, 0.04))
    without = made_row(train | {"diagnostics": []}, evaluation(train))
    assert without.weights is None and "weights" not in without.as_plain()
