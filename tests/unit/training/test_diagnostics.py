"""The binary layers measured after each epoch: right after any interruption, and without a trace in the training."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from recu.base.errors import CheckpointError, Interrupted
from recu.base.files import hash_file
from recu.experiment import paths
from recu.experiment.running import Running
from recu.results.records import EpochWeights, as_record
from recu.training.checkpoint import RESUME_KEY, load_latest, save_checkpoint
from recu.training.diagnostics import WeightDiagnostics, has_histograms
from tests.unit.training.tiny import StopAfter, after_each_epoch, never, same, tiny_trainer


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / paths.DIAGNOSTICS).read_text().splitlines()]


def signs_of(trainer) -> torch.Tensor:
    weight = trainer._model.conv2.weight.detach()
    return weight - weight.mean((1, 2, 3), keepdim=True) > 0


def test_flips_are_counted_from_epoch_to_epoch(tmp_path):
    trainer = tiny_trainer(tmp_path, lr=0.5, epochs=4)
    signs = [signs_of(trainer)]
    outcome = after_each_epoch(trainer, lambda _row: signs.append(signs_of(trainer))).run(never)
    expected = [(now != before).double().mean().item() for before, now in itertools.pairwise(signs)]
    assert any(expected)
    assert [each.flipped_share for each in outcome.diagnostics] == [(pytest.approx(share),) for share in expected]
    assert [each.epoch for each in outcome.diagnostics] == [0, 1, 2, 3]
    assert all(each.layers == ("conv2",) and each.weights == (144,) for each in outcome.diagnostics)
    assert [as_record(line, EpochWeights) for line in lines(tmp_path)] == list(outcome.diagnostics)


def test_histograms_of_the_first_the_middle_and_the_last_epoch(tmp_path):
    outcome = tiny_trainer(tmp_path, epochs=5).run(never)
    with_histograms = [each for each in outcome.diagnostics if each.limit]
    assert [each.epoch for each in with_histograms] == [0, 2, 4]
    assert all(sum(counts) == 144 for each in with_histograms for counts in (*each.before, *each.after))
    assert [epoch for epoch in range(600) if has_histograms(epoch, 600)] == [0, 299, 599]
    assert [has_histograms(0, 1), has_histograms(1, 2)] == [True, True]


@pytest.mark.parametrize("asked", [0, 2, 6, 9, 14])
def test_a_stop_anywhere_changes_no_line(tmp_path, asked):
    tiny_trainer(tmp_path / "whole", lr=0.5).run(never)
    folder = tmp_path / "parts"
    with pytest.raises(Interrupted):
        tiny_trainer(folder, lr=0.5).run(StopAfter(asked))
    continued = tiny_trainer(folder, lr=0.5)
    continued.continue_from(load_latest(folder / paths.CHECKPOINT))
    outcome = continued.run(never)
    assert (folder / paths.DIAGNOSTICS).read_bytes() == (tmp_path / "whole" / paths.DIAGNOSTICS).read_bytes()
    assert len(outcome.diagnostics) == 3 and None not in [each.flipped_share[0] for each in outcome.diagnostics]


def test_a_line_that_was_lost_or_altered_is_written_again(tmp_path):
    with pytest.raises(Interrupted):
        tiny_trainer(tmp_path).run(StopAfter(14))
    file = tmp_path / paths.DIAGNOSTICS
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    continued = tiny_trainer(tmp_path)
    continued.continue_from(load_latest(tmp_path / paths.CHECKPOINT))
    with pytest.raises(Interrupted):
        continued.run(StopAfter(0))
    assert file.read_bytes() == whole


def test_signs_that_are_not_in_the_checkpoint_are_unknown_for_that_epoch_alone(tmp_path):
    with pytest.raises(Interrupted):
        tiny_trainer(tmp_path).run(StopAfter(10))
    checkpoint = load_latest(tmp_path / paths.CHECKPOINT)
    position = checkpoint[RESUME_KEY]["position"]
    assert position["step"] and position.pop("positive_at_start").keys() == {"conv2"}
    continued = tiny_trainer(tmp_path)
    continued.continue_from(checkpoint)
    flipped = [each.flipped_share[0] for each in continued.run(never).diagnostics]
    assert flipped[1] is None and None not in (flipped[0], flipped[2])


def test_signs_of_another_network_are_refused(tmp_path):
    with pytest.raises(Interrupted):
        tiny_trainer(tmp_path).run(StopAfter(10))
    checkpoint = load_latest(tmp_path / paths.CHECKPOINT)
    checkpoint[RESUME_KEY]["position"]["positive_at_start"]["conv2"] = torch.zeros(5, dtype=torch.uint8)
    with pytest.raises(CheckpointError, match="the signs of conv2 are not those of 144 weights"):
        tiny_trainer(tmp_path).continue_from(checkpoint)


def test_a_checkpoint_from_before_there_were_any(tmp_path):
    with pytest.raises(Interrupted):
        tiny_trainer(tmp_path).run(StopAfter(9))
    checkpoint = load_latest(tmp_path / paths.CHECKPOINT)
    del checkpoint[RESUME_KEY]["diagnostics"]
    save_checkpoint(tmp_path / paths.CHECKPOINT, checkpoint)
    continued = tiny_trainer(tmp_path)
    continued.continue_from(load_latest(tmp_path / paths.CHECKPOINT))
    assert [each.epoch for each in continued.run(never).diagnostics] == [1, 2]


def test_measuring_changes_no_bit_of_the_training(tmp_path):
    outcomes = {}
    for measured in (True, False):
        trainer = tiny_trainer(tmp_path / str(measured), running=Running(bar=False, diagnostics=measured))
        outcomes[measured] = trainer.run(never)
    assert len(outcomes[True].diagnostics) == 3 and outcomes[False].diagnostics == ()
    assert not (tmp_path / "False" / paths.DIAGNOSTICS).exists()
    assert len({hash_file(tmp_path / str(each) / paths.BEST_CHECKPOINT) for each in outcomes}) == 1
    first, second = (load_latest(tmp_path / str(each) / paths.CHECKPOINT) for each in outcomes)
    assert all(same(first[part], second[part]) for part in ("state_dict", "optimizer"))
    assert same(first[RESUME_KEY]["random"], second[RESUME_KEY]["random"])


def test_a_network_of_real_weights_has_nothing_to_measure():
    assert WeightDiagnostics(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))).measured(0, histograms=True) is None


def test_signs_travel_in_bits():
    from tests.unit.training.tiny import TinyNet

    torch.manual_seed(1)
    noted, empty = (WeightDiagnostics(TinyNet()) for _ in range(2))
    noted.begin()
    packed = noted.packed_start()
    assert {name: value.numel() for name, value in packed.items()} == {"conv2": 18}
    empty.continue_epoch(packed)
    assert torch.equal(empty._start["conv2"], noted._start["conv2"])


def test_histograms_count_weights_that_a_layer_brings_to_larger_values(monkeypatch):
    from recu.binarisers import recu

    plain = recu.BinaryConv2d.latent_weights
    monkeypatch.setattr(
        recu.BinaryConv2d, "latent_weights", lambda self: plain(self)._replace(after=3 * plain(self).before)
    )
    found = WeightDiagnostics(torch.nn.Sequential(recu.BinaryConv2d(2, 3, 3))).measured(0, histograms=True)
    assert (sum(found.before[0]), sum(found.after[0])) == (54, 54)


def test_a_file_of_a_removed_training_does_not_stay(tmp_path):
    tiny_trainer(tmp_path).run(never)
    for file in tmp_path.glob("*.pth.tar"):
        file.unlink()
    tiny_trainer(tmp_path, running=Running(diagnostics=False)).run(never)
    assert (tmp_path / paths.HISTORY).exists() and not (tmp_path / paths.DIAGNOSTICS).exists()
