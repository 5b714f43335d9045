"""One run in MLflow that shows what the files say, whatever happened before."""

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, TEMPORARILY_UNAVAILABLE
from mlflow.tracking import MlflowClient

from recu.base.errors import ConfigError, OutputError
from recu.base.files import hash_text
from recu.tracking.client import connect
from recu.tracking.mirror import Refused, bring
from recu.tracking.store import prepare_store
from recu.tracking.wanted import Folders
from tests.unit.tracking.conftest import Job, finished, row, weights


def steps(store, run_id, metric="test/top1"):
    return sorted(entry.step for entry in connect(store).get_metric_history(run_id, metric))


def shown(store, run_id):
    return connect(store).get_run(run_id)


def artifacts(store, run_id):
    return sorted(file.path for file in connect(store).list_artifacts(run_id))


def other(job, **changes):
    return Job(job.folder, replace(job.description, **changes), name=hash_text(str(changes)))


def test_a_whole_run(store, job):
    done = finished(job).bring(store)
    run, description = shown(store, done.run_id), job.description
    assert done.left == [] and run.info.status == "FINISHED" and run.info.run_name == description.run_name
    assert run.data.params == dict(description.params)
    summary = {f"{kind}/{name}": value for kind in ("best", "last") for name, value in
               {"epoch": 1.0, "top1": 51.0, "top5": 90.0, "loss": 0.5}.items()}  # fmt: skip
    assert run.data.metrics == {"test/top1": 51.0, "schedule/lr": 0.1, "train/seconds": 9.0} | summary
    assert run.data.tags.items() >= description.tags.items()
    assert run.data.tags["recu.spec_hash"] == description.spec_hash and run.data.tags["mlflow.user"] == "recu"
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "digits" and description.data_fingerprint.startswith(dataset.dataset.digest)
    assert artifacts(store, done.run_id) == ["experiment.json", "model_best.pth.tar", "train.log"]
    assert connect(store).get_metric_history(done.run_id, "schedule/lr")[0].timestamp == row(0)["time"]


def test_the_weights_of_many_epochs_arrive_in_calls_that_a_store_takes(store, job):
    rows = [row(epoch) for epoch in range(12)]
    job.note("FINISHED").history(*rows).publish(*rows, diagnostics=[weights(epoch, 20) for epoch in range(12)])
    done = job.bring(store)
    assert done.left == [] and steps(store, done.run_id, "weights/layer7.conv1/dead_share") == list(range(12))
    assert shown(store, done.run_id).data.metrics["weights/dead_share"] == pytest.approx(19 * 30 * 0.4 / 580)
    assert job.bring(store).sent == 0


def test_calling_it_twice_changes_nothing(store, job):
    first = finished(job).bring(store)
    file = Path(store.removeprefix("sqlite:///"))
    content = file.read_bytes()
    again = job.bring(store)
    assert (again.run_id, again.sent, again.left) == (first.run_id, 0, [])
    assert file.read_bytes() == content
    assert len(connect(store).get_metric_history(first.run_id, "best/top1")) == 1


def test_continuing_is_one_run_with_each_epoch_once(store, job):
    rows = [row(epoch) for epoch in range(5)]
    first = job.note("KILLED").history(*rows[:3]).bring(store)
    assert shown(store, first.run_id).info.status == "KILLED"
    second = job.note(started_ns=1).bring(store, live=True)
    assert second.run_id == first.run_id and shown(store, first.run_id).info.status == "RUNNING"
    for known in (4, 5):
        job.history(*rows[:known]).bring(store, live=True)
    third = finished(job, 5).bring(store)
    assert third.run_id == first.run_id and steps(store, first.run_id) == [0, 1, 2, 3, 4]
    run = shown(store, first.run_id)
    assert run.info.status == "FINISHED" and len(run.inputs.dataset_inputs) == 1


def test_a_run_that_did_not_say_how_it_ended_was_killed(store, job):
    assert shown(store, job.note("RUNNING").history(row(0)).bring(store).run_id).info.status == "KILLED"


def test_more_epochs_than_one_call_takes(store, job):
    done = finished(job, 120).bring(store)
    assert steps(store, done.run_id) == list(range(120)) and job.bring(store).sent == 0


def test_other_parameters_stage_data_or_checkpoint_is_another_run(store, job):
    evaluation = {"stage": "evaluate", "checkpoint_sha256": "1" * 64}
    jobs = [
        job,
        other(job, spec_hash="f" * 16),
        other(job, data_fingerprint="cd" * 32),
        other(job, **evaluation),
        other(job, **evaluation, data_fingerprint="cd" * 32),
        other(job, **evaluation | {"checkpoint_sha256": "2" * 64}),
    ]
    ids = [each.note().bring(store).run_id for each in jobs]
    assert len(set(ids)) == len(ids)
    assert [each.bring(store).run_id for each in jobs] == ids, "each is found again"
    tags = shown(store, ids[-1]).data.tags
    assert (tags["data_fingerprint"], tags["checkpoint_sha256"]) == ("ab" * 32, "2" * 64)


def test_a_training_begun_anew_is_a_run_of_its_own(store, job):
    rows = [row(epoch) for epoch in range(4)]
    later = [row(epoch, time=row(epoch)["time"] + 5) for epoch in range(4)]
    first = job.note(started_ns=1).history(*rows[:3]).bring(store).run_id
    second = job.note(started_ns=2).history(*later[:2]).bring(store).run_id
    assert second != first and steps(store, first) == [0, 1, 2] and steps(store, second) == [0, 1]
    assert shown(store, first).data.tags["recu.newer_run"] == second
    # Each goes on in its own.
    assert job.note(started_ns=1).history(*rows).bring(store).run_id == first
    assert job.note(started_ns=2).history(*later[:3]).bring(store).run_id == second
    assert steps(store, first) == [0, 1, 2, 3] and steps(store, second) == [0, 1, 2]


def test_a_run_that_is_ahead_of_the_history_is_not_mixed_with_the_epochs_repeated(store, job):
    rows = [row(epoch) for epoch in range(3)]
    first = job.note().history(*rows).bring(store).run_id
    second = job.history(*rows[:2]).bring(store).run_id
    again = job.history(*rows[:2], row(2, time=9)).bring(store).run_id
    assert len({first, second, again}) == 2 and again == second and steps(store, second) == [0, 1, 2]


def test_two_trainings_that_start_side_by_side_share_no_run(store, job):
    first, second = (job.note(started_ns=start).bring(store).run_id for start in (1, 2))
    assert first != second
    assert job.note(started_ns=1).bring(store).run_id == first, "a start tried again"


def test_a_run_whose_machine_was_measured_before_its_first_epoch_is_the_same(store, job):
    first = job.note(started_ns=1).bring(store, live=True)
    connect(store).log_metric(first.run_id, "system/cpu_utilization_percentage", 50.0)
    assert job.history(row(0)).bring(store, live=True).run_id == first.run_id
    assert other(job).note(started_ns=2).history(row(0, time=5)).bring(store).run_id != first.run_id


def test_another_row_of_an_epoch_is_another_training(store, job):
    first = job.note().history(row(0, lr=float("nan"))).bring(store)
    assert job.bring(store).sent == 0, "NaN is found again"
    assert job.history(row(0)).bring(store).run_id != first.run_id


def test_an_infinite_number_is_found_again(store, job):
    job.note().history(row(0, a=float("inf"))).bring(store)
    assert job.bring(store).sent == 0


def test_the_parent_is_found_by_its_checkpoint(store, job):
    parent = finished(job).bring(store).run_id
    elsewhere = finished(other(job, spec_hash="b" * 16))
    elsewhere.publish(row(0), row(1), weights=b"others")
    elsewhere.bring(store)
    made = shown(store, parent).data.tags["checkpoint_sha256"]
    evaluation = other(job, stage="evaluate", checkpoint_sha256=made, parent_checkpoint=made).note().bring(store)
    assert shown(store, evaluation.run_id).data.tags["mlflow.parentRunId"] == parent


def test_a_parent_that_arrives_later_is_named_then(store, job):
    child = other(job, spec_hash="c" * 16, parent_checkpoint="3" * 64).note()
    run_id = child.bring(store).run_id
    assert "mlflow.parentRunId" not in shown(store, run_id).data.tags
    parent = job.note().bring(store).run_id
    connect(store).set_tag(parent, "checkpoint_sha256", "3" * 64)
    child.bring(store)
    assert shown(store, run_id).data.tags["mlflow.parentRunId"] == parent


def test_a_run_deleted_by_its_user_is_made_anew(store, job):
    first = finished(job).bring(store)
    connect(store).delete_run(first.run_id)
    assert job.bring(store).run_id != first.run_id


def test_more_parameters_than_one_call_takes(store, job):
    params = {f"p{number}": "x" * 7000 for number in range(250)}
    run_id = other(job, params=params, tags={"note": "y" * 6000}).note().bring(store).run_id
    assert shown(store, run_id).data.tags["note"].endswith("y [cut: 6000 characters]")
    stored = shown(store, run_id).data.params
    assert len(stored) == 250 and len(stored["p0"]) == 6000
    assert stored["p0"].startswith("xxx") and stored["p0"].endswith("x [cut: 7000 characters]")


def test_what_the_store_refuses_holds_nothing_else_up(store, job):
    refused = other(job, params={"a?b": "1", "c": "2"}, tags={"d?e": "3", "f": "4"}).note()
    refused.history(row(0), row(1, **{"a?b": 1.0}), row(2))
    done = refused.bring(store)
    run = shown(store, done.run_id)
    assert len(done.left) == 3 and run.data.params == {"c": "2"} and run.data.tags["f"] == "4"
    assert steps(store, done.run_id) == [0, 2]


def test_a_run_that_the_store_cannot_have_is_refused(store, job):
    with pytest.raises(Refused, match="quotation mark"):
        other(job, experiment_id="it's").note().bring(store)


def test_an_experiments_name_leads_to_no_other_folder(store, job):
    with pytest.raises(ConfigError, match="no plain name"):
        other(job, experiment="../../escaped").note().bring(store)
    with pytest.raises(ConfigError, match="no plain name"):
        prepare_store(store, ["../../escaped"])


def test_a_store_that_cannot_be_reached_is_one_error_without_credentials(job):
    with pytest.raises(OutputError) as caught:
        finished(job).bring("http://alice:pa55word@127.0.0.1:9")
    assert "pa55word" not in str(caught.value)


def test_global_random_state_is_left_alone(store, job):
    import numpy

    random.seed(1)
    numpy.random.seed(1)
    before = random.getstate(), numpy.random.get_state()[1].tolist()
    finished(job).bring(store)
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before


def test_a_dataset_that_another_run_adds_first(store, job, monkeypatch):
    log_inputs = MlflowClient.log_inputs
    calls = []

    def add_too_late(client, run_id, datasets):
        calls.append(run_id)
        if len(calls) == 1:
            other = client.create_run(client.get_run(run_id).info.experiment_id)
            log_inputs(client, other.info.run_id, datasets)
            raise MlflowException("UNIQUE constraint failed: datasets.name", BAD_REQUEST)
        log_inputs(client, run_id, datasets)

    monkeypatch.setattr(MlflowClient, "log_inputs", add_too_late)
    inputs = shown(store, job.note().bring(store).run_id).inputs.dataset_inputs
    assert [entry.dataset.name for entry in inputs] == [job.description.dataset] and len(calls) == 2


def test_a_store_that_fails_half_way_is_made_good_by_the_next_call(store, job, monkeypatch):
    calls = []

    def fail(client, run_id, datasets):
        calls.append(run_id)
        raise MlflowException("the store has gone", TEMPORARILY_UNAVAILABLE)

    finished(job)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_inputs", fail)
        with pytest.raises(MlflowException, match="has gone"):
            job.bring(store)
    assert len(calls) == 1 and shown(store, calls[0]).info.status == "RUNNING", "not finished: it is not whole"
    again = job.bring(store)
    assert again.run_id == calls[0] and shown(store, calls[0]).info.status == "FINISHED"


def test_artifacts_that_fail_hold_nothing_up_and_are_sent_later(store, job, monkeypatch):
    def fail(*_):
        raise ConnectionError("no credentials for the bucket")

    finished(job)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", fail)
        done = job.bring(store)
    assert len(done.left) == 2 and "bucket" in done.left[0]
    run = shown(store, done.run_id)
    assert run.info.status == "FINISHED" and run.data.metrics["best/top1"] == 51.0
    again = job.bring(store)
    assert again.left == [] and artifacts(store, done.run_id) == ["experiment.json", "model_best.pth.tar", "train.log"]


def test_a_file_that_changed_replaces_its_copy(store, job):
    run_id = finished(job).bring(store).run_id
    (job.state / "train.log").write_text("gol")
    assert job.bring(store).sent == 1
    assert connect(store).download_artifacts(run_id, "train.log", str(job.folder)) and job.bring(store).sent == 0
    assert (job.folder / "train.log").read_text() == "gol"


def test_the_checkpoint_is_found_from_the_run_and_takes_no_second_place(store, job):
    run_id = finished(job).bring(store).run_id
    checkpoint = job.results / "model_best.pth.tar"
    (copy,) = _artifact(store, run_id)
    assert copy.samefile(checkpoint) and checkpoint.stat().st_nlink == 2
    tags = shown(store, run_id).data.tags
    assert tags["checkpoint_file"] == f"results/train/{job.description.experiment_id}/model_best.pth.tar"
    assert len(tags["checkpoint_sha256"]) == 64


def _artifact(store, run_id):
    from recu.tracking.mirror import _local_folder

    return [_local_folder(shown(store, run_id).info.artifact_uri) / "model_best.pth.tar"]


def test_an_earlier_versions_copy_of_the_checkpoint_becomes_a_link(store, job):
    (copy,) = _artifact(store, finished(job).bring(store).run_id)
    copy.unlink()
    copy.write_bytes(b"weights")
    assert job.bring(store).sent == 1 and copy.samefile(job.results / "model_best.pth.tar")
    assert [file.name for file in copy.parent.iterdir() if file.name.startswith(".")] == []


def test_a_checkpoint_on_another_disk_is_only_named(store, job, monkeypatch):
    monkeypatch.setattr("pathlib.Path.hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(18, "cross-device")))
    done = finished(job).bring(store)
    assert done.left == [] and artifacts(store, done.run_id) == ["experiment.json", "train.log"]
    assert shown(store, done.run_id).data.tags["checkpoint_sha256"]
    (copy,) = _artifact(store, done.run_id)
    copy.write_bytes(b"of another training")
    job.bring(store)
    assert not copy.exists(), "it would pass for this one"


def test_a_checkpoint_that_metrics_json_does_not_name_is_not_shown(store, job):
    finished(job)
    (job.results / "model_best.pth.tar").write_bytes(b"swapped")
    done = job.bring(store)
    assert "not the checkpoint" in done.left[0] and "model_best.pth.tar" not in artifacts(store, done.run_id)


def test_a_store_elsewhere_gets_the_checkpoint_only_if_asked(store, job, monkeypatch):
    monkeypatch.setattr("recu.tracking.mirror._local_folder", lambda _: None)
    run_id = finished(job).bring(store).run_id
    assert "model_best.pth.tar" not in artifacts(store, run_id)
    job.bring(store, upload_checkpoint=True)
    assert "model_best.pth.tar" in artifacts(store, run_id)
    assert job.bring(store, upload_checkpoint=True).sent == 0


@pytest.mark.parametrize("name", ["train.log", "model_best.pth.tar"])
def test_only_files_of_the_run_are_sent(store, job, name):
    secret = job.folder / "elsewhere" / "secret"
    secret.parent.mkdir()
    secret.write_text("secret")
    finished(job)
    file = (job.state if name == "train.log" else job.results) / name
    file.unlink()
    file.symlink_to(secret)
    done = job.bring(store)
    assert done.left == [f"not a file of this run: {file}"] and name not in artifacts(store, done.run_id)


def test_a_pipe_in_place_of_a_file_holds_nothing_up(store, job):
    finished(job)
    for name in ("train.log", "history.jsonl"):
        (job.state / name).unlink()
        os.mkfifo(job.state / name)
    done = job.bring(store)
    assert len(done.left) == 2 and "train.log" not in artifacts(store, done.run_id)


def test_a_runs_folder_that_is_a_link_finds_its_files(store, job, tmp_path):
    disk = tmp_path / "disk" / "deep" / "runs"
    disk.mkdir(parents=True)
    (tmp_path / "runs").symlink_to(disk)
    done = finished(job).bring(store)
    assert done.left == [] and len(artifacts(store, done.run_id)) == 3


def test_state_and_result_in_one_folder(store, job):
    finished(job)
    for file in job.results.iterdir():
        file.rename(job.state / file.name)
    done = bring(Folders(job.state, job.state), store)
    assert done.left == [] and shown(store, done.run_id).info.status == "FINISHED"
    assert shown(store, done.run_id).data.tags["checkpoint_file"] == f"{job.state.name}/model_best.pth.tar"


def test_secrets_reach_no_store(store, job, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pa55word!")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-t0ken")
    params = {"address": "https://alice:pa55word!@host", "plain": "1"}
    finished(other(job, params=params, tags={"note": "token t0ken-t0ken"})).bring(store)
    files = [Path(store.removeprefix("sqlite:///")), *job.folder.rglob("*.db-wal")]
    assert len(files) >= 2
    for file in files:
        content = file.read_bytes()
        assert b"pa55word" not in content and b"t0ken" not in content and b"alice" not in content
