"""The forms of result files: what is written, what is read, and what is refused."""

import json

import pytest

from recu.base.errors import ResultError
from recu.results.records import (
    EpochRecord,
    EpochResult,
    EvaluationRecord,
    Source,
    SpeedRecord,
    TrainingRecord,
    as_record,
    read_record,
    write_record,
)
from recu.results.seal import SEAL
from tests.unit.results.made import epoch, evaluation, speed, training

AGAIN = "`make it`"


class WithEntropy(EpochResult):
    """A later version's line of the history."""

    test_entropy: float = 0.0


def test_a_training_reads_back_as_it_was_written(tmp_path):
    content = training()
    record = as_record(content, TrainingRecord)
    write_record(tmp_path / "metrics.json", record)
    assert read_record(tmp_path / "metrics.json", TrainingRecord, again=AGAIN) == record
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written.pop(SEAL) and written == content


def test_a_key_of_another_version_is_left_out_and_one_that_it_lacks_has_its_default():
    assert as_record(epoch(1, 50.0) | {"later": [1]}, EpochRecord) == as_record(epoch(1, 50.0), EpochRecord)
    assert as_record(epoch(1, 50.0), WithEntropy).test_entropy == 0.0
    assert "test_entropy" not in as_record(epoch(1, 50.0), WithEntropy).as_plain()
    assert as_record(epoch(1, 50.0) | {"test_entropy": 2.5}, WithEntropy).as_plain()["test_entropy"] == 2.5


def test_what_has_its_default_is_not_written_in_a_line_or_a_source():
    line = as_record(epoch(1, 50.0), EpochRecord)
    assert line.as_plain() == epoch(1, 50.0)
    assert line.model_copy(update={"train_left_out": 1}).as_plain() == epoch(1, 50.0) | {"train_left_out": 1}
    assert Source(id="a", spec_hash="b", checkpoint_sha256="c").as_plain() == {
        "id": "a",
        "spec_hash": "b",
        "checkpoint_sha256": "c",
    }


def test_a_result_of_an_epoch_has_no_times():
    line = as_record(epoch(3, 61.0), EpochRecord)
    times = {"seconds", "time", "train_images_per_s", "test_images_per_s"}
    assert line.result.as_plain() == {name: value for name, value in epoch(3, 61.0).items() if name not in times}
    assert (line.tested.epoch, line.tested.top1, line.tested.loss) == (3, 61.0, 0.3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", -1), ("epoch", True), ("epoch", 1.5), ("epoch", 2**63), ("lr", float("nan")), ("lr", "0.1"),
        ("test_top1", 100.5), ("test_top1", -0.1), ("test_loss", float("inf")), ("test_loss", -0.1), ("time", None),
        ("seconds", [1.0]), ("train_skipped", 10**400),
    ],
)  # fmt: skip
def test_a_value_that_no_stage_writes_is_one_line_with_its_key(key, value):
    with pytest.raises(ResultError, match=rf"^is not of the expected form .*: {key}: .*, found ") as raised:
        as_record(epoch(1, 50.0) | {key: value}, EpochRecord)
    assert "\n" not in str(raised.value)


CONFUSED = {"n": 10, "top1": 70.0, "confusion": [[4, 1], [2, 3]], "classes": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"confusion": None, "classes": None}, None),
        ({"top1": 80.0}, "confusion: does not count the n images of this top1"),
        ({"n": 20}, "confusion: does not count the n images of this top1"),
        ({"confusion": [[4, 1], [2]]}, "confusion: expected a line and a column for each of classes"),
        ({"classes": ["cat"]}, "confusion: expected a line and a column for each of classes"),
        ({"confusion": [[4, 1], [2, 3.5]]}, "confusion"),
    ],
)
def test_a_confusion_matrix_of_another_evaluation_is_refused(change, message):
    content = evaluation(training()) | CONFUSED | change
    if message is None:
        assert as_record(content, EvaluationRecord).confusion == (((4, 1), (2, 3)) if not change else None)
    else:
        with pytest.raises(ResultError, match=message):
            as_record(content, EvaluationRecord)


def test_a_speed_says_how_many_times_as_fast_it_is_and_whether_others_used_the_machine():
    found = as_record(speed(training()), SpeedRecord)
    assert (found.speed_up_one, found.speed_up_batches, found.busy) == (4.0, 8.0, False)
    assert as_record(found.as_plain(), SpeedRecord) == found
    others = {None: False, 0.4: False, 0.41: True}
    assert {each: found.model_copy(update={"others": each}).busy for each in others} == others
    busy = found.model_copy(update={"others": 0.41})
    assert busy.speed_up_one is None and busy.speed_up_batches is None, "float is slowed down more"
    alone = found.model_copy(update={"float32": None})
    assert alone.speed_up_one is None and alone.speed_up_batches is None


@pytest.mark.parametrize("changes", [{"packed": {"ms": 0.0, "images_per_s": 1.0}}, {"threads": 0}, {"others": -1.0}])
def test_a_speed_that_no_machine_has_is_refused(changes):
    with pytest.raises(ResultError, match=next(iter(changes))):
        as_record(speed(training(), **changes), SpeedRecord)
