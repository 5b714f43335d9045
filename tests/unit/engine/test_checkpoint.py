"""Checkpoint files: whole or refused in one line, and never half taken."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from recu.engine.checkpoint import (
    STAGE_2_ONLY,
    load_latest,
    load_weights,
    previous_of,
    read_checkpoint,
    save_checkpoint,
    write_checkpoint,
)
from recu.errors import CheckpointError, OutputError
from recu.models import build_model


def _network(name="resnet20_1w1a", **more):
    return build_model(name, **({"family": "cifar", "num_classes": 10} | more))


def _checkpoint(epoch=1):
    return {"epoch": epoch, "state_dict": {"weight": torch.arange(3.0)}, "best_prec1": 61.5}


def _equal(model, state_dict):
    return all(torch.equal(value, state_dict[name]) for name, value in model.state_dict().items())


def test_all_weights_are_taken():
    source, target = _network(), _network()
    report = load_weights(target, source.state_dict())
    assert (report.expected, report.taken, report.missing, report.unexpected) == (157, 157, (), ())
    assert str(report) == "157 of 157 tensors taken, 0 missing, 0 unexpected"
    assert _equal(target, source.state_dict())


def test_module_prefix_and_both_shapes_of_tau_are_accepted():
    source, target = _network(), _network()
    saved = {f"module.{name}": value for name, value in source.state_dict().items()}
    saved["module.layer1.0.conv1.tau"] = torch.tensor([0.93])
    assert load_weights(target, saved).taken == 157
    assert target.state_dict()["layer1.0.conv1.tau"] == pytest.approx(0.93)


def test_missing_tensors_are_listed_and_nothing_is_taken():
    target = _network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    saved = _network().state_dict()
    del saved["linear.bias"], saved["layer2.1.bn1.weight"]
    with pytest.raises(CheckpointError, match=r"157 tensors expected: 2 missing \(layer2.1.bn1.weight, linear.bias\)"):
        load_weights(target, saved)
    assert _equal(target, before)


def test_another_number_of_classes_names_the_shapes():
    with pytest.raises(CheckpointError, match=r"linear.weight \(100, 64\) for \(10, 64\)"):
        load_weights(_network(), _network(num_classes=100).state_dict())


def test_a_deeper_network_of_the_same_names_is_another_network():
    deeper = _network("resnet34_1w1a").state_dict()
    with pytest.raises(CheckpointError, match=r"of no layer of this network \(layer1.2.conv1.weight"):
        load_weights(_network("resnet18_1w1a"), deeper)


def test_counters_of_a_profiler_are_reported_and_harmless():
    saved = _network().state_dict() | {"total_ops": torch.zeros(1)}
    assert load_weights(_network(), saved).unexpected == ("total_ops",)


@pytest.mark.parametrize("stage", [0, 1])
def test_an_earlier_stage_may_lack_alpha_and_tau_only_where_that_is_said(stage):
    earlier = _network("resnet18_1w1a", family="reactnet", stage=stage).state_dict()
    target = _network("resnet18_1w1a", family="reactnet")
    with pytest.raises(CheckpointError, match="missing"):
        load_weights(target, earlier)
    report = load_weights(target, earlier, allow_missing=STAGE_2_ONLY)
    assert report.taken == len(earlier) and report.taken + len(report.missing) == report.expected
    assert {name.rpartition(".")[2] for name in report.missing} == {"alpha", "tau"}


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_both_formats_are_read(tmp_path, zip_format):
    file = tmp_path / "file.pth.tar"
    torch.save(_checkpoint(), file, _use_new_zipfile_serialization=zip_format)
    assert read_checkpoint(file)["best_prec1"] == 61.5


def test_bare_weights_are_read(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.pth")
    assert list(read_checkpoint(tmp_path / "weights.pth")["state_dict"]) == ["weight"]


class _Malicious:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_code_in_a_checkpoint_does_not_run(tmp_path, capsys, zip_format):
    file = tmp_path / "bad.pth.tar"
    torch.save(_checkpoint() | {"extra": _Malicious()}, file, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(CheckpointError, match=r"could run code|damaged or not a checkpoint") as raised:
        read_checkpoint(file)
    assert "\n" not in str(raised.value) and "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint",
        b"PK\x03\x04 broken",
        pickle.dumps({"state_dict": 3}),
        pickle.dumps([1, 2, 3]),
        bytes(range(256)) * 40,
    ],
)
def test_what_is_no_checkpoint_is_one_line(tmp_path, content):
    file = tmp_path / "file.pth.tar"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"file\.pth\.tar") as raised:
        read_checkpoint(file)
    assert "\n" not in str(raised.value)


def test_a_missing_file_and_a_folder_are_one_line(tmp_path):
    for path in (tmp_path / "none.pth.tar", tmp_path):
        with pytest.raises(CheckpointError, match="cannot read"):
            read_checkpoint(path)


def test_no_state_dict_is_not_a_checkpoint(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "file.pth.tar")
    with pytest.raises(CheckpointError, match="is not a checkpoint: expected a dict with a `state_dict`"):
        read_checkpoint(tmp_path / "file.pth.tar")


def test_truncation_anywhere_and_flipped_bits_in_tensors_are_found(tmp_path):
    file = tmp_path / "file.pth.tar"
    weights = torch.randn(1000)
    write_checkpoint(file, {"epoch": 1, "state_dict": {"weight": weights}})
    whole = file.read_bytes()
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(file)
    first = whole.index(weights.numpy().tobytes())
    for position in range(first, first + 4000, 397):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        file.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="is damaged: the checksum"):
            read_checkpoint(file)


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_stays_aside(tmp_path, caplog):
    file = tmp_path / "checkpoint.pth.tar"
    for epoch in (1, 2):
        save_checkpoint(file, _checkpoint(epoch))
    file.write_bytes(file.read_bytes()[:-50])
    assert load_latest(file)["epoch"] == 1
    assert "continuing from the checkpoint before it" in caplog.text
    save_checkpoint(file, _checkpoint(2))
    assert read_checkpoint(previous_of(file))["epoch"] == 1, "the damaged file must not replace the whole one"
    assert (tmp_path / "checkpoint.damaged.pth.tar").exists()


def test_killed_between_the_two_renames(tmp_path):
    file = tmp_path / "checkpoint.pth.tar"
    save_checkpoint(file, _checkpoint(1))
    file.replace(previous_of(file))
    assert load_latest(file)["epoch"] == 1


def test_nothing_there_and_nothing_whole(tmp_path):
    file = tmp_path / "checkpoint.pth.tar"
    assert load_latest(file) is None
    file.write_bytes(b"rubbish")
    with pytest.raises(CheckpointError):
        load_latest(file)
    assert file.exists(), "the only file is never moved"


def test_a_full_disk_leaves_the_checkpoint_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "checkpoint.pth.tar"
    save_checkpoint(file, _checkpoint(1))
    before = file.read_bytes()

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_checkpoint(file, _checkpoint(2))
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_disk_that_fills_up_while_writing_is_one_line(tmp_path, monkeypatch):
    open_descriptor = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *arguments: open_descriptor(os.open("/dev/full", os.O_WRONLY), "wb"))
    with pytest.raises(OutputError, match="No space left on device"):
        write_checkpoint(tmp_path / "file.pth.tar", {"state_dict": {"weight": torch.randn(100_000)}})


def test_equal_content_gives_equal_bytes(tmp_path):
    write_checkpoint(tmp_path / "a", _checkpoint())
    write_checkpoint(tmp_path / "b", read_checkpoint(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_authors_checkpoint(shared_data):
    checkpoint = read_checkpoint(shared_data / "authors-format-resnet20-10ep.pth.tar")
    assert (checkpoint["epoch"], checkpoint["best_prec1"]) == (10, 61.69)
    assert load_weights(_network(), checkpoint["state_dict"]).taken == 157
