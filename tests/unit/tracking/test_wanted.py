"""What the files of a run say, damaged and foreign ones too."""

import json
from dataclasses import replace

import pytest

from recu.base.errors import ResultError
from recu.tracking.wanted import read_run
from tests.unit.tracking.conftest import Job, finished, row, weights


def test_a_run_at_each_moment(job):
    job.note().history(row(0))
    assert [read_run(job.folders, live=live).status for live in (True, False)] == ["RUNNING", "KILLED"]
    assert read_run(job.folders, live=True).files == ()
    assert read_run(job.note("FAILED").folders).status == "FAILED"
    wanted = read_run(finished(job).folders)
    assert wanted.status == "FINISHED" and [each.epoch for each in wanted.rows] == [0, 1]
    assert wanted.numbers["best/top1"] == 51.0 and wanted.checkpoint == job.results / "model_best.pth.tar"


def test_what_a_binariser_sets_for_an_epoch_is_a_metric_as_tau_is(job):
    first = row(0, tau=0.85, scheduled={"t": 0.001, "lr": 7.0, "odd": "no number"})
    (found, plain) = read_run(job.note().history(first, row(1, tau=0.9)).folders, live=True).rows
    assert {name: value for name, value in found.numbers.items() if name.startswith("schedule/")} == {
        "schedule/lr": 0.1,
        "schedule/tau": 0.85,
        "schedule/t": 0.001,
    }
    # The metric that finds a row again is one that earlier versions sent too: "schedule/f" would come before it.
    assert {found.mark, plain.mark, found._replace(numbers={"schedule/f": 20.0, "schedule/lr": 0.1}).mark} == {
        "schedule/lr"
    }


def test_a_job_that_was_killed_after_it_published_has_finished(job):
    assert read_run(finished(job).note("RUNNING").folders).status == "FINISHED"


def test_an_earlier_result_is_not_shown_as_that_of_a_training_begun_anew(job):
    finished(job)
    later = job.note("KILLED").history(row(0, time=7))
    wanted = read_run(later.folders)
    assert wanted.status == "KILLED" and wanted.numbers == {} and wanted.checkpoint is None


@pytest.mark.parametrize("change", [{"spec_hash": "f" * 16}, {"data_fingerprint": "f" * 64}])
def test_the_result_of_other_parameters_or_data_is_not_this_runs(job, change):
    finished(job)
    other = Job(job.folder, replace(job.description, **change), name=job.description.spec_hash)
    assert read_run(other.note("FINISHED").folders).numbers == {}


def test_an_evaluation(job):
    evaluation = Job(job.folder, replace(job.description, stage="evaluate", checkpoint_sha256="1" * 64))
    wanted = read_run(evaluation.note("FINISHED").publish().folders)
    assert wanted.numbers == {"test/loss": 1.0, "test/top1": 60.0, "test/top5": 90.0, "test/n": 7.0}
    assert wanted.rows is None and wanted.files == (evaluation.results / "metrics.json",)
    of_another = Job(job.folder, replace(evaluation.description, checkpoint_sha256="2" * 64)).note("FAILED")
    assert read_run(of_another.folders).numbers == {}, "it measured another checkpoint"


def test_an_altered_result_is_said_and_not_shown(job):
    file = finished(job).results / "metrics.json"
    file.write_text(file.read_text().replace("51.0", "99.0"))
    wanted = read_run(job.folders)
    assert "was altered" in wanted.problems[0] and wanted.numbers == {} and len(wanted.rows) == 2


BAD = [
    {"epoch": 1.5, "time": 1, "a": 1.0},
    {"epoch": -1, "time": 1, "a": 1.0},
    {"epoch": 10**30, "time": 1, "a": 1.0},
    {"epoch": 9, "a": 1.0},
    {"epoch": 9, "time": 10**30, "a": 1.0},
    {"epoch": 9, "time": -1, "a": 1.0},
    {"epoch": 9, "time": float("inf"), "a": 1.0},
    {"epoch": 9, "time": 1, "a": 10**400},
    {"epoch": None, "time": 1, "a": 1.0},
    {"no": "epoch"},
    ["epoch"],
    None,
]


def test_bad_lines_of_every_kind_hold_nothing_up(job):
    job.note().history(row(0), *map(json.dumps, BAD), "[" * 100_000, "\0", "not json", "9" * 5000, '{"ep', row(3))
    wanted = read_run(job.folders)
    assert [each.epoch for each in wanted.rows] == [0, 3] and len(wanted.problems) == len(BAD) + 5
    assert all(len(problem) < 300 for problem in wanted.problems)


def test_an_epoch_has_what_was_measured_of_its_weights(job):
    first, second = read_run(job.note().history(row(0), row(1)).diagnostics(weights(0), weights(5)).folders).rows
    assert second.numbers == {"test/top1": 51.0, "schedule/lr": 0.1}
    assert first.numbers["weights/layer0.conv1/dead_share"] == 0.0
    assert first.numbers["weights/dead_share"] == pytest.approx((10 * 0.0 + 30 * 0.4) / 40), "a mean over all weights"
    assert not any("flipped" in name for name in first.numbers) and first.numbers["weights/scale_max"] == 0.5
    assert min(first.numbers) == "schedule/lr", "which tells whether the store has the epoch"


def test_a_published_training_has_what_it_published_of_its_weights(job):
    rows = [row(0), row(1)]
    job.note("FINISHED").history(*rows).diagnostics(weights(0)).publish(*rows, diagnostics=[weights(1)])
    assert ["weights/entropy" in each.numbers for each in read_run(job.folders).rows] == [False, True]


BAD_WEIGHTS = ["garbage", "[" * 100_000, "null", {"epoch": 0}, weights(0, entropy=[0.5]), weights(0, dead_share=[2, 2])]


def test_bad_lines_about_weights_hold_nothing_up(job):
    wanted = read_run(job.note().history(row(0)).diagnostics(*BAD_WEIGHTS, weights(0)).folders)
    assert wanted.rows[0].numbers["weights/entropy"] == 0.5 and len(wanted.problems) == len(BAD_WEIGHTS)
    assert all("not an epoch's weights" in problem and len(problem) < 400 for problem in wanted.problems)


def test_of_very_many_layers_those_of_the_network_are_shown(job):
    for layers, most in ((100, True), (200, False)):
        (only,) = read_run(job.note().history(row(0)).diagnostics(weights(0, layers)).folders).rows
        assert "weights/dead_share" in only.numbers and len(only.numbers) <= 1000
        assert ("weights/layer7.conv1/dead_share" in only.numbers) is most


def test_an_epoch_that_stands_there_twice_is_shown_once(job):
    assert [each.time for each in read_run(job.note().history(row(0, time=1), row(0, time=2)).folders).rows] == [1]


def test_values_that_are_no_plain_numbers(job):
    job.note().history({"epoch": 0, "time": 7, "a": 1.5, "b": "text", "c": None, "d": [1], "e": {"f": 1}})
    (only,) = read_run(job.folders).rows
    assert only.numbers == {"a": 1.5} and only.time == 7


@pytest.mark.parametrize(
    "text",
    ["", "garbage", "[]", "[" * 100_000, '{"description": {}}', '{"status": "FINISHED"}'],
    ids=["empty", "no JSON", "no object", "deep", "no description", "no run"],
)
def test_a_run_that_is_not_described_is_one_readable_error(job, text):
    job.note()
    (job.state / "run.json").write_text(text)
    with pytest.raises(ResultError, match=r"run\.json") as caught:
        read_run(job.folders)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"params": [1]}, {"stage": None}, {"dataset": {"name": 1}}, {"tags": {"a": 1}}])
def test_a_description_of_wrong_types_is_one_readable_error(job, change):
    file = job.note().state / "run.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"description": content["description"] | change}))
    with pytest.raises(ResultError, match="does not describe a run"):
        read_run(job.folders)


@pytest.mark.parametrize("name", ["run.json", "history.jsonl", "diagnostics.jsonl"])
def test_a_file_of_any_size_is_not_read(job, name):
    job.note().history(row(0))
    with (job.state / name).open("ab") as stream:
        stream.truncate(1 << 27)
    if name == "run.json":
        with pytest.raises(ResultError, match="larger than any record"):
            read_run(job.folders)
    else:
        assert "larger than any record" in read_run(job.folders).problems[0]


def test_a_folder_without_a_run_is_one_readable_error(job):
    with pytest.raises(ResultError, match=r"no run\.json"):
        read_run(job.folders)


def test_secrets_of_files_from_elsewhere_are_hidden(job, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter22")
    leaky = Job(job.folder, replace(job.description, params={"a": "hunter22"})).note()
    assert "hunter22" not in repr(read_run(leaky.folders).description)
