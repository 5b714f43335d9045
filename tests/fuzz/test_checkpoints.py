"""Checkpoints: what was written, or one readable line; nothing in between, and nothing runs."""

import io
import pickle
import pickletools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recu.engine.checkpoint import read_checkpoint, write_checkpoint
from recu.errors import CheckpointError
from tests.fuzz.mutation import mutated
from tests.unit.engine.tiny import same

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
