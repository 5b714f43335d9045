"""Every run below the folders is found, once, and nothing leads out of them."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from recu.tracking.client import connect
from recu.tracking.mirror import bring
from recu.tracking.sync import find_outboxes, find_runs
from recu.tracking.wanted import Folders
from tests.unit.tracking.conftest import Job, finished


def found(job, **places):
    folder = places.get("folder", job.folder)
    return find_runs(folder / "runs", [folder / "results"])


def test_a_training_and_its_evaluation_in_order(job):
    finished(job)
    evaluation = Job(job.folder, replace(job.description, stage="evaluate", checkpoint_sha256="1" * 64))
    evaluation.note("FINISHED").publish()
    assert found(job) == [job.folders, evaluation.folders]
    assert find_runs(job.state, [job.folder / "results"])[0] == job.folders, "the folder that a message names"


def test_parents_come_first(job):
    names = ("c", "a", "b")
    jobs = [finished(Job(job.folder, replace(job.description, experiment_id=f"demo/{name}"))) for name in names]
    for second, each in enumerate(jobs):
        os.utime(each.results / "metrics.json", (second, second))
    assert found(job) == [each.folders for each in jobs]


def test_a_state_that_was_set_aside_shows_no_result_of_its_successor(job):
    finished(job)
    aside = Job(job.folder, job.description, name=f"{job.description.spec_hash}-aside").note("KILLED")
    assert Folders(aside.state, aside.state) in found(job) and len(found(job)) == 2


def test_a_training_in_a_folder_of_its_own(job):
    folder = job.folder / "results" / "name"
    finished(job)
    folder.mkdir(parents=True)
    for file in (*job.state.iterdir(), *job.results.iterdir()):
        file.rename(folder / file.name)
    assert found(job) == find_runs(folder, []) == [Folders(folder, folder)]


def test_a_run_beside_its_results_is_found_once_by_whatever_paths(job, monkeypatch):
    folder = job.folder / "results" / "name"
    finished(job)
    folder.mkdir(parents=True)
    for file in (*job.state.iterdir(), *job.results.iterdir()):
        file.rename(folder / file.name)
    monkeypatch.chdir(job.folder)
    relative, absolute = Path("results"), job.folder / "results"
    assert find_runs(job.folder / "runs", [relative, absolute]) == [Folders(relative / "name", relative / "name")]
    assert find_runs(absolute, [relative]) == find_runs(job.folder, [relative]) == [Folders(folder, folder)]


def test_a_result_of_an_earlier_version_is_shown(job, store):
    finished(job)
    provenance = {"git_commit": "c", "git_dirty": False, "device": "cpu", "packages": {}}
    experiment = {"id": job.description.experiment_id, "suite": "demo", "dataset": "digits", "family": "cifar",
                  "variant": None, "model": "resnet20_1w1a", "method": "vanilla", "seed": 1}  # fmt: skip
    from recu.results.seal import write_sealed_json

    metrics = json.loads((job.results / "metrics.json").read_text())
    write_sealed_json(job.results / "metrics.json", metrics | {"provenance": provenance, "experiment": experiment})
    noted = bring(found(job)[0], store).run_id
    (job.state / "run.json").unlink()
    assert found(job) == [job.folders]
    done = bring(found(job)[0], store)
    assert done.run_id == noted, "it is the same run"
    connect(store).delete_run(noted)
    run = connect(store).get_run(bring(found(job)[0], store).run_id)
    assert run.info.status == "FINISHED" and run.data.params["model"] == "resnet20_1w1a"
    assert len(connect(store).list_artifacts(run.info.run_id)) == 3


@pytest.mark.parametrize("name", ["..", "../../elsewhere", "", "."])
def test_a_runs_name_leads_to_no_other_folder(job, name):
    elsewhere = job.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "metrics.json").write_text("{}")
    (job.folder / "results" / "train").mkdir(parents=True)
    other = Job(job.folder, replace(job.description, experiment_id=name))
    crafted = Job(job.folder, job.description).note()
    (crafted.state / "run.json").write_text((other.note().state / "run.json").read_text())
    (other.state / "run.json").unlink()
    assert found(job) == [Folders(crafted.state, crafted.state)]


def test_a_results_folder_that_is_a_link_is_not_followed(job):
    finished(job)
    elsewhere = job.folder / "elsewhere"
    (job.folder / "results" / "train" / "demo").rename(elsewhere)
    (job.folder / "results" / "train" / "demo").symlink_to(elsewhere)
    assert found(job) == [Folders(job.state, job.state)]


def test_links_to_runs_are_not_followed(job):
    job.note()
    (job.folder / "runs" / "link").symlink_to(job.state)
    copy = job.folder / "runs" / "other"
    copy.mkdir()
    (copy / "run.json").symlink_to(job.state / "run.json")
    assert [folders.state for folders in found(job)] == [job.state]


def test_a_runs_folder_that_is_a_link_is_searched(job):
    disk = job.folder / "disk"
    disk.mkdir()
    (job.folder / "runs").symlink_to(disk)
    assert found(finished(job)) == [job.folders]


def test_outboxes_of_an_earlier_version(job):
    job.note()
    for name in ("tracking-outbox.jsonl", "tracking-outbox-7.jsonl"):
        (job.state / name).write_text("x")
    assert len(find_outboxes(job.folder)) == 2 and find_outboxes(job.folder / "absent") == []


def test_a_damaged_run_is_found_to_be_reported(job):
    job.note()
    (job.state / "run.json").write_text("garbage")
    assert found(job) == [Folders(job.state, job.state)]
