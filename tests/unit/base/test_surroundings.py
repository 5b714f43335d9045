"""What the environment holds is settled, and what the system refuses is one line."""

import os
import resource
import subprocess
import sys

import pytest

from recu.base.errors import ConfigError, RecuError
from recu.base.surroundings import require_importable, settle_environment, trouble_in_words
from recu.cli.main import main


def test_what_numba_reads_is_ignored_but_for_the_folder_of_its_cache() -> None:
    odd = {"NUMBA_NUM_THREADS": "0", "NUMBA_OPT": "9", "NUMBA_THREADING_LAYER": "foo", "NUMBA_DISABLE_JIT": "abc"}
    environment = odd | {"NUMBA_CACHE_DIR": "/cache", "HOME": "/home"}
    notes = settle_environment(environment)
    assert environment == {"NUMBA_CACHE_DIR": "/cache", "HOME": "/home"}
    assert [note.split(" ")[1] for note in notes] == [f"{name}={value}" for name, value in sorted(odd.items())]


@pytest.mark.parametrize(("value", "stays"), [("1", True), ("2", True), ("0", False), ("", False), ("-1", False)])
def test_that_compilation_is_turned_off_is_left_for_the_loops_to_refuse(value: str, stays: bool) -> None:
    environment = {"NUMBA_DISABLE_JIT": value}
    assert bool(settle_environment(environment)) != stays
    assert ("NUMBA_DISABLE_JIT" in environment) == stays


def test_the_command_line_says_what_it_ignores(monkeypatch, capsys) -> None:
    monkeypatch.setenv("NUMBA_OPT", "9")
    assert main(["plan", "--nothing"]) == 2
    assert capsys.readouterr().err.startswith("note: NUMBA_OPT=9 is ignored")


def package(tmp_path, monkeypatch, name: str, content: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "raise ValueError('\\n Invalid setting\\n of many lines')",
        "raise OSError('Invalid setting')",
        "import recu.base.files\ndef fail():\n    raise RuntimeError('Invalid setting')\nfail()",
        "raise ImportError('Invalid setting')",
    ],
)
def test_a_package_that_fails_while_it_is_imported_is_one_line(tmp_path, monkeypatch, content: str) -> None:
    package(tmp_path, monkeypatch, "heavy_one", content)
    monkeypatch.setenv("TORCH_LOGS", "nonsense")
    with (
        pytest.raises(RecuError, match=r"^cannot import heavy_one \(Invalid setting\): .*TORCH_LOGS"),
        trouble_in_words(),
    ):
        import heavy_one  # noqa: F401


def test_a_package_that_is_not_there_is_one_line() -> None:
    with pytest.raises(RecuError, match=r"^cannot import no_such_package \(No module named"), trouble_in_words():
        import no_such_package.part  # noqa: F401


@pytest.mark.parametrize("error", [ValueError("a bug"), ImportError("a bug", name="recu.nn"), KeyError("a bug")])
def test_a_bug_stays_a_bug(error: Exception) -> None:
    with pytest.raises(type(error), match="a bug"), trouble_in_words():
        raise error


def test_an_error_of_ours_passes() -> None:
    with pytest.raises(ConfigError, match=r"^ours$"), trouble_in_words():
        raise ConfigError("ours")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_memory_that_is_not_there_is_one_line(error: Exception) -> None:
    with pytest.raises(RecuError, match=r"^out of memory .*lower batch_size"), trouble_in_words():
        raise error


def test_nothing_unusual_needs_no_trial(monkeypatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("an import was tried"))
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True,max_split_size_mb:128")
    require_importable("no_such_package")


def test_what_ends_the_process_while_it_imports_is_tried_in_another(tmp_path, monkeypatch) -> None:
    package(tmp_path, monkeypatch, "aborting", "import os, sys\nsys.stderr.write('what it says\\nmore\\n')\nos.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "garbage")
    with pytest.raises(RecuError, match=r"^cannot import aborting \(what it says\): .*PYTORCH_CUDA_ALLOC_CONF"):
        require_importable("aborting")
    require_importable("json")


def test_with_little_address_space_an_import_is_tried() -> None:
    program = f"""
import os
import resource
resource.setrlimit(resource.RLIMIT_AS, ({300 << 20}, {resource.RLIM_INFINITY}))
from recu.base.errors import RecuError
from recu.base.surroundings import require_importable
try:
    require_importable("torch")
except RecuError as error:
    print(error)
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("cannot import torch (") and "ulimit -v" in answer.stdout


def test_a_user_whom_the_system_does_not_know_gets_a_home(monkeypatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    environment: dict[str, str] = {}
    assert settle_environment(environment) == [] and environment == {"HOME": "/"}
