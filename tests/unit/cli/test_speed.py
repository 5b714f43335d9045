"""`recu speed`: a packed file beside the float network of its shape."""

import os

import pytest
import torch

from recu.base.files import hash_file
from recu.experiment.networks import Network
from recu.results.records import SpeedRecord, read_record
from recu.stages import speed
from tests.unit.training.ours import experiment, our_checkpoint

NAMES = [f"class{number}" for number in range(6)]


@pytest.fixture
def files(recu, monkeypatch):
    """A trained network with its packed file, and prepared data; turns of one call."""
    monkeypatch.setattr(speed, "_TURN_S", 0.0)
    monkeypatch.setattr(speed, "TURNS", 2)
    assert recu.train("--save", "run") == 0, recu.err
    assert recu("export", "results/run", "--to", "packed", "--output", "net.recu", *params(recu)) == 0, recu.err
    return ["results/run", "--packed", "net.recu", *params(recu)]


def params(recu):
    return ["--params_dir", recu.project / "params"]


def test_both_are_measured_and_the_record_says_of_what_where_and_how(recu, files):
    assert recu("speed", *files, "--threads", 2, "--record", "speed.json") == 0, recu.err
    found = read_record(recu.folder / "speed.json", SpeedRecord, again="")
    assert found.packed_sha256 == hash_file(recu.folder / "net.recu") and found.experiment_id == "results/run"
    assert (found.threads, found.batch_size, found.turns) == (2, 128, 2)
    assert found.provenance.device.startswith("CPU, 2 threads (") and found.provenance.packages["torch"]
    assert found.float32 is not None
    for shown in (found.packed.ms, found.float32.images_per_s):
        assert f"{shown:.4g}" in recu.out
    assert found.provenance.device in recu.out


@pytest.mark.parametrize(
    "others, said", [(0.0, "speed-up"), (1000.0, "the machine was busy, so that no speed-up is said")]
)
def test_a_speed_up_is_said_of_a_machine_that_had_nothing_else_to_do(recu, files, monkeypatch, others, said):
    monkeypatch.setattr(speed, "_others_since", lambda before: others)
    assert recu("speed", *files, "--record", "speed.json") == 0, recu.err
    found = read_record(recu.folder / "speed.json", SpeedRecord, again="")
    assert said in recu.out and (found.speed_up_batches is None) == found.busy == (others > 0)
    assert found.busy or f"{found.speed_up_batches:.2f}" in recu.out


def test_the_float_network_is_not_the_binary_one(recu, files, monkeypatch):
    built = []
    monkeypatch.setattr(
        speed,
        "_in_turns",
        lambda ways, given: (
            built.append((ways, given)) or dict.fromkeys(((way, size) for way in ways for size in given), 1.0)
        ),
    )
    assert recu("speed", *files, "--threads", 1) == 0, recu.err
    ((ways, given),) = built
    assert {size: images.shape for size, images in given.items()} == {"one": (1, 8, 8, 3), "batch": (128, 8, 8, 3)}
    packed, plain = ways["packed"](given["batch"]), ways["float32"](given["batch"])
    assert packed.shape == tuple(plain.shape) == (128, 6) and plain.dtype == torch.float32
    (network,) = (each.cell_contents for each in ways["float32"].__closure__ if hasattr(each.cell_contents, "modules"))
    kinds = {type(layer).__name__ for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)}
    assert not [name for name in kinds if "Binary" in name]
    # The first test images, again from the front.
    assert (given["batch"][18:36] == given["batch"][:18]).all() and not (given["batch"][1] == given["batch"][0]).all()


def test_a_network_without_a_float_form_is_measured_alone(recu, files, monkeypatch):
    monkeypatch.setattr(speed, "find_network", lambda *_, **__: Network("", "none", (2,)))
    assert recu("speed", *files, "--record", "speed.json") == 0, recu.err
    found = read_record(recu.folder / "speed.json", SpeedRecord, again="")
    assert found.float32 is None and "float in PyTorch" not in recu.out


def test_a_packed_file_of_another_checkpoint_is_refused(recu, files):
    torch.manual_seed(0)
    torch.save(our_checkpoint(experiment(name="tiny"), classes=NAMES), "ours.pth.tar")
    assert recu("speed", "ours.pth.tar", *files[1:], "--record", "speed.json") == 2
    assert "net.recu is of another checkpoint than ours.pth.tar: export that again" in recu.error()
    assert not (recu.folder / "speed.json").exists()


def test_what_cannot_be_measured_is_one_line(recu, files):
    assert recu("speed", *files, "--threads", -1) == 2 and "--threads is -1, expected 0 to" in recu.error()
    assert recu("speed", *files, "--data_dir", "elsewhere") == 2 and "no prepared data in elsewhere" in recu.error()
    whole = (recu.folder / "net.recu").read_bytes()
    (recu.folder / "net.recu").write_bytes(whole[:-1])
    assert recu("speed", *files) == 2 and "net.recu is damaged or cut off" in recu.error()
    (recu.folder / "net.recu").unlink()
    assert recu("speed", *files) == 2 and "net.recu" in recu.error()


def test_pytorchs_threads_wait_as_they_do_in_other_programs(recu, monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "")  # so that what follows is undone
    for command, expected in (("speed", None), ("export", "1000")):
        monkeypatch.delenv("GOMP_SPINCOUNT")
        assert recu(command, "--no_such_option") == 2
        assert os.environ.setdefault("GOMP_SPINCOUNT", "unset") == (expected or "unset")
