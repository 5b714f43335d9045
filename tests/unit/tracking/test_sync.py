"""What was left on disk reaches the store, once."""

import shutil

import pytest

from recu.errors import OutputError, ResultError
from recu.tracking.client import connect
from recu.tracking.outbox import Outbox, find_outboxes
from recu.tracking.sync import replay


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
