"""What was left on disk reaches the store, once."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from recu.base.errors import ConfigError, OutputError, ResultError
from recu.tracking.client import connect
from recu.tracking.mlflow_tracker import MlflowTracker
from recu.tracking.outbox import Outbox, find_outboxes
from recu.tracking.store import prepare_store
from recu.tracking.sync import parents_first, replay


@pytest.fixture
def outbox(tmp_path, description):
    box = Outbox(tmp_path / "runs" / "a" / "tracking-outbox.jsonl")
    box.folder.mkdir(parents=True)
    (box.folder / "train.log").write_text("log")
    epochs = [{"event": "epoch", "epoch": e, "metrics": {"time": e, "test_top1": 1.0 * e}} for e in range(3)]
    artifact = box.artifact_record(box.folder / "train.log", None)
    box.rewrite(description, [*epochs, artifact, {"event": "metrics", "metrics": {"time": 9, "best_top1": 2.0}}])
    return box.path


def test_replaying_twice_stores_everything_once(outbox, store, tmp_path):
    copy = tmp_path / "runs" / "a" / "copy-outbox.jsonl"
    shutil.copy(outbox, copy)
    first, second = replay(outbox, store), replay(copy, store)
    assert first.run_id == second.run_id and (first.sent, first.rejected) == (5, 0)
    client = connect(store)
    assert [entry.step for entry in client.get_metric_history(first.run_id, "test_top1")] == [0, 1, 2]
    assert len(client.get_metric_history(first.run_id, "best_top1")) == 1
    assert [file.path for file in client.list_artifacts(first.run_id)] == ["train.log"]
    assert replay(outbox, store).run_id is None


def test_a_run_that_did_not_say_how_it_ended_was_killed(outbox, store):
    assert connect(store).get_run(replay(outbox, store).run_id).info.status == "KILLED"


def test_lines_that_cannot_be_sent_are_kept_apart(outbox, store):
    with outbox.open("a") as stream:
        stream.write('{"event": "finish", "status": "FINISHED"}\n')
        stream.write('{"event": "artifact", "path": "absent", "folder": null}\n{"event": "unheard of"}\nnot json\n{"ev')
    done = replay(outbox, store)
    assert (done.sent, done.rejected) == (6, 4)
    assert connect(store).get_run(done.run_id).info.status == "FINISHED"
    assert len(outbox.with_suffix(".rejected").read_text().splitlines()) == 4 and not outbox.exists()


def test_a_store_that_cannot_be_reached_leaves_the_outbox(outbox):
    before = outbox.read_bytes()
    with pytest.raises(OutputError) as caught:
        replay(outbox, "http://alice:pa55word@127.0.0.1:9")
    assert outbox.read_bytes() == before and "pa55word" not in str(caught.value)


def test_an_outbox_without_its_first_line(outbox, store):
    outbox.write_text("garbage\n")
    with pytest.raises(ResultError, match="first line"):
        replay(outbox, store)
    assert outbox.exists()


def test_a_live_training_sends_its_own_outbox(outbox, store):
    holder = Outbox(outbox)
    assert holder.acquire()
    assert replay(outbox, store).busy and outbox.exists()
    holder.release()
    assert not replay(outbox, store).busy


def test_all_outboxes_below_a_folder(outbox, tmp_path):
    assert list(find_outboxes(tmp_path)) == [outbox]
    assert list(find_outboxes(tmp_path / "absent")) == []


def line(**record):
    return json.dumps(record) + "\n"


def add(outbox, *lines):
    with outbox.open("a") as stream:
        stream.writelines(lines)


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "elsewhere" / "secret.txt"
    file.parent.mkdir()
    file.write_text("secret")
    return file


def sent_files(store, run_id):
    client = connect(store)

    def below(folder=None):
        for file in client.list_artifacts(run_id, folder):
            yield from below(file.path) if file.is_dir else [file.path]

    return sorted(below())


def test_only_files_of_the_run_are_sent(outbox, store, secret, tmp_path):
    (outbox.parent / "link").symlink_to(secret)
    (outbox.parent / "folder").symlink_to(secret.parent)
    results = tmp_path / "results" / "train" / "demo" / "digits" / "cifar.resnet20_1w1a" / "vanilla" / "seed1"
    results.mkdir(parents=True)
    (results / "model_best.pth.tar").write_text("weights")
    other = results.parent / "seed2" / "other.txt"
    other.parent.mkdir()
    other.write_text("another run's")
    refused = [str(secret), "../../elsewhere/secret.txt", "link", "folder/secret.txt", "/etc/passwd", "..", "a\0b"]
    refused.append(os.path.relpath(other, outbox.parent))
    for path in refused:
        add(outbox, line(event="artifact", path=path, folder=None))
    for folder in ("../../up", "/abs", "a/../../b", "", "a//b"):
        add(outbox, line(event="artifact", path="train.log", folder=folder))
    add(
        outbox,
        line(event="artifact", path=os.path.relpath(results / "model_best.pth.tar", outbox.parent), folder="a/b"),
    )
    done = replay(outbox, store, [tmp_path / "results"])
    assert (done.sent, done.rejected) == (6, len(refused) + 5) and not outbox.exists()
    assert sent_files(store, done.run_id) == ["a/b/model_best.pth.tar", "train.log"]
    assert done.reason.startswith("not a file of this run")


@pytest.mark.parametrize("name", ["..", "../../elsewhere", "", "."])
def test_a_runs_name_leads_to_no_other_folder(outbox, store, secret, tmp_path, description, name):
    Outbox(outbox).rewrite(replace(description, experiment_id=name))
    (tmp_path / "results" / "train").mkdir(parents=True)
    add(outbox, line(event="artifact", path="../../elsewhere/secret.txt", folder=None))
    assert replay(outbox, store, [tmp_path / "results"]).rejected == 1


def test_a_results_folder_that_is_a_link_is_not_followed(outbox, store, secret, tmp_path, description):
    results = tmp_path / "results" / "train"
    results.mkdir(parents=True)
    (results / "demo").symlink_to(secret.parent)
    Outbox(outbox).rewrite(replace(description, experiment_id="demo"))
    add(outbox, line(event="artifact", path="../../elsewhere/secret.txt", folder=None))
    assert replay(outbox, store, [tmp_path / "results"]).rejected == 1


def test_an_experiments_name_leads_to_no_other_folder(outbox, store, tmp_path, description):
    Outbox(outbox).rewrite(replace(description, experiment="../../escaped"), Outbox(outbox).read().records)
    assert replay(outbox, store).rejected == 5 and not outbox.exists()
    with pytest.raises(ConfigError, match="no plain name"):
        prepare_store(store, ["../../escaped"])


BAD = [
    {"event": "epoch", "epoch": 1.5, "metrics": {"time": 1, "a": 1.0}},
    {"event": "epoch", "epoch": -1, "metrics": {"time": 1, "a": 1.0}},
    {"event": "epoch", "epoch": 10**30, "metrics": {"time": 1, "a": 1.0}},
    {"event": "epoch", "epoch": 9, "metrics": {"a": 1.0}},
    {"event": "epoch", "epoch": 9, "metrics": {"time": 10**30, "a": 1.0}},
    {"event": "epoch", "epoch": 9, "metrics": {"time": 1, "a": 10**400}},
    {"event": "epoch", "epoch": 9, "metrics": {"time": 1, "a": {"b": 1}}},
    {"event": "epoch", "epoch": 9, "metrics": {"time": 1, "a?b": 1.0}},
    {"event": "epoch", "epoch": 9, "metrics": [1]},
    {"event": "metrics", "metrics": {"time": float("inf")}},
    {"event": "tags", "tags": {"a": 1}},
    {"event": "tags", "tags": {"a": "\ud800"}},
    {"event": "artifact", "path": 7, "folder": None},
    {"event": "finish", "status": "RUNNING"},
    {"event": ["epoch"]},
    {"no": "event"},
    ["epoch"],
    None,
]


def test_bad_records_of_every_kind_hold_nothing_up(outbox, store):
    add(outbox, *(json.dumps(bad) + "\n" for bad in BAD), "[" * 100_000 + "\n", "\xff\0\n", "9" * 5000 + "\n")
    add(outbox, line(event="epoch", epoch=3, metrics={"time": 3, "test_top1": 3.0}))
    add(outbox, line(event="finish", status="FINISHED"))
    done = replay(outbox, store)
    assert (done.sent, done.rejected) == (7, len(BAD) + 3), done
    assert [entry.step for entry in connect(store).get_metric_history(done.run_id, "test_top1")] == [0, 1, 2, 3]
    assert connect(store).get_run(done.run_id).info.status == "FINISHED"


def test_a_second_set_of_bad_records_does_not_replace_the_first(outbox, store, tmp_path, description):
    for text in ("one", "two"):
        Outbox(outbox).rewrite(description)
        add(outbox, f"{text}\n")
        replay(outbox, store)
    assert sorted(file.read_text() for file in outbox.parent.glob("*.rejected")) == ["one\n", "two\n"]


@pytest.mark.parametrize(
    "change",
    [
        {"experiment_id": "it's"},
        {"params": {"a?b": "1"}},
    ],
    ids=["quotation mark", "name of a parameter"],
)
def test_a_run_that_the_store_cannot_have_is_set_aside(outbox, store, description, change):
    Outbox(outbox).rewrite(replace(description, **change), [{"event": "metrics", "metrics": {"time": 1, "a": 1.0}}])
    assert replay(outbox, store).rejected == 1
    assert not outbox.exists() and outbox.with_suffix(".rejected").exists()


@pytest.mark.parametrize("change", [{"rows": [[1]]}, {"params": [1]}, {"stage": None}, {"dataset": {"name": 1}}])
def test_a_first_line_of_wrong_types_is_one_readable_error(outbox, store, change):
    first, *rest = outbox.read_text().splitlines(keepends=True)
    outbox.write_text(json.dumps(json.loads(first) | change) + "\n" + "".join(rest))
    with pytest.raises(ResultError, match="first line"):
        replay(outbox, store)


def test_an_outbox_of_any_size_is_not_read(outbox, store):
    with outbox.open("ab") as stream:
        stream.truncate(1 << 27)
    with pytest.raises(ResultError, match="larger than any outbox"):
        replay(outbox, store)


def test_artifacts_that_fail_stay_and_the_numbers_are_sent(outbox, store, monkeypatch):
    add(outbox, line(event="finish", status="FINISHED"))

    def fail(*_):
        raise ConnectionError("no credentials for the bucket")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowTracker, "log_artifact", fail)
        done = replay(outbox, store)
    assert (done.sent, done.kept, done.rejected) == (5, 1, 0) and "bucket" in done.reason
    assert connect(store).get_run(done.run_id).data.metrics["best_top1"] == 2.0
    again = replay(outbox, store)
    assert again.run_id == done.run_id and sent_files(store, done.run_id) == ["train.log"]
    assert connect(store).get_run(done.run_id).info.status == "FINISHED" and not outbox.exists()


def test_parents_come_first(tmp_path, description):
    def box(name, made=None, wanted=None):
        found = Outbox(tmp_path / f"{name}-outbox.jsonl")
        tags = [] if made is None else [{"event": "tags", "tags": {"checkpoint_sha256": made}}]
        found.rewrite(replace(description, parent_checkpoint=wanted), tags)
        return found.path

    evaluation, finetune, vanilla = box("a", wanted="f"), box("b", made="f", wanted="v"), box("c", made="v")
    crafted = box("d", made="x", wanted="x")
    assert parents_first([evaluation, finetune, vanilla, crafted]) == [vanilla, finetune, evaluation, crafted]


def test_links_to_outboxes_are_not_followed(outbox, tmp_path):
    (tmp_path / "runs" / "link-outbox.jsonl").symlink_to(outbox)
    assert list(find_outboxes(tmp_path)) == [outbox]


def test_a_runs_folder_that_is_a_link_finds_its_artifacts(tmp_path, description, store):
    disk = tmp_path / "disk" / "deep" / "runs"
    disk.mkdir(parents=True)
    (tmp_path / "runs").symlink_to(disk)
    published = tmp_path / "results" / "train" / description.experiment_id
    published.mkdir(parents=True)
    (published / "metrics.json").write_text("{}")
    box = Outbox(tmp_path / "runs" / "tracking-outbox.jsonl")
    box.rewrite(description, [box.artifact_record(published / "metrics.json", None)])
    assert replay(box.path, store, [tmp_path / "results"]).rejected == 0
