"""One run in MLflow, whatever happens in between."""

import multiprocessing
import random
import time
from dataclasses import replace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, TEMPORARILY_UNAVAILABLE
from mlflow.tracking import MlflowClient

from recu.tracking.client import connect
from recu.tracking.mlflow_tracker import MlflowTracker, Refused
from recu.tracking.tracker import rows_of


def row(epoch):
    return {"epoch": epoch, "time": 1_700_000_000_000 + 1000 * epoch, "test_top1": 50.0 + epoch, "lr": 0.1, "note": "x"}


def steps(store, run_id, metric="test_top1"):
    return sorted(entry.step for entry in connect(store).get_metric_history(run_id, metric))


def started(store, description):
    tracker = MlflowTracker(store)
    tracker.start(description)
    return tracker


def test_a_whole_run(store, description, tmp_path):
    artifact = tmp_path / "model_best.pth.tar"
    artifact.write_bytes(b"weights")
    tracker = started(store, replace(description, parent_run_id="f" * 32))
    tracker.log_epoch(0, row(0))
    tracker.log_metrics({"best_top1": 50.0})
    tracker.log_artifact(artifact, "checkpoint")
    tracker.finish("FINISHED")

    client = connect(store)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == description.run_name
    assert run.data.params == dict(description.params)
    assert run.data.metrics == {"test_top1": 50.0, "lr": 0.1, "best_top1": 50.0}
    assert run.data.tags.items() >= description.tags.items()
    assert run.data.tags["recu.spec_hash"] == description.spec_hash
    assert run.data.tags["mlflow.user"] == "recu" and run.data.tags["mlflow.parentRunId"] == "f" * 32
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "digits" and description.dataset.digest.startswith(dataset.dataset.digest)
    assert [file.path for file in client.list_artifacts(run.info.run_id, "checkpoint")] == [
        "checkpoint/model_best.pth.tar"
    ]
    assert client.get_metric_history(run.info.run_id, "lr")[0].timestamp == row(0)["time"]


@pytest.mark.parametrize("by_id", [True, False], ids=["run id known", "found by its tags"])
def test_continuing_is_one_run_with_each_epoch_once(store, description, by_id):
    first = started(store, description)
    for epoch in range(3):
        first.log_epoch(epoch, row(epoch))
    first.finish("KILLED")
    second = started(store, replace(description, run_id=first.run_id if by_id else None))
    assert second.run_id == first.run_id
    assert connect(store).get_run(second.run_id).info.status == "RUNNING"
    second.log_history([row(epoch) for epoch in range(5)])
    second.log_epoch(2, row(2) | {"time": 1})
    second.finish("FINISHED")
    assert steps(store, second.run_id) == [0, 1, 2, 3, 4]
    run = connect(store).get_run(second.run_id)
    assert run.info.status == "FINISHED" and len(run.inputs.dataset_inputs) == 1


def on_data(description, fingerprint):
    return replace(description, dataset=replace(description.dataset, digest=fingerprint))


def test_other_parameters_stage_data_or_checkpoint_is_another_run(store, description):
    evaluation = replace(description, stage="evaluate", checkpoint_sha256="1" * 64)
    described = [
        description,
        replace(description, spec_hash="f" * 16),
        on_data(description, "cd" * 32),
        evaluation,
        on_data(evaluation, "cd" * 32),
        replace(evaluation, checkpoint_sha256="2" * 64),
    ]
    ids = [started(store, each).run_id for each in described]
    assert len(set(ids)) == len(ids)
    assert [started(store, each).run_id for each in described] == ids, "each is found again"
    tags = connect(store).get_run(ids[-1]).data.tags
    assert (tags["data_fingerprint"], tags["checkpoint_sha256"]) == ("ab" * 32, "2" * 64)


def test_a_run_id_of_other_data_is_not_believed(store, description):
    other = started(store, on_data(description, "cd" * 32))
    assert started(store, replace(description, run_id=other.run_id)).run_id != other.run_id


def trained(store, description, epochs, later_ms=0, known=0):
    """A training that has `known` epochs behind it and then logs up to `epochs`."""
    rows = [row(epoch) | {"time": row(epoch)["time"] + later_ms} for epoch in range(epochs)]
    tracker = started(store, replace(description, rows=rows_of(rows[:known])))
    tracker.log_history(rows)
    return tracker


def test_a_training_begun_anew_is_a_run_of_its_own(store, description):
    first = trained(store, description, 3)
    second = trained(store, description, 2, later_ms=5)
    assert second.run_id != first.run_id and steps(store, first.run_id) == [0, 1, 2]
    assert steps(store, second.run_id) == [0, 1]
    assert connect(store).get_run(first.run_id).data.tags["recu.newer_run"] == second.run_id
    # Each goes on in its own, also where the checkpoint names the other's.
    assert trained(store, description, 4, known=3).run_id == first.run_id
    named = replace(description, run_id=first.run_id)
    assert trained(store, named, 3, later_ms=5, known=2).run_id == second.run_id
    assert steps(store, first.run_id) == [0, 1, 2, 3] and steps(store, second.run_id) == [0, 1, 2]


def test_a_run_that_is_ahead_of_the_checkpoint_is_not_mixed_with_the_epochs_repeated(store, description):
    first = trained(store, description, 3)
    second = trained(store, replace(description, run_id=first.run_id), 3, known=2)
    assert second.run_id != first.run_id and steps(store, second.run_id) == [0, 1, 2]


def test_two_trainings_that_start_side_by_side_share_no_run(store, description):
    first = started(store, replace(description, rows=(), started_ns=1))
    second = started(store, replace(description, rows=(), started_ns=2))
    assert first.run_id != second.run_id
    assert started(store, replace(description, rows=(), started_ns=1)).run_id == first.run_id, "a start tried again"


def test_another_row_of_an_epoch_is_refused(store, description):
    tracker = started(store, description)
    tracker.log_epoch(0, row(0) | {"lr": float("nan")})
    tracker.log_epoch(0, row(0) | {"lr": float("nan")})
    again = started(store, description)
    again.log_epoch(0, row(0) | {"lr": float("nan")})
    with pytest.raises(Refused, match="another epoch 0"):
        again.log_epoch(0, row(0))


def test_an_infinite_number_is_found_again(store, description):
    for _ in range(2):
        started(store, description).log_epoch(0, row(0) | {"a": float("inf")})


def test_the_parent_is_found_by_its_checkpoint(store, description):
    parent = started(store, replace(description, spec_hash="a" * 16))
    parent.log_tags({"checkpoint_sha256": "3" * 64})
    elsewhere = started(store, replace(description, spec_hash="b" * 16))
    elsewhere.log_tags({"checkpoint_sha256": "4" * 64})
    for named in (None, "f" * 32, elsewhere.run_id, parent.run_id):
        evaluation = replace(
            description,
            stage="evaluate",
            checkpoint_sha256="3" * 64,
            parent_checkpoint="3" * 64,
            parent_run_id=named,
        )
        tags = connect(store).get_run(started(store, evaluation).run_id).data.tags
        assert tags["mlflow.parentRunId"] == parent.run_id


@pytest.mark.parametrize("foreign", ["0" * 32, "not an id"])
def test_a_run_id_of_another_store_is_not_believed(store, description, foreign):
    tracker = started(store, replace(description, run_id=foreign))
    assert tracker.run_id != foreign


def test_a_run_id_of_another_experiment_is_not_continued(store, description):
    other = started(store, replace(description, spec_hash="f" * 16))
    assert started(store, replace(description, run_id=other.run_id)).run_id != other.run_id


def test_a_run_deleted_by_its_user_is_made_anew(store, description):
    first = started(store, description)
    connect(store).delete_run(first.run_id)
    assert started(store, replace(description, run_id=first.run_id)).run_id != first.run_id


def test_more_parameters_than_one_call_takes(store, description):
    params = {f"p{number}": "x" * 7000 for number in range(250)}
    tracker = started(store, replace(description, params=params, tags={"note": "y" * 6000}))
    assert connect(store).get_run(tracker.run_id).data.tags["note"].endswith("y [cut: 6000 characters]")
    stored = connect(store).get_run(tracker.run_id).data.params
    assert len(stored) == 250 and len(stored["p0"]) == 6000
    assert stored["p0"].startswith("xxx") and stored["p0"].endswith("x [cut: 7000 characters]")


def test_final_metrics_logged_twice_are_stored_once(store, description):
    tracker = started(store, description)
    tracker.log_metrics({"top1": 90.0})
    tracker.log_metrics({"top1": 90.0})
    assert len(connect(store).get_metric_history(tracker.run_id, "top1")) == 1


def test_what_can_never_be_taken_is_refused_at_once(store, description, tmp_path):
    tracker = started(store, description)
    with pytest.raises(Refused, match="absent"):
        tracker.log_artifact(tmp_path / "absent")
    with pytest.raises(Refused):
        tracker.log_epoch(0, {"time": 1, "a?b": 1.0})


def test_global_random_state_is_left_alone(store, description):
    import numpy

    random.seed(1)
    numpy.random.seed(1)
    before = random.getstate(), numpy.random.get_state()[1].tolist()
    tracker = started(store, description)
    tracker.log_epoch(0, row(0))
    tracker.finish("FINISHED")
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before


def test_a_dataset_that_another_run_adds_first(store, description, monkeypatch):
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
    tracker = started(store, description)
    inputs = connect(store).get_run(tracker.run_id).inputs.dataset_inputs
    assert [entry.dataset.name for entry in inputs] == [description.dataset.name] and len(calls) == 2


def test_a_store_that_fails_is_not_asked_for_the_dataset_again(store, description, monkeypatch):
    calls = []

    def fail(client, run_id, datasets):
        calls.append(run_id)
        raise MlflowException("the store has gone", TEMPORARILY_UNAVAILABLE)

    monkeypatch.setattr(MlflowClient, "log_inputs", fail)
    with pytest.raises(MlflowException, match="has gone"):
        started(store, description)
    assert len(calls) == 1


def _log_epochs(store, description, barrier):
    tracker = started(store, description)
    barrier.wait(120)
    for epoch in range(30):
        tracker.log_epoch(epoch, {"time": int(time.time() * 1000), "test_top1": 1.0, "lr": 0.1})
    tracker.finish("FINISHED")


@pytest.mark.slow
def test_four_processes_log_at_once_without_error(store, description):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    descriptions = [replace(description, experiment_id=f"e{number}") for number in range(4)]
    processes = [context.Process(target=_log_epochs, args=(store, each, barrier)) for each in descriptions]
    for process in processes:
        process.start()
    for process in processes:
        process.join(180)
    assert [process.exitcode for process in processes] == [0] * 4
    runs = connect(store).search_runs([connect(store).get_experiment_by_name("demo").experiment_id])
    assert len(runs) == 4
    assert all(steps(store, run.info.run_id) == list(range(30)) for run in runs)
