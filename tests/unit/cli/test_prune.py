"""`recu du` and `recu prune` as commands."""

import io
import json

import pytest

from recu.experiment.paths import CHECKPOINT

STATE = f"runs/gone/tiny/cifar.resnet20_1w1a/vanilla/seed1/{'0' * 16}"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def project(recu, monkeypatch):
    """With one state that nothing needs."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(recu.folder / "cache"))
    state = recu.folder / STATE
    state.mkdir(parents=True)
    (state / CHECKPOINT).write_bytes(bytes(123_456))
    return state / CHECKPOINT, ["--params_dir", recu.project / "params"]


def test_du_says_how_much_lies_where(recu, project):
    _, words = project
    assert recu("du", *words) == 0, recu.err
    assert "runs: 123 kB" in recu.out and "123 kB in all; `recu prune` would free 123 kB" in recu.out
    assert recu("du", "--json", *words) == 0
    (entry,) = json.loads(recu.out)["entries"]
    assert entry == {
        "place": "runs",
        "name": STATE.removeprefix("runs/"),
        "path": STATE,
        "bytes": 123_456,
        "needed_by": [],
        "spare_bytes": 123_456,
    }


@pytest.mark.parametrize(("answer", "left"), [("y\n", False), ("\n", True), ("n\n", True), ("", True)])
def test_prune_asks_on_a_terminal(recu, project, monkeypatch, answer, left):
    file, words = project
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert recu("prune", *words) == 0, recu.err
    assert f"{STATE}: a state of parameters that no experiment in params/ has" in recu.out
    assert file.exists() == left and ("nothing was removed" in recu.out) == left


def test_prune_removes_nothing_unasked(recu, project, monkeypatch):
    file, words = project
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert recu("prune", *words) == 2
    assert "there is no terminal to ask on: --yes removes what is listed" in recu.error() and file.exists()
    assert recu("prune", "--yes", *words) == 0, recu.err
    assert "123 kB freed" in recu.out and not file.exists()
    assert recu("prune", *words) == 0 and "nothing to free" in recu.out


@pytest.mark.parametrize("command", ["du", "prune"])
def test_a_mistake_in_params_removes_nothing(recu, project, tmp_path, command):
    file, _ = project
    assert recu(command, "--params_dir", tmp_path / "nowhere") == 2
    assert "nowhere/config.yaml" in recu.error() and file.exists()
