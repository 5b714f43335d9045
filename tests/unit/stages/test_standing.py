"""How far a training is, from its files."""

import json

import pytest

from recu.base.lock import only_one
from recu.experiment import paths
from recu.results.records import EpochRecord
from recu.stages.standing import BEGUN, RUNNING, TO_DO, TRAINED, standing


def row(epoch: int, top1: float, seconds: float = 10.0, time: int = 1_000_000) -> EpochRecord:
    accuracies = {f"{split}_{name}": top1 for split in ("train", "test") for name in ("top1", "top5")}
    losses = {"train_loss": 1.0, "test_loss": 1.0}
    speeds = {"train_images_per_s": 200.0, "test_images_per_s": 400.0, "seconds": seconds, "time": time}
    return EpochRecord(epoch=epoch, lr=0.1, tau=0.9, train_skipped=0, **accuracies, **losses, **speeds)


@pytest.fixture
def look(project):
    """A function that writes a history and says where the training stands."""
    experiment = project.experiment(epochs=20)

    def look(*rows: EpochRecord, now: float = 1000.0):
        if rows:
            file = project.state(experiment) / paths.HISTORY
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps(each.as_plain()) + "\n" for each in rows))
        return standing(experiment, project.results, project.runs, now)

    look.lock, look.experiment = project.runs / experiment.id, experiment
    return look


def test_a_training_that_nobody_began_has_no_numbers(look):
    found = look()
    assert (found.state, found.epochs, found.epochs_done, found.top1_last, found.finish) == (TO_DO, 20, 0, None, None)


def test_a_training_that_was_stopped_shows_what_it_reached_and_no_finish(look):
    found = look(row(0, 30.0), row(1, 50.0), row(2, 40.0))
    assert (found.state, found.epochs_done, found.top1_last, found.top1_best) == (BEGUN, 3, 40.0, 50.0)
    assert found.images_per_s == 200.0 and found.finish is None


def test_a_running_one_ends_after_its_epochs_at_the_mean_of_the_last_five(look):
    rows = [row(0, 30.0, seconds=1000.0)] + [row(epoch, 30.0, seconds=8.0 + epoch) for epoch in range(1, 6)]
    with only_one(look.lock, "it"):
        found = look(*rows)
        assert found.state == RUNNING and found.finish == pytest.approx(1000.0 + 14 * 11.0)
        assert look(now=5000.0).finish == 5000.0, "one that is late ends no earlier than now"
    assert look().state == BEGUN


def test_a_killed_holder_is_not_running_any_more(look, monkeypatch):
    look(row(0, 30.0))
    with only_one(look.lock, "it"):
        monkeypatch.setattr("recu.base.lock._LEASE_S", -1.0)
        assert look().state == BEGUN


def test_a_damaged_history_is_named_and_gives_no_number(look, project):
    look(row(0, 30.0))
    for damage in ("{", '{"epoch": 0}\n', "\xff"):
        (project.state(look.experiment) / paths.HISTORY).write_text(damage, encoding="latin-1")
        found = look()
        assert "history.jsonl is damaged, or of another version" in found.state and found.top1_last is None


def test_a_finished_training_stands_so_and_one_of_other_parameters_too(project):
    experiment = project.experiment()
    record = project.train(experiment)
    found = standing(experiment, project.results, project.runs, 0.0)
    assert (found.state, found.epochs_done, found.finish) == (TRAINED, 2, None)
    assert found.top1_best == record["best"]["top1"] and found.top1_last == record["last"]["top1"]
    other = standing(project.experiment(lr=0.2), project.results, project.runs, 0.0)
    assert other.state == "trained with other parameters" and other.top1_last is None
