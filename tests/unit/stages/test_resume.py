"""What may be continued as what, on checkpoints that no training had to write."""

import json

import pytest
import torch

from recu.base.errors import CheckpointError, OutputError
from recu.base.files import hash_file
from recu.experiment import paths
from recu.experiment.resolving import Origin
from recu.results.records import Origins, Source
from recu.stages.resume import (
    changes_between,
    check_may_continue,
    given_state,
    keep_foreign,
    note_changes,
    own_state,
    state_to_continue,
    why_foreign,
)
from recu.training.checkpoint import read_checkpoint
from tests.unit.training.ours import experiment, our_checkpoint
from tests.unit.training.tiny import after_each_epoch, never, tiny_provenance, tiny_trainer

PROVENANCE = tiny_provenance().model_copy(update={"device": "CPU, 1 threads"})


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """A state as the trainer writes it, of a tiny network under the name of another, by the number of epochs done."""
    folder, found = tmp_path_factory.mktemp("states"), {}
    of = experiment(epochs=3)
    trainer = tiny_trainer(
        folder,
        identity={
            "model": of.model,
            "experiment": of.canonical,
            "spec_hash": of.spec_hash,
            "seed": of.seed,
            "provenance": PROVENANCE,
            "origins": Origins(parent=Source(id="p", spec_hash="p", checkpoint_sha256="p" * 64)),
        },
    )
    after_each_epoch(
        trainer, lambda row: found.update({row.epoch + 1: read_checkpoint(folder / paths.CHECKPOINT)})
    ).run(never)
    return found


@pytest.fixture
def content(states):
    """Two of three epochs are done."""
    return states[2]


def _write(folder, content, name=paths.CHECKPOINT, **recu):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content | {"recu": content["recu"] | recu}, folder / name)
    return folder


def test_the_very_same_goes_on_without_being_asked(tmp_path, content):
    found = own_state(_write(tmp_path, content))
    assert found.own and found.exact and not found.finished(3) and found.finished(2)
    for same in (experiment(epochs=3), experiment(epochs=3, batch_size_test=7)):
        check_may_continue(found, same, asked=False, fingerprint="d" * 64)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (experiment(epochs=3, lr=0.5), "hyperparameters.lr 0.1 -> 0.5"),
        (experiment(epochs=4), "hyperparameters.epochs 3 -> 4"),
        (experiment(epochs=3, batch_size=7), "hyperparameters.batch_size .* -> 7"),
        (experiment(epochs=3, augmentation="none"), "hyperparameters.augmentation null -> none"),
    ],
)
def test_other_parameters_go_on_only_when_that_was_said(tmp_path, content, changed, named):
    found = own_state(_write(tmp_path, content))
    with pytest.raises(OutputError, match=rf"already holds a training .*{named}.*: --resume continues it with these"):
        check_may_continue(found, changed, asked=False)
    check_may_continue(found, changed, asked=True)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (experiment(epochs=3, seed=2), "seed 1 -> 2"),
        (experiment(epochs=3, model="resnet18_1w1a"), "model resnet20_1w1a -> resnet18_1w1a"),
        (experiment(epochs=3, variant="2021-03"), "variant null -> 2021-03"),
        (experiment(epochs=3, stage=1), "hyperparameters.stage 2 -> 1"),
        (
            experiment(epochs=3).model_copy(update={"init_from": Origin(id="a.pth.tar", spec_hash="1" * 16)}),
            "init_from.id absent -> a.pth.tar",
        ),
    ],
)
def test_another_network_seed_or_start_never_goes_on_in_it(tmp_path, content, changed, named):
    found = own_state(_write(tmp_path, content))
    for asked in (False, True):
        with pytest.raises(CheckpointError, match=rf"is of another training \(.*{named}.* another --save"):
            check_may_continue(found, changed, asked=asked)


def test_other_data_never_goes_on_in_it(tmp_path, content):
    found = own_state(_write(tmp_path, content))
    with pytest.raises(CheckpointError, match="was trained on other data"):
        check_may_continue(found, experiment(epochs=3), asked=True, fingerprint="e" * 64)


@pytest.mark.parametrize("asked", [False, True])
def test_a_finished_training_is_not_published_under_other_parameters(tmp_path, states, asked):
    found = own_state(_write(tmp_path, states[3]))
    check_may_continue(found, experiment(epochs=3), asked=asked)
    with pytest.raises(CheckpointError, match=r"has finished 3 epochs with other parameters \(hyperparameters.lr 0.1"):
        check_may_continue(found, experiment(epochs=3, lr=0.01), asked=asked)
    with pytest.raises(CheckpointError, match=r"epochs 3 -> 2.* --resume with --epochs above 3 continues it"):
        check_may_continue(found, experiment(epochs=2), asked=asked)
    check_may_continue(found, experiment(epochs=4, lr=0.01), asked=True)


def test_another_first_epoch_is_another_training(tmp_path, content):
    found = own_state(_write(tmp_path, content))
    with pytest.raises(OutputError, match="start_epoch 0 -> 1"):
        check_may_continue(found, experiment(epochs=3), asked=False, start_epoch=1)


def test_an_authors_file_goes_on_only_when_that_was_said(tmp_path, content):
    torch.save({name: value for name, value in content.items() if name != "recu"}, tmp_path / paths.CHECKPOINT)
    found = own_state(tmp_path)
    with pytest.raises(OutputError, match="does not say what it is a checkpoint of: --resume continues it"):
        check_may_continue(found, experiment(), asked=False)
    check_may_continue(found, experiment(), asked=True)


def test_where_a_command_line_finds_what_it_continues(tmp_path, content):
    new, own, other = tmp_path / "new", tmp_path / "own", tmp_path / "other"
    _write(own, content)
    _write(other, content)
    assert state_to_continue(new, False) is None
    with pytest.raises(CheckpointError, match=r"--resume: there is no .*new/checkpoint\.pth\.tar to continue"):
        state_to_continue(new, True)
    file = other / paths.CHECKPOINT
    with pytest.raises(CheckpointError, match=r"cannot read .*nowhere"):
        state_to_continue(new, tmp_path / "nowhere.pth.tar")
    assert not state_to_continue(new, file).own
    for resume in (False, True, own / paths.CHECKPOINT):
        assert state_to_continue(own, resume).own
    with pytest.raises(OutputError, match=r"already holds a training, which did not begin with .*: --resume without"):
        state_to_continue(own, file)
    # The same command again, which began with that file.
    begun = {"file": file.name, "sha256": hash_file(file), "epoch": 2, "spec_hash": None}
    _write(own, content, origins={"resumed_from": begun})
    assert state_to_continue(own, file).own
    assert not new.exists()


def test_parts_of_a_training_without_its_checkpoint_are_not_overwritten(tmp_path):
    (tmp_path / paths.HISTORY).touch()
    with pytest.raises(OutputError, match=r"already holds a training \(history\.jsonl\) without the checkpoint"):
        state_to_continue(tmp_path, False)


@pytest.mark.parametrize("name", [paths.BEST_CHECKPOINT, "given.pth.tar"])
def test_a_file_that_the_training_would_write_over_is_not_continued_into_its_own_folder(tmp_path, content, name):
    file = _write(tmp_path / "run", content, name) / name
    if name == paths.BEST_CHECKPOINT:
        with pytest.raises(OutputError, match=r"already holds a training \(model_best.* choose another --save"):
            state_to_continue(tmp_path / "run", file)
    else:
        assert state_to_continue(tmp_path / "run", file).file == file
    assert state_to_continue(tmp_path / "new", file).file == file


def test_checkpoints_of_another_program_get_second_names_before_ours_take_theirs(tmp_path, content):
    foreign = {name: value for name, value in content.items() if name != "recu"}
    torch.save(foreign, tmp_path / paths.CHECKPOINT)
    torch.save(foreign | {"epoch": 1}, tmp_path / paths.BEST_CHECKPOINT)
    given = {name: hash_file(tmp_path / name) for name in (paths.CHECKPOINT, paths.BEST_CHECKPOINT)}
    for _ in range(2):  # once more, for one that was killed before it wrote its own
        keep_foreign(own_state(tmp_path))
        assert {name: hash_file(tmp_path / f"before-{name}") for name in given} == given
    torch.save(foreign | {"epoch": 3}, tmp_path / paths.CHECKPOINT)
    with pytest.raises(OutputError, match=r"before-checkpoint\.pth\.tar keeps another file than .*: move one of them"):
        keep_foreign(own_state(tmp_path))
    _write(tmp_path / "ours", content)
    keep_foreign(own_state(tmp_path / "ours"))
    assert [file.name for file in (tmp_path / "ours").iterdir()] == [paths.CHECKPOINT]


def test_looking_repairs_nothing(tmp_path, content):
    _write(tmp_path, content)
    (tmp_path / "checkpoint.previous.pth.tar").write_bytes((tmp_path / paths.CHECKPOINT).read_bytes())
    (tmp_path / paths.CHECKPOINT).write_bytes(b"damaged")
    assert own_state(tmp_path, repair=False).exact
    assert (tmp_path / paths.CHECKPOINT).read_bytes() == b"damaged"
    assert own_state(tmp_path).exact
    assert not (tmp_path / paths.CHECKPOINT).exists()
    (tmp_path / "checkpoint.previous.pth.tar").write_bytes(b"damaged too")
    with pytest.raises(CheckpointError, match="damaged"):
        own_state(tmp_path, repair=False)


def test_a_state_is_the_experiments_own_or_foreign(tmp_path, content):
    asked = {"fingerprint": "d" * 64, "parent": "p" * 64, "teacher": None}

    def why(of=None, recu=None, **changes):
        found = own_state(_write(tmp_path, content, **recu or {}))
        return why_foreign(found, of or experiment(epochs=3), **asked | changes)

    assert why() is None
    assert "another experiment's (seed 1 -> 2)" in why(experiment(epochs=3, seed=2))
    assert "prepared data has changed" in why(fingerprint="e" * 64)
    assert "its parent has been trained again (checkpoint qqqq" in why(parent="q" * 64)
    assert "its teacher has been trained again" in why(teacher="t" * 64)
    assert "format 1 of another version" in why(recu={"format": 1})
    foreign = {name: value for name, value in content.items() if name != "recu"}
    torch.save(foreign, tmp_path / paths.CHECKPOINT)
    assert "not a state that this program wrote" in why_foreign(own_state(tmp_path), experiment(), **asked)


def test_a_best_checkpoint_of_ours_is_known_but_not_exact(tmp_path, content):
    best = our_checkpoint(experiment(epochs=3))
    torch.save(best, tmp_path / paths.BEST_CHECKPOINT)
    found = given_state(tmp_path / paths.BEST_CHECKPOINT)
    assert found.identity.seed == 1 and not found.exact and not found.finished(1)


def test_changes_of_an_experiment_of_another_version(content):
    older = json.loads(experiment(epochs=3).canonical)
    del older["hyperparameters"]["compile"]
    assert changes_between(json.dumps(older), experiment(epochs=3)) == {"hyperparameters.compile": "absent -> null"}


def test_what_is_other_from_here_on_is_said(tmp_path, content, caplog):
    found = own_state(_write(tmp_path, content))
    now = PROVENANCE.model_copy(update={"device": "NVIDIA H100", "code_hash": "f" * 64})
    note_changes(found, experiment(epochs=5), now)
    assert "other parameters than before, from epoch 3 on: hyperparameters.epochs 3 -> 5" in caplog.text
    assert "learning rate and tau follow the schedule of the new number of epochs" in caplog.text
    assert "continuing with another device (NVIDIA H100, was CPU, 1 threads)" in caplog.text
    assert "continuing with another code" in caplog.text and "environment" not in caplog.text
    assert read_checkpoint(found.file)["epoch"] == 2
