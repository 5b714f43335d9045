"""Checkpoints: what was written, or one readable line; nothing in between, and nothing runs."""

import io
import pickle
import pickletools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recu.base.errors import CheckpointError, DivergenceError, Interrupted
from recu.experiment import paths
from recu.training.checkpoint import read_checkpoint, write_checkpoint
from tests.fuzz.mutation import mutated
from tests.unit.training.tiny import StopAfter, never, same, tiny_trainer

CONTENT = {
    "epoch": 3,
    "model": "tiny",
    "state_dict": {"conv1.weight": torch.arange(24.0).view(2, 3, 2, 2), "linear.bias": torch.tensor([0.5, -1.0])},
    "best_prec1": 61.5,
    "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2, 3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
}
CALLS = (
    "os.system",
    "posix.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.Popen",
    "torch.hub.load",
    "torch.load",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> bytes:
    file = tmp_path_factory.mktemp("checkpoint") / "file.pth.tar"
    write_checkpoint(file, CONTENT)
    return file.read_bytes()


def _read(file):
    """The content, or None where it was refused in one line."""
    try:
        return read_checkpoint(file)
    except CheckpointError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return None


@pytest.mark.usefixtures("no_code_runs")
def test_a_mutated_checkpoint_is_the_same_or_refused(tmp_path, written):
    file = tmp_path / "file.pth.tar"

    @given(mutated(written))
    def check(content):
        file.write_bytes(content)
        found = _read(file)
        assert found is None or same(found, CONTENT)

    check()


@pytest.mark.usefixtures("no_code_runs")
def test_a_mutated_checkpoint_of_the_older_format_has_weights_or_is_refused(tmp_path):
    buffer = io.BytesIO()
    torch.save(CONTENT, buffer, _use_new_zipfile_serialization=False)
    file = tmp_path / "file.pth.tar"

    @given(mutated(buffer.getvalue()))
    def check(content):
        file.write_bytes(content)
        found = _read(file)
        # This format has no checksums, so a changed number cannot be told from another checkpoint.
        assert found is None or all(isinstance(value, torch.Tensor) for value in found["state_dict"].values())

    check()


@pytest.mark.usefixtures("no_code_runs")
@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda data: b"PK\x03\x04" + data))
def test_bytes_that_are_no_checkpoint(tmp_path, content):
    (tmp_path / "file.pth.tar").write_bytes(content)
    assert _read(tmp_path / "file.pth.tar") is None


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.usefixtures("no_code_runs")
def test_a_pickle_that_names_a_function_is_refused(tmp_path, monkeypatch, call, zip_format):
    monkeypatch.chdir(tmp_path)
    module, _, name = call.rpartition(".")
    payload = f"c{module}\n{name}\n(S'touch ran'\ntR.".encode()
    assert pickletools.dis(payload, io.StringIO()) is None  # a real pickle that calls it

    class Raw:
        """Pickles as the payload's content."""

        def __reduce__(self):
            return _named(module, name), ("touch ran",)

    torch.save({"state_dict": {"weight": torch.ones(1)}, "x": Raw()}, "file", _use_new_zipfile_serialization=zip_format)
    assert _read(tmp_path / "file") is None
    (tmp_path / "plain").write_bytes(payload)
    assert _read(tmp_path / "plain") is None
    assert not (tmp_path / "ran").exists()


def _named(module: str, name: str):
    return pickle._Unpickler(io.BytesIO()).find_class(module, name)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
)
def test_a_file_of_plain_values_is_no_checkpoint_unless_it_has_weights(tmp_path, value):
    torch.save(value, tmp_path / "file.pth.tar")
    assert _read(tmp_path / "file.pth.tar") is None


JUNK = st.sampled_from(
    [None, True, -1, 2**70, 1.5, float("nan"), "text", b"", (), [], [1], {}, {"a": 1}, torch.zeros(3), torch.zeros(())]
)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> dict:
    """A training that was stopped inside its third epoch."""
    folder = tmp_path_factory.mktemp("training")
    with pytest.raises(Interrupted):
        tiny_trainer(folder).run(StopAfter(18))
    return read_checkpoint(folder / paths.CHECKPOINT)


def _places(value, place=()):
    """The way to every value inside containers, short lists only."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, each in list(inner)[:8]:
        yield (*place, key)
        yield from _places(each, (*place, key))


def _changed(value, place, new):
    if not place:
        return new
    key, *rest = place
    if isinstance(value, dict):
        return {name: _changed(inner, rest, new) if name == key else inner for name, inner in value.items()}
    changed = [_changed(inner, rest, new) if number == key else inner for number, inner in enumerate(value)]
    return type(value)(changed)


@pytest.mark.usefixtures("no_code_runs")
def test_any_value_replaced_by_any_other_is_trained_on_or_refused_in_one_line(tmp_path, stopped):
    places = list(_places(stopped))

    @given(st.sampled_from(places), JUNK)
    def check(place, junk):
        torch.save(_changed(stopped, place, junk), tmp_path / "file.pth.tar")
        found = _read(tmp_path / "file.pth.tar")
        if found is None:
            return
        # A foreign file has nothing under our key.
        for take in ("continue_from", "continue_from_foreign")[: 1 if place[0] == "recu" else 2]:
            trainer = tiny_trainer(tmp_path / take)
            try:
                getattr(trainer, take)(found)
                trainer.run(never)
            except (CheckpointError, DivergenceError) as error:
                assert "\n" not in str(error)

    check()
