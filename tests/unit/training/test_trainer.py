"""A training that is stopped anywhere and continued ends in the same bits as one that was not."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from recu.base.errors import CheckpointError, ConfigError, DataError, DivergenceError, Interrupted
from recu.base.files import hash_file
from recu.base.signals import TIME_LIMIT
from recu.binarisers.recu import tau_at
from recu.experiment import paths
from recu.experiment.schedules import learning_rate_at
from recu.training.checkpoint import RESUME_KEY, load_latest, previous_of, read_checkpoint, save_checkpoint
from recu.training.loop import train_steps
from recu.training.optimizer import build_optimizer
from recu.training.position import carry_start, start_of, usable_state
from recu.training.seeding import make_deterministic
from recu.training.sums import RunningSums
from recu.training.trainer import Trainer
from tests.history import comparable, read_history
from tests.unit.training import training_process
from tests.unit.training.tiny import (
    CPU,
    StopAfter,
    TinyLoader,
    TinyLoaders,
    TinyNet,
    after_each_epoch,
    never,
    same,
    tiny_loaders,
    tiny_provenance,
    tiny_trainer,
    tiny_validity,
)


def _train(folder, **more):
    folder.mkdir(parents=True, exist_ok=True)
    return tiny_trainer(folder, **more).run(never)


def _assert_same_result(folder, other):
    first, second = (read_checkpoint(place / paths.CHECKPOINT) for place in (folder, other))
    for part in ("epoch", "state_dict", "optimizer", "best_prec1", "best_prec5", "lr_scheduler"):
        assert same(first[part], second[part]), part
    for part in ("random", "best_checkpoint"):
        assert same(first[RESUME_KEY][part], second[RESUME_KEY][part]), part
    rows, others = (read_history(place / paths.HISTORY) for place in (folder, other))
    assert [comparable(row) for row in rows] == [comparable(row) for row in others]
    assert (folder / paths.DIAGNOSTICS).read_bytes() == (other / paths.DIAGNOSTICS).read_bytes()
    # The published file carries no clock times: equal trainings give equal bytes.
    assert hash_file(folder / paths.BEST_CHECKPOINT) == hash_file(other / paths.BEST_CHECKPOINT)


def test_history_row_holds_every_column(tmp_path):
    outcome = _train(tmp_path)
    rows = read_history(tmp_path / paths.HISTORY)
    assert rows == [row.as_plain() for row in outcome.history]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert set(rows[0]) == {
        "epoch", "lr", "tau", "train_loss", "train_top1", "train_top5", "train_skipped", "test_loss", "test_top1",
        "test_top5", "train_images_per_s", "test_images_per_s", "seconds", "time",
    }  # fmt: skip
    assert rows[1]["tau"] == tau_at(1, 3, 0.85, 0.99)
    assert rows[1]["lr"] == learning_rate_at(1, epochs=3, lr=0.1, lr_type="cos", warm_up=False)
    assert [row["train_skipped"] for row in rows] == [0, 0, 0]
    assert outcome.last.top1 == rows[2]["test_top1"]
    assert outcome.best.top1 == max(row["test_top1"] for row in rows)


def test_equal_trainings_give_equal_bits(tmp_path):
    _train(tmp_path / "a")
    _train(tmp_path / "b")
    _assert_same_result(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
# 4 training steps and 4 evaluation steps an epoch: the third is within epoch 0, the sixth in its evaluation, and so on.
@pytest.mark.parametrize("asked", [0, 2, 3, 5, 8, 14, 20])
def test_stopped_anywhere_and_continued(tmp_path, asked, optimizer):
    recipe = {"optimizer": optimizer, "lr": 0.1 if optimizer == "sgd" else 1e-3}
    _train(tmp_path / "whole", **recipe)
    folder = tmp_path / "parts"
    with pytest.raises(Interrupted, match="stopped by SIGTERM in epoch") as raised:
        tiny_trainer(folder, **recipe).run(StopAfter(asked))
    assert raised.value.exit_code == 75
    continued = tiny_trainer(folder, **recipe)
    torch.rand(5)  # whatever happens between building and continuing must not matter
    continued.continue_from(load_latest(folder / paths.CHECKPOINT))
    continued.run(never)
    _assert_same_result(tmp_path / "whole", folder)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_killed_right_after_the_best_epoch_and_continued(tmp_path, optimizer):
    """Then the checkpoint stores its tensors once, as the best and the last: training on must not change the best."""
    recipe = {"optimizer": optimizer, "lr": 0.1 if optimizer == "sgd" else 1e-3}
    # One class: every epoch is right, so the first stays the best.
    loaders = TinyLoaders(TinyLoader(classes=1), TinyLoader(num_images=17, batch_size=5, training=False, classes=1))
    whole = _train(tmp_path / "whole", loaders=loaders, **recipe)
    assert whole.best.epoch == 0

    def kill(_row):
        raise KeyboardInterrupt

    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        after_each_epoch(tiny_trainer(folder, loaders, **recipe), kill).run(never)
    continued = tiny_trainer(folder, loaders, **recipe)
    continued.continue_from(load_latest(folder / paths.CHECKPOINT))
    continued.run(never)
    _assert_same_result(tmp_path / "whole", folder)


def test_continuing_reads_only_the_batches_that_are_left(tmp_path):
    with pytest.raises(Interrupted):
        tiny_trainer(tmp_path).run(StopAfter(1))
    loaders = tiny_loaders()
    trainer = tiny_trainer(tmp_path, loaders)
    trainer.continue_from(load_latest(tmp_path / paths.CHECKPOINT))
    trainer.run(never)
    assert loaders.train.asked == [(0, 2), (1, 0), (2, 0)]


def test_stopped_at_every_step_and_continued(tmp_path):
    _train(tmp_path / "whole")
    folder = tmp_path / "parts"
    stops = 0
    while not (checkpoint := load_latest(folder / paths.CHECKPOINT)) or checkpoint["epoch"] < 3:
        trainer = tiny_trainer(folder)
        steps = 0
        if checkpoint is not None:
            trainer.continue_from(checkpoint)
            steps = checkpoint[RESUME_KEY]["position"]["step"]
        # After the next step; where only the four batches of evaluation are left, after these.
        with contextlib.suppress(Interrupted):
            trainer.run(StopAfter(4 if steps == 4 else 0))
        stops += 1
    assert stops == 3 * 4 + 1
    _assert_same_result(tmp_path / "whole", folder)


def _has_progressed(folder):
    try:
        checkpoint = read_checkpoint(folder / paths.CHECKPOINT)
    except CheckpointError:  # not there, or being replaced
        return False
    return bool(checkpoint["epoch"] or checkpoint[RESUME_KEY]["position"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_killed_process_continues_to_the_same_bits(tmp_path, number):
    command = [sys.executable, "-m", "tests.unit.training.training_process"]
    assert training_process.run(tmp_path / "whole", pause=0) == 0
    folder = tmp_path / "killed"
    codes = []
    for wait in (0.0, 0.31, 0.53):
        process = subprocess.Popen([*command, folder, "0.05"], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "running\n"
        while wait and not _has_progressed(folder):
            time.sleep(0.05)
        time.sleep(wait)
        process.send_signal(number)
        process.communicate(timeout=60)
        codes.append(process.returncode)
    assert codes == [75 if number == signal.SIGTERM else -signal.SIGKILL] * 3
    assert _has_progressed(folder), "the kills came too early to count"
    assert training_process.run(folder, pause=0) == 0
    _assert_same_result(tmp_path / "whole", folder)


def test_second_signal_ends_the_process_at_once(tmp_path):
    command = [sys.executable, "-m", "tests.unit.training.training_process", tmp_path, "30"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    time.sleep(2)
    assert process.poll() is None, "the first signal, which Slurm sends twice, waits for the step"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGTERM


def test_damaged_checkpoint_falls_back_and_ends_in_the_same_bits(tmp_path, caplog):
    _train(tmp_path / "whole")
    folder = tmp_path / "damaged"
    with pytest.raises(Interrupted):
        tiny_trainer(folder).run(StopAfter(12))
    file = folder / paths.CHECKPOINT
    content = bytearray(file.read_bytes())
    weight = max(read_checkpoint(file)["state_dict"].values(), key=lambda tensor: tensor.numel())
    content[content.index(bytes(weight.untyped_storage().tolist()))] ^= 4
    file.write_bytes(content)
    trainer = tiny_trainer(folder)
    trainer.continue_from(load_latest(file))
    assert "is damaged" in caplog.text and "continuing from the checkpoint before it" in caplog.text
    trainer.run(never)
    _assert_same_result(tmp_path / "whole", folder)


@pytest.mark.parametrize("print_freq", [1, 100])
def test_loss_that_is_not_finite_names_epoch_step_and_rate(tmp_path, print_freq):
    trainer = tiny_trainer(tmp_path, tiny_loaders(poison=(1, 2)), print_freq=print_freq)
    with pytest.raises(DivergenceError, match=r"not finite at epoch 2, step 3, learning rate 0\.075") as raised:
        trainer.run(never)
    assert raised.value.exit_code == 3
    kept = read_checkpoint(tmp_path / paths.CHECKPOINT)
    assert kept["epoch"] == 1
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_weights_that_are_not_finite_are_never_saved_though_the_sign_hides_them_from_the_loss(tmp_path):
    trainer = tiny_trainer(tmp_path, tiny_loaders(poison=(1, 2)), shortcut=False)
    with pytest.raises(DivergenceError, match=r"conv1.weight is not finite at epoch 2, after step 4, .*0\.075"):
        trainer.run(never)
    kept = read_checkpoint(tmp_path / paths.CHECKPOINT)
    assert kept["epoch"] == 1
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_saving_within_an_epoch_never_saves_a_bad_state(tmp_path):
    trainer = tiny_trainer(tmp_path, tiny_loaders(poison=(0, 1)), save_every_seconds=0, print_freq=100)
    with pytest.raises(DivergenceError, match="epoch 1, step 2, "):
        trainer.run(never)
    kept = read_checkpoint(tmp_path / paths.CHECKPOINT)
    assert kept[RESUME_KEY]["position"]["step"] == 1
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_checkpoint_has_the_authors_keys_and_loads_weights_only(tmp_path):
    _train(tmp_path)
    for name in (paths.CHECKPOINT, paths.BEST_CHECKPOINT):
        content = torch.load(tmp_path / name, weights_only=True)
        assert {"epoch", "model", "state_dict", "best_prec1", "best_prec5", "optimizer", "lr_scheduler"} <= set(content)
    last = torch.load(tmp_path / paths.CHECKPOINT, weights_only=True)
    assert last["epoch"] == 3, "the next epoch"
    rows = read_history(tmp_path / paths.HISTORY)
    assert last["best_prec1"] == max(row["test_top1"] for row in rows)
    assert previous_of(tmp_path / paths.CHECKPOINT).exists()


def test_best_checkpoint_is_the_first_of_the_best_epochs(tmp_path):
    outcome = _train(tmp_path, epochs=5, lr=0.5)
    tops = [row.test_top1 for row in outcome.history]
    best = read_checkpoint(tmp_path / paths.BEST_CHECKPOINT)
    assert best["epoch"] - 1 == outcome.best.epoch == tops.index(max(tops))
    assert best[RESUME_KEY]["row"]["test_top1"] == max(tops)


def test_missing_derived_files_come_back(tmp_path):
    _train(tmp_path)
    kept = {name: (tmp_path / name).read_bytes() for name in (paths.HISTORY, paths.BEST_CHECKPOINT)}
    for name in kept:
        (tmp_path / name).unlink()
    trainer = tiny_trainer(tmp_path)
    trainer.continue_from(load_latest(tmp_path / paths.CHECKPOINT))
    assert trainer.finished
    trainer.run(never)
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept


def test_rows_reach_the_history_once_and_after_the_checkpoint(tmp_path, monkeypatch):
    """A mirror of the history never shows an epoch that is trained again."""
    seen = []
    write = Trainer._write_history

    def note(trainer):
        write(trainer)
        rows = [json.loads(line)["epoch"] for line in (tmp_path / paths.HISTORY).read_text().splitlines()]
        assert rows == list(range(read_checkpoint(tmp_path / paths.CHECKPOINT)["epoch"]))
        seen.append(rows)

    monkeypatch.setattr(Trainer, "_write_history", note)
    tiny_trainer(tmp_path).run(never)
    assert seen == [[], [0], [0, 1], [0, 1, 2]]


def test_an_authors_checkpoint_gives_weights_momentum_epoch_and_best(tmp_path, caplog):
    _train(tmp_path / "ours", epochs=2)
    foreign = read_checkpoint(tmp_path / "ours" / paths.CHECKPOINT)
    del foreign[RESUME_KEY]
    foreign["state_dict"] = {f"module.{name}": value for name, value in foreign["state_dict"].items()}
    foreign["best_prec1"] = 99.0
    trainer = tiny_trainer(tmp_path / "continued", epochs=3)
    trainer.continue_from_foreign(foreign)
    assert "no random states" in caplog.text
    outcome = trainer.run(never)
    assert [row.epoch for row in outcome.history] == [2]
    assert read_checkpoint(tmp_path / "continued" / paths.BEST_CHECKPOINT)["best_prec1"] == 99.0
    with pytest.raises(CheckpointError, match="finished 2 epochs of 2"):
        tiny_trainer(tmp_path / "none", epochs=2).continue_from_foreign(foreign)


def test_momentum_of_another_network_is_refused(tmp_path):
    _train(tmp_path)
    foreign = read_checkpoint(tmp_path / paths.CHECKPOINT)
    foreign["optimizer"]["state"][0]["momentum_buffer"] = torch.zeros(2, 2)
    with pytest.raises(CheckpointError, match=r"momentum_buffer of shape \(2, 2\)"):
        tiny_trainer(tmp_path, epochs=4).continue_from_foreign(foreign)


def test_a_checkpoint_beyond_the_last_epoch_is_refused(tmp_path):
    _train(tmp_path)
    with pytest.raises(CheckpointError, match="finished 3 epochs, more than the 2"):
        tiny_trainer(tmp_path, epochs=2).continue_from(read_checkpoint(tmp_path / paths.CHECKPOINT))


def test_start_epoch_skips_the_epochs_before(tmp_path):
    outcome = _train(tmp_path, start_epoch=2)
    assert [row.epoch for row in outcome.history] == [2]
    assert outcome.history[0].tau == tau_at(2, 3, 0.85, 0.99)
    with pytest.raises(ConfigError, match="start_epoch is 3, expected 0 to 2"):
        tiny_trainer(tmp_path, start_epoch=3)


def test_a_single_image_left_over_is_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match="batch_size: 5 leaves one of 26 training images"):
        tiny_trainer(tmp_path, tiny_loaders(batch_size=5), batch_size=5)


def test_a_teacher_is_frozen_and_changes_the_loss(tmp_path):
    torch.manual_seed(11)
    teacher = TinyNet().to(CPU)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    taught = _train(tmp_path / "taught", teacher=teacher)
    alone = _train(tmp_path / "alone")
    assert same(before, dict(teacher.state_dict()))
    assert taught.history[0].train_loss != alone.history[0].train_loss


def test_bf16_is_another_training(tmp_path):
    exact, rounded = _train(tmp_path / "fp32"), _train(tmp_path / "bf16", precision="bf16")
    assert exact.history[0].train_loss != rounded.history[0].train_loss
    assert exact.history[0].train_loss == pytest.approx(rounded.history[0].train_loss, rel=0.05)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_tf32_is_allowed_within_a_training_step_that_asks_for_it_and_nowhere_else(precision):
    make_deterministic()
    network, loader = TinyNet(), tiny_loaders().train
    optimizer, seen = build_optimizer(network, "sgd", 0.01, 0.9, 0.0, "all"), []

    def look(*_: object) -> None:
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))

    network.conv1.register_forward_hook(look)
    network.conv1.weight.register_hook(look)
    steps = train_steps(network, loader, optimizer, RunningSums(CPU), epoch=0, precision=precision)
    next(steps)
    look()
    allowed = (precision == "tf32",) * 2
    assert seen == [allowed, allowed, (False, False)]


def test_saving_keeps_the_checkpoint_before(tmp_path):
    file = tmp_path / paths.CHECKPOINT
    for epoch in (1, 2):
        save_checkpoint(file, {"epoch": epoch, "state_dict": {"weight": torch.ones(2)}})
    assert read_checkpoint(file)["epoch"] == 2
    assert read_checkpoint(previous_of(file))["epoch"] == 1


def test_a_position_inside_an_epoch_holds_for_the_same_batches_only(tmp_path, caplog):
    """Stopped at batch 8, continued at 4: the epoch begins anew from its start, and every image is seen once."""
    for save_every_seconds, asked in ((0, 6), (600, 6), (0, 1)):
        folder = tmp_path / f"{save_every_seconds}-{asked}"
        with pytest.raises(Interrupted):
            tiny_trainer(folder, save_every_seconds=save_every_seconds).run(StopAfter(asked))
        stopped = load_latest(folder / paths.CHECKPOINT)
        assert stopped[RESUME_KEY]["position"] is not None
        loaders = tiny_loaders(batch_size=4)
        state = usable_state(stopped, folder / paths.CHECKPOINT, tiny_validity(loaders))
        assert state[RESUME_KEY]["position"] is None and state["epoch"] == stopped["epoch"]
        assert f"epoch {stopped['epoch'] + 1} begins anew" in caplog.text and "batch_size 8 -> 4" in caplog.text
        continued = tiny_trainer(folder, loaders, batch_size=4)
        continued.continue_from(state, in_place=False)
        outcome = continued.run(never)
        assert loaders.train.asked == [(epoch, 0) for epoch in range(stopped["epoch"], 3)]
        assert [row.epoch for row in outcome.history] == [0, 1, 2]
        assert not any(row.train_skipped for row in outcome.history)
        assert not start_of(folder / paths.CHECKPOINT).exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 9),
        ("seed", 4),
        ("augmentation", "crop"),
        ("loader", "torchvision"),
        ("skip_unreadable", True),
        ("data_fingerprint", "e" * 64),
        ("num_images", 27),
        ("world_size", 2),
        ("recipe", {"lr": 0.2}),
    ],
)
def test_what_a_position_is_valid_for(tmp_path, name, value):
    with pytest.raises(Interrupted):
        tiny_trainer(tmp_path).run(StopAfter(1))
    file, validity = tmp_path / paths.CHECKPOINT, tiny_validity(tiny_loaders())
    assert usable_state(read_checkpoint(file), file, validity)[RESUME_KEY]["position"]["step"] == 2
    other, changed = replace(validity, **{name: value}), "lr 0.1 -> 0.2" if name == "recipe" else name
    assert usable_state(read_checkpoint(file), file, other)[RESUME_KEY]["position"] is None
    start_of(file).write_bytes(b"another training's")
    with pytest.raises(CheckpointError, match=rf"stopped inside epoch 1, .*\({changed}.* is not there"):
        usable_state(read_checkpoint(file), file, other)


def test_an_epoch_that_begins_anew_can_be_interrupted_again(tmp_path):
    folder, whole = tmp_path / "parts", tmp_path / "whole"
    loaders = tiny_loaders(batch_size=4)
    with pytest.raises(Interrupted):
        tiny_trainer(folder, save_every_seconds=0).run(StopAfter(2))
    state = usable_state(load_latest(folder / paths.CHECKPOINT), folder / paths.CHECKPOINT, tiny_validity(loaders))
    again = tiny_trainer(folder, loaders, batch_size=4)
    again.continue_from(state, in_place=False)
    with pytest.raises(Interrupted):
        again.run(StopAfter(3))
    # What is kept is the start of the epoch, and not the batches of 8 that came between.
    start = read_checkpoint(start_of(folder / paths.CHECKPOINT))
    assert start[RESUME_KEY]["position"] is None and start["epoch"] == 0
    last = tiny_trainer(folder, tiny_loaders(batch_size=4), batch_size=4)
    last.continue_from(load_latest(folder / paths.CHECKPOINT))
    last.run(never)
    _train(whole, loaders=tiny_loaders(batch_size=4), batch_size=4)
    _assert_same_result(whole, folder)


def test_a_kept_start_goes_with_a_training_into_another_folder(tmp_path):
    source, target = tmp_path / "a" / paths.CHECKPOINT, tmp_path / "b" / paths.CHECKPOINT
    with pytest.raises(Interrupted):
        tiny_trainer(source.parent).run(StopAfter(1))
    target.parent.mkdir()
    carry_start(source, target)
    assert start_of(target).read_bytes() == start_of(source).read_bytes()
    start_of(source).unlink()
    carry_start(source, target)


def test_the_start_of_an_epoch_is_kept_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr("os.link", refuse)
    with pytest.raises(Interrupted):
        tiny_trainer(tmp_path).run(StopAfter(1))
    assert read_checkpoint(start_of(tmp_path / paths.CHECKPOINT))[RESUME_KEY]["position"] is None


def test_a_checkpoint_removed_meanwhile_stops_no_training(tmp_path):
    def remove(row):
        if row.epoch == 0:
            (tmp_path / paths.CHECKPOINT).unlink()

    with pytest.raises(Interrupted):
        after_each_epoch(tiny_trainer(tmp_path), remove).run(StopAfter(9))
    file = tmp_path / paths.CHECKPOINT
    with pytest.raises(CheckpointError, match="is not there"):
        usable_state(read_checkpoint(file), file, tiny_validity(tiny_loaders(batch_size=4)))


class _Unreadable(TinyLoader):
    """Batches 1, 2 and 3 of the first epoch lose their first image, all but one, and all."""

    def batches(self, epoch, start=0):
        lost = {1: 1, 2: 7, 3: 2} if epoch == 0 else {}
        for step, (images, labels) in enumerate(super().batches(epoch, start), start):
            yield images[lost.get(step, 0) :], labels[lost.get(step, 0) :]


@pytest.mark.parametrize("asked", [None, 1, 2])
def test_images_that_are_not_seen_are_counted_with_why(tmp_path, asked, caplog):
    loaders = TinyLoaders(_Unreadable(), tiny_loaders().test)
    trainer = tiny_trainer(tmp_path, loaders, skip_unreadable=True)
    if asked is not None:
        with pytest.raises(Interrupted):
            trainer.run(StopAfter(asked))
        trainer = tiny_trainer(tmp_path, TinyLoaders(_Unreadable(), tiny_loaders().test), skip_unreadable=True)
        trainer.continue_from(load_latest(tmp_path / paths.CHECKPOINT))
    history = trainer.run(never).history
    assert [(row.train_skipped, row.train_left_out) for row in history] == [(10, 1), (0, 0), (0, 0)]
    assert ["train_left_out" in row.as_plain() for row in history] == [True, False, False]
    assert "epoch 1, batch 3: its one readable image is left out" in caplog.text
    if asked is not None:
        _train(tmp_path / "whole", loaders=TinyLoaders(_Unreadable(), tiny_loaders().test), skip_unreadable=True)
        _assert_same_result(tmp_path / "whole", tmp_path)


def test_images_that_nobody_accounts_for_stop_the_training(tmp_path):
    class Fewer(TinyLoader):
        def batches(self, epoch, start=0):
            yield from list(super().batches(epoch, start))[:-1]

    with pytest.raises(DataError, match="epoch 1 saw 24 of 26 training images, 0 unreadable and 0 left out"):
        tiny_trainer(tmp_path, TinyLoaders(Fewer(), tiny_loaders().test)).run(never)

    class Nothing(TinyLoader):
        def batches(self, epoch, start=0):
            yield from ((images[:0], labels[:0]) for images, labels in super().batches(epoch, start))

    with pytest.raises(DataError, match="epoch 1 saw none of 26 training images, 26 of them are unreadable"):
        tiny_trainer(tmp_path, TinyLoaders(Nothing(), tiny_loaders().test)).run(never)


def test_segments_say_what_trained_which_epochs(tmp_path):
    def identity(name):
        said = f'{{"name":"{name}"}}'
        return {"experiment": said, "spec_hash": name * 16, "provenance": tiny_provenance(name * 64)}

    def pieces(segments):
        return [
            (each.from_epoch, each.to_epoch, json.loads(each.experiment)["name"], each.spec_hash) for each in segments
        ]

    def continued(name, **more):
        trainer = tiny_trainer(tmp_path, identity=identity(name), **more)
        trainer.continue_from(load_latest(tmp_path / paths.CHECKPOINT))
        return trainer

    # Four training steps and four evaluation steps an epoch: a is stopped inside epoch 1, b inside epoch 1 too.
    with pytest.raises(Interrupted):
        tiny_trainer(tmp_path, identity=identity("a")).run(StopAfter(9))
    with pytest.raises(Interrupted):
        continued("b").run(StopAfter(0))
    outcome = continued("c").run(never)
    expected = [(0, 1, "a", "a" * 16), (1, 1, "b", "b" * 16), (1, 2, "c", "c" * 16)]
    assert pieces(outcome.segments) == expected
    assert outcome.segments[0].provenance == tiny_provenance("a" * 64)
    # Nothing is trained, so nothing is added.
    assert pieces(continued("d").run(never).segments) == expected
    assert pieces(continued("e", epochs=4).run(never).segments) == [*expected, (3, 3, "e", "e" * 16)]


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 1e38), ("adam", 1e38)])
def test_a_rate_that_single_precision_cannot_hold_ends_in_one_line(tmp_path, optimizer, lr):
    with pytest.raises(DivergenceError, match=r"at epoch 1, step \d, learning rate 1e\+38; the last good state"):
        tiny_trainer(tmp_path, optimizer=optimizer, lr=lr).run(never)


def test_a_job_whose_time_ends_in_the_evaluation_again_is_told_so(tmp_path):
    """Each such job would evaluate the same images in vain, and never get further."""

    def run(times, reason):
        trainer = tiny_trainer(tmp_path)
        if (checkpoint := load_latest(tmp_path / paths.CHECKPOINT)) is not None:
            trainer.continue_from(checkpoint)
        stop = StopAfter(times)
        stop.reason = reason
        trainer.run(stop)

    steps = tiny_loaders().train.num_batches
    with pytest.raises(Interrupted, match=f"stopped by the time limit in epoch 1 after {steps} of {steps} steps"):
        run(steps, TIME_LIMIT)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        run(0, "SIGTERM")
    with pytest.raises(ConfigError, match=r"within the evaluation of epoch 1, .* give it more time"):
        run(0, TIME_LIMIT)
    with pytest.raises(Interrupted, match=f"in epoch 2 after {steps} of"):
        run(4 + steps, TIME_LIMIT)
