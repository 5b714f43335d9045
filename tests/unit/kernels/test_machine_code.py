"""Machine code is kept, is never that of something else, and a cache that does not work is never worth an error."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from recu.base.errors import ConfigError
from recu.kernels import machine_code
from recu.kernels.compiled import compiled


def double(values):
    for i in range(len(values)):
        values[i] = 2 * values[i]


def negate(values):
    for i in range(len(values)):
        values[i] = -values[i]


def loaded(function=double, factor: int = 2) -> bool:
    """Compile or load a function, as a new process would, and run it; whether it was loaded."""
    loop, values = compiled(function), np.arange(5.0)
    loop(values)
    assert (values == factor * np.arange(5.0)).all()
    return sum(loop.stats.cache_hits.values()) == 1


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    machine_code._say_once.cache_clear()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / f"recu-{machine_code.source_hash()}"


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_what_one_process_compiled_the_next_one_loads(folder) -> None:
    assert not loaded() and loaded()
    assert only_file(folder).name.startswith("test_machine_code.double-")


def replace_by_that_of_another_function(file: Path) -> None:
    content = file.read_bytes()
    assert not loaded(negate, -1)
    other = next(path for path in file.parent.iterdir() if path != file)
    assert other.read_bytes() != content
    file.write_bytes(other.read_bytes())
    other.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:20]),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(b"\0" * len(file.read_bytes())),
        lambda file: file.write_bytes(file.read_bytes()[:999] + b"?" + file.read_bytes()[1000:]),
        replace_by_that_of_another_function,
    ],
    ids=["empty", "short", "cut", "zeros", "one byte", "another's"],
)
def test_a_damaged_file_is_dropped_and_compiled_again(folder, damage) -> None:
    loaded()
    damage(only_file(folder))
    assert not loaded() and loaded()


def test_code_of_another_source_is_not_looked_at(folder, monkeypatch) -> None:
    assert not loaded() and loaded()
    monkeypatch.setattr(machine_code, "source_hash", lambda: "0123456789abcdef")
    assert not loaded()
    # Not even where a file came into the folder of the new source.
    only_file(folder.parent / "recu-0123456789abcdef").write_bytes(only_file(folder).read_bytes())
    assert not loaded() and loaded()


def test_the_hash_names_the_sources_of_every_loop(tmp_path, monkeypatch) -> None:
    def hash_of(content: str) -> str:
        (tmp_path / "loops.py").write_text(content)
        machine_code.source_hash.cache_clear()
        return machine_code.source_hash()

    monkeypatch.setattr(machine_code, "_PACKAGE", tmp_path)
    try:
        assert hash_of("a") == hash_of("a") != hash_of("b")
        one = hash_of("a")
        monkeypatch.setattr(machine_code.binding, "get_host_cpu_name", lambda: "another processor")
        assert hash_of("a") != one
    finally:
        machine_code.source_hash.cache_clear()


@pytest.mark.parametrize("kind", ["a file", "a link", "open to others", "somebody else's", "a folder for the file"])
def test_a_folder_that_cannot_be_used_or_trusted_costs_nothing_but_the_cache(folder, monkeypatch, caplog, kind) -> None:
    loaded()
    file = only_file(folder)
    if kind == "a file":
        file.unlink()
        folder.rmdir()
        folder.touch()
    elif kind == "a link":
        folder.rename(folder.parent / "elsewhere")
        folder.symlink_to(folder.parent / "elsewhere")
    elif kind == "open to others":
        folder.chmod(0o777)
    elif kind == "somebody else's":
        monkeypatch.setattr(machine_code, "_trusted_users", lambda: (os.geteuid() + 1,))
    else:
        file.unlink()
        file.mkdir()
    assert not loaded() and not loaded()
    assert caplog.text.count("compiled loops cannot be kept") == 1 and "NUMBA_CACHE_DIR" in caplog.text


def test_a_full_disk_leaves_nothing_behind(folder, monkeypatch, caplog) -> None:
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        assert not loaded() and not loaded()
    assert list(folder.iterdir()) == [] and "No space left on device" in caplog.text
    assert not loaded() and loaded()


def test_without_a_place_each_process_compiles(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    blocked = tmp_path / "package"
    blocked.mkdir()
    (blocked / "__pycache__").touch()
    monkeypatch.setattr(machine_code, "_PACKAGE", blocked)
    assert not loaded() and not loaded()
    assert "compiled loops cannot be kept" in caplog.text and not (tmp_path / "missing").exists()


def test_where_the_package_cannot_be_written_the_users_cache_is_used(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    blocked = tmp_path / "package"
    blocked.mkdir()
    (blocked / "__pycache__").touch()
    monkeypatch.setattr(machine_code, "_PACKAGE", blocked)
    assert not loaded() and loaded()
    assert only_file(tmp_path / "recu" / f"recu-{machine_code.source_hash()}")


@pytest.mark.parametrize(
    ("name", "value"), [("OPT", 0), ("DISABLE_JIT", 1), ("CPU_NAME", "generic"), ("BOUNDSCHECK", 1)]
)
def test_other_settings_than_the_tested_ones_are_refused(monkeypatch, name, value) -> None:
    monkeypatch.setattr(numba.config, name, value)
    with pytest.raises(ConfigError, match=f"setting {name.lower()} is {value!r}, .* unset the variable NUMBA_{name}"):
        compiled(double)


@pytest.mark.slow
def test_processes_that_compile_at_once(folder) -> None:
    program = """
import numpy as np
from recu.kernels.compiled import compiled
from tests.unit.kernels.test_machine_code import double
values = np.arange(5.0)
compiled(double)(values)
assert (values == 2 * np.arange(5.0)).all()
"""
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert only_file(folder) and loaded()
