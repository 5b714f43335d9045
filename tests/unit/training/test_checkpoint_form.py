"""Values of another form than this program writes are one line, wherever they stand."""

import copy

import pytest
import torch

from recu.base.errors import CheckpointError
from recu.experiment import paths
from recu.training.checkpoint import RESUME_KEY, load_latest, read_checkpoint
from tests.unit.training.tiny import StopAfter, never, tiny_trainer

NAN, HUGE = float("nan"), 10**400


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two of three epochs done, and stopped in the third."""
    folder = tmp_path_factory.mktemp("training")
    trainer = tiny_trainer(folder)
    with pytest.raises(Exception, match="stopped"):
        trainer.run(StopAfter(18))
    checkpoint = read_checkpoint(folder / paths.CHECKPOINT)
    assert len(checkpoint[RESUME_KEY]["history"]) == 2 and checkpoint[RESUME_KEY]["position"]["step"] > 0
    return checkpoint


def change(checkpoint, where, value):
    """A copy with another value at a place such as "recu.history.0.lr"; `DELETE` takes it away."""
    changed = copy.deepcopy(checkpoint)
    *path, last = [int(part) if part.isdecimal() else part for part in where.split("/")]
    holder = changed
    for part in path:
        holder = holder[part]
    if value is DELETE:
        del holder[last]
    else:
        holder[last] = value
    return changed


def nested(depth):
    return [nested(depth - 1)] if depth else 1


DELETE = object()
WRONG = {
    "recu": ["text", None, [], {}],
    "recu/experiment": [DELETE, 3, "{", "[]", "[" * 100_000],
    "recu/spec_hash": [DELETE, 3],
    "recu/data_fingerprint": [DELETE, None, torch.zeros(3)],
    "recu/seed": [DELETE, -1, "1", True, HUGE],
    "recu/format": [DELETE, "1"],
    "recu/history": [DELETE, [1], [], {}, "text", [{}]],
    "recu/history/0": [1, None, {"epoch": 0}],
    "recu/history/0/epoch": [1, -1, "0", HUGE, True],
    "recu/history/0/test_top1": [DELETE, NAN, "high", -1.0, 101.0, torch.zeros(3)],
    "recu/history/1/train_loss": [DELETE, NAN, float("inf"), None],
    "recu/history/1/time": [DELETE, HUGE, 0.5, -1],
    "recu/position": [5, "text", {}, {"step": "a"}],
    "recu/position/step": [-5, "a", 1.5, HUGE, True],
    "recu/position/seconds": [-1.0, NAN, "a", None],
    "recu/position/sums": [None, {}, {"sums": torch.zeros(3, dtype=torch.float64)}],
    "recu/position/sums/n": [DELETE, -1, "a", HUGE],
    "recu/position/sums/sums": [
        torch.zeros(3),
        torch.zeros(4, dtype=torch.float64),
        torch.full((3,), NAN, dtype=torch.float64),
        torch.full((3,), -1, dtype=torch.float64),
        [0, 0, 0],
    ],
    "recu/position/sums/unreadable": [DELETE, -1, "a"],
    "recu/position/valid_for": [DELETE, None, "a"],
    "recu/position/start": [DELETE, None, 3],
    "recu/position/positive_at_start": [None, 3, ["conv2"], {"conv2": [1]}],
    "recu/position/positive_at_start/conv2": [torch.zeros(18), torch.zeros(2, 9, dtype=torch.uint8)],
    "recu/diagnostics": [None, 3, "text", [1], ["{"], ["{}"], ["[" * 100_000], [{}]],
    "recu/diagnostics/0": [1, None, "null", '{"epoch":0}'],
    "recu/segments/0/from_epoch": [DELETE, -1, "a"],
    "recu/segments/0/provenance": [DELETE, 3],
    "recu/origins": [3, {"x": {1, 2}}],
    "recu/train_seconds": [DELETE, -1.0, NAN, "a"],
    "recu/earlier_best": ["a", NAN, -3.0, 1e9],
    "recu/best_checkpoint": [None, 3, {}],
    "recu/best_checkpoint/epoch": [-1, "a", HUGE],
    "recu/best_checkpoint/recu": [DELETE, None, {}],
    "recu/best_checkpoint/recu/row": [DELETE, {}, 3],
    "recu/best_checkpoint/recu/row/test_top1": [99.0, "a"],
    "recu/best_checkpoint/state_dict": [None, {}, {"weight": torch.zeros(3)}],
    "recu/best_checkpoint/state_dict/conv1.weight": [torch.zeros(3), torch.full((4, 3, 3, 3), NAN), 1.0],
    "recu/best_checkpoint/extra": [nested(30), {1, 2}],
    "recu/random": [None, {}, 3],
    "recu/random/python": [
        None,
        (3, (1, 2), None),
        (2, (1,) * 625, None),
        (3, (-1,) * 625, None),
        (3, (1,) * 624 + (625,), None),
        (3, (1,) * 625, "a"),
    ],
    "recu/random/numpy": [None, {}, {"bit_generator": "PCG64"}],
    "recu/random/numpy/key": [torch.zeros(624), torch.full((624,), -1), torch.zeros(3, dtype=torch.int64)],
    "recu/random/numpy/pos": [625, -1, "a", HUGE],
    "recu/random/numpy/gauss": [NAN, "a"],
    "recu/random/torch": [torch.zeros(3, dtype=torch.uint8), torch.zeros(5056), None],
    "recu/random/cuda": [None, [1], [torch.zeros(3)]],
    "recu/segments": [DELETE, 3, ["a"], [{}]],
    "epoch": [DELETE, -1, "a", 1.5, HUGE, 7, True],
    "best_prec1": [DELETE, NAN, "high", torch.zeros(3)],
    "best_prec5": [NAN, 101.0],
    "model": [DELETE, 3],
    "recu/row": [3, {}, {"test_top1": NAN}],
}


def same_name(value):
    return "deleted" if value is DELETE else repr(value).replace(chr(10), " ")[:30]


CASES = [
    pytest.param(where, value, id=f"{where}-{same_name(value)}") for where, values in WRONG.items() for value in values
]


@pytest.mark.parametrize(("where", "value"), CASES)
def test_a_value_of_another_form_is_refused_by_its_name(tmp_path, written, where, value):
    torch.save(change(written, where, value), tmp_path / "file.pth.tar")
    with pytest.raises(CheckpointError, match=r"file\.pth\.tar is damaged or was altered: ") as raised:
        read_checkpoint(tmp_path / "file.pth.tar")
    message = str(raised.value)
    assert "\n" not in message and len(message) < 400
    assert where.split("/")[0] in message


OPTIMIZERS = {
    "none": None,
    "text": "a",
    "no groups": {"state": {}},
    "groups of text": {"state": {}, "param_groups": "ab"},
    "no params": {"state": {}, "param_groups": [{}]},
    "params of text": {"state": {}, "param_groups": [{"params": ["a"]}]},
    "no state": {"param_groups": [{"params": [0]}]},
}
FIRST = "optimizer/state/0/momentum_buffer"
SLOTS = [
    ("optimizer/state/0", 3),
    ("optimizer/state/0", {"exp_avg": torch.zeros(4, 3, 3, 3)}),
    (FIRST, "a"),
    (FIRST, torch.zeros(())),
    (FIRST, torch.zeros(2, 2)),
    (FIRST, torch.full((4, 3, 3, 3), NAN)),
    (FIRST, torch.zeros(4, 3, 3, 3, dtype=torch.int64)),
    (FIRST, torch.zeros(4, 3, 3, 3).to_sparse()),
    (FIRST, torch.empty(4, 3, 3, 3, device="meta")),
]


@pytest.mark.parametrize(
    ("where", "value"), [("optimizer", value) for value in OPTIMIZERS.values()] + SLOTS, ids=same_name
)
def test_what_an_optimiser_keeps_must_be_of_its_form_and_of_the_network(tmp_path, written, where, value):
    torch.save(change(written, where, value), tmp_path / "file.pth.tar")
    checkpoint = read_checkpoint(tmp_path / "file.pth.tar")
    for take in ("continue_from", "continue_from_foreign"):
        with pytest.raises(CheckpointError, match="the checkpoint's optimizer") as raised:
            getattr(tiny_trainer(tmp_path / take), take)(checkpoint)
        assert "\n" not in str(raised.value)


def adam(written, **changes):
    """The same with Adam's slots."""
    changed = copy.deepcopy(written)
    for slots in changed["optimizer"]["state"].values():
        momentum = slots.pop("momentum_buffer")
        slots |= {"step": torch.tensor(7.0), "exp_avg": momentum, "exp_avg_sq": momentum.abs()} | changes
    return changed


@pytest.mark.parametrize("step", [torch.tensor(7.0), 7, 7.0])
def test_adams_slots_are_taken(tmp_path, written, step):
    trainer = tiny_trainer(tmp_path, optimizer="adam", lr=0.001)
    trainer.continue_from_foreign(adam(written, step=step) | {"epoch": 2})
    assert len(trainer.run(never).history) == 1


@pytest.mark.parametrize("changes", [{"step": -1.0}, {"step": NAN}, {"step": "a"}, {"step": torch.zeros(3)}])
def test_adams_steps_are_a_count(tmp_path, written, changes):
    with pytest.raises(CheckpointError, match="optimizer has a step"):
        tiny_trainer(tmp_path, optimizer="adam").continue_from_foreign(adam(written, **changes) | {"epoch": 2})


def test_momenta_of_another_optimiser_are_refused(tmp_path, written):
    with pytest.raises(CheckpointError, match="keeps momentum_buffer, expected step, exp_avg, exp_avg_sq"):
        tiny_trainer(tmp_path, optimizer="adam").continue_from(written)
    with pytest.raises(CheckpointError, match=r"groups of .* parameters, expected .* weight_decay_groups"):
        tiny_trainer(tmp_path, weight_decay_groups="imagenet").continue_from(written)


@pytest.mark.parametrize("best", ["high", torch.zeros(3), NAN, -1.0, 101, [1]])
def test_the_best_of_a_foreign_file_must_be_a_percentage(tmp_path, written, best):
    foreign = {key: value for key, value in written.items() if key != RESUME_KEY} | {"epoch": 1, "best_prec1": best}
    with pytest.raises(CheckpointError, match="best_prec1 is "):
        tiny_trainer(tmp_path).continue_from_foreign(foreign)


@pytest.mark.parametrize("best", [None, 61, 61.5, torch.tensor(61.5), torch.tensor([61.5])])
def test_the_best_of_a_foreign_file_may_be_any_single_number(tmp_path, written, best):
    foreign = {key: value for key, value in written.items() if key != RESUME_KEY} | {"epoch": 2, "best_prec1": best}
    trainer = tiny_trainer(tmp_path)
    trainer.continue_from_foreign(foreign)
    assert len(trainer.run(never).history) == 1


@pytest.mark.parametrize("epoch", [None, "1", -1, 1.5, True])
def test_the_epoch_of_a_foreign_file_must_be_a_count(tmp_path, written, epoch):
    with pytest.raises(CheckpointError, match="it has no `epoch`"):
        tiny_trainer(tmp_path).continue_from_foreign(written | {"epoch": epoch})


def test_more_steps_than_an_epoch_has(tmp_path, written):
    with pytest.raises(CheckpointError, match="has done 100 steps of an epoch of 4"):
        tiny_trainer(tmp_path).continue_from(change(written, "recu/position/step", 100))


def test_a_file_that_repeats_itself_without_end_is_refused(tmp_path, written):
    laughs = [1]
    for _ in range(15):
        laughs = [laughs] * 1000
    torch.save(change(written, "recu/best_checkpoint/extra", laughs), tmp_path / "file.pth.tar")
    with pytest.raises(CheckpointError, match="expected at most 1000000 values"):
        read_checkpoint(tmp_path / "file.pth.tar")


def test_a_state_of_another_form_falls_back_to_the_one_before(tmp_path, written):
    torch.save(written, tmp_path / "checkpoint.previous.pth.tar")
    torch.save(change(written, "recu/history", [1]), tmp_path / "checkpoint.pth.tar")
    assert load_latest(tmp_path / "checkpoint.pth.tar")["epoch"] == 2
