"""Checkpoint files: whole or refused in one line, in every form that is found in public."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from recu.base.errors import CheckpointError, OutputError
from recu.base.files import hash_file
from recu.experiment import paths
from recu.training import checkpoint
from recu.training.checkpoint import (
    free_state,
    load_latest,
    open_checkpoint,
    previous_of,
    read_checkpoint,
    save_checkpoint,
    write_checkpoint,
)


def _checkpoint(epoch=1):
    return {"epoch": epoch, "state_dict": {"weight": torch.arange(3.0)}, "best_prec1": 61.5}


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


def test_a_checkpoint_that_was_cut_off_says_so_in_plain_words(tmp_path):
    file = tmp_path / "file.pth.tar"
    torch.save({"epoch": 1, "state_dict": {"weight": torch.randn(1000)}}, file)
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(CheckpointError, match=r"is damaged or cut off, expected a whole checkpoint: copy it again$"):
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


def test_a_finished_training_frees_its_own_files_and_no_copy_of_the_users(tmp_path):
    ours = [
        paths.CHECKPOINT,
        *(f"checkpoint.{word}.pth.tar" for word in ("previous", "next", "damaged", "epoch-start")),
    ]
    theirs = {"checkpoint.epoch300.pth.tar", "checkpoint_epoch300.pth.tar", "checkpoint.backup.pth.tar"}
    for name in (*ours, *theirs):
        (tmp_path / name).touch()
    free_state(tmp_path / paths.CHECKPOINT)
    assert {file.name for file in tmp_path.iterdir()} == theirs


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

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_checkpoint(file, _checkpoint(2))
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("saved_before", [0, 1, 2])
def test_a_disk_that_gives_back_other_bytes_leaves_the_checkpoint_as_it_was(tmp_path, monkeypatch, saved_before):
    file = tmp_path / "checkpoint.pth.tar"
    for epoch in range(saved_before):
        save_checkpoint(file, _checkpoint(epoch))
    before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    monkeypatch.setattr(checkpoint, "read_bytes", lambda path: path.read_bytes()[:-1] + b"\1")
    with pytest.raises(OutputError, match=r"just written reads back damaged: .*; check the disk"):
        save_checkpoint(file, _checkpoint(9))
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before


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


WEIGHTS = {"conv1.weight": torch.arange(24.0).view(2, 3, 2, 2), "conv1.bias": torch.tensor([0.5, -1.0])}
OTHER = {name: value + 1 for name, value in WEIGHTS.items()}
CONTAINERS = {
    "state_dict": ({"state_dict": WEIGHTS, "epoch": 1}, None),
    "bare": (WEIGHTS, None),
    "net": ({"net": WEIGHTS, "acc": 61.0}, "its key net are taken"),
    "model": ({"model": WEIGHTS, "epoch": 3}, "its key model are taken"),
    "model_state_dict": ({"model_state_dict": WEIGHTS, "optimizer_state_dict": {}}, "its key model_state_dict"),
    "any name": ({"generator": WEIGHTS}, "its key generator are taken"),
    "ema alone": ({"state_dict_ema": WEIGHTS, "epoch": 1}, "its key state_dict_ema are taken"),
    "ema beside": ({"model": WEIGHTS, "model_ema": OTHER}, "its key model are taken, not those of model_ema"),
    "ema beside state_dict": ({"ema": OTHER, "state_dict": WEIGHTS}, "its key state_dict are taken, not those of ema"),
    "measurements": ({"net": WEIGHTS, "best": {"top1": torch.tensor(61.0)}}, "its key net are taken"),
    "ordered": ({"state_dict": OrderedDict(WEIGHTS)}, None),
    "parameters": ({"state_dict": {name: torch.nn.Parameter(value) for name, value in WEIGHTS.items()}}, None),
    "arrays": ({"state_dict": {name: value.numpy() for name, value in WEIGHTS.items()}}, None),
}


def _same_weights(found, expected=WEIGHTS):
    return list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("form", CONTAINERS)
def test_weights_are_found_wherever_they_stand_and_it_is_said_where(tmp_path, caplog, form):
    content, said = CONTAINERS[form]
    torch.save(content, tmp_path / "file.pth")
    caplog.set_level("INFO")
    found = open_checkpoint(tmp_path / "file.pth")
    assert _same_weights(found.content["state_dict"])
    assert found.content["state_dict"]["conv1.bias"].requires_grad is False
    assert (said in caplog.text) if said else not caplog.text
    assert found.sha256 == hash_file(tmp_path / "file.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"net": WEIGHTS, "model": OTHER}, r"several sets of weights \(net, model\)"),
        ({"ema": WEIGHTS, "ema_2": OTHER}, r"several sets of weights \(ema, ema_2\)"),
        ({"state_dict": {}, "epoch": 3}, "found the keys state_dict, epoch;"),
        ({"state_dict": WEIGHTS | {"step": 3}}, "found a `state_dict` whose step is no tensor"),
        ({"state_dict": WEIGHTS | {"step": 3}, "ema": OTHER}, "found a `state_dict` whose step is no tensor"),
        ({"ema": OTHER, "model": WEIGHTS | {"step": 3}}, "found a `model` whose step is no tensor"),
        ({"a\nb": 1, 7: 2}, "found the keys a b, 7;"),
        ([WEIGHTS], "found a list"),
        ({}, "found an empty dict"),
        ({f"key{number}": 1 for number in range(30)}, "key11, and 18 more"),
    ],
)
def test_what_has_no_weights_or_several_names_its_keys_and_how_to_convert(tmp_path, content, message):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=message) as raised:
        read_checkpoint(tmp_path / "file.pth")
    assert "torch.save(" in str(raised.value) and "\n" not in str(raised.value)


def test_several_sets_of_weights_converted_as_advised_are_read(tmp_path):
    torch.save({"net": WEIGHTS, "model": OTHER}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"torch.save\(torch.load\(FILE\)\['net'\], 'weights.pth'\)"):
        read_checkpoint(tmp_path / "file.pth")
    torch.save(torch.load(tmp_path / "file.pth")["net"], tmp_path / "weights.pth")
    assert _same_weights(read_checkpoint(tmp_path / "weights.pth")["state_dict"])


def test_weights_of_a_gpu_are_read_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _storage: "cuda:0")
    for zip_format in (True, False):
        torch.save({"state_dict": WEIGHTS}, tmp_path / "file.pth", _use_new_zipfile_serialization=zip_format)
        assert _same_weights(read_checkpoint(tmp_path / "file.pth")["state_dict"])
