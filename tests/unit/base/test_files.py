import os
import subprocess
import sys

import pytest

from recu.base.errors import OutputError, ResultError
from recu.base.files import (
    atomic_write_json,
    atomic_write_text,
    atomic_writer,
    canonical_json,
    hash_file,
    read_json,
    remove_temporary_files,
)

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from recu.base.files import atomic_writer
with atomic_writer(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_content_appears_whole_and_nothing_else_stays(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    atomic_write_text(target, "text")
    assert target.read_text() == "text"
    assert [file.name for file in target.parent.iterdir()] == ["file.txt"]


def test_a_failed_write_leaves_the_earlier_content(tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(b"earlier")
    with pytest.raises(RuntimeError), atomic_writer(target) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"earlier"
    assert [file.name for file in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_neither_replaced_nor_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="expected an ordinary file"):
        atomic_write_text(pipe, "text")
    assert pipe.is_fifo() and [file.name for file in tmp_path.iterdir()] == ["pipe"]
    with pytest.raises(ResultError, match="expected an ordinary file"):
        read_json(pipe)
    with pytest.raises(OSError, match="expected an ordinary file"):
        hash_file(pipe)


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(OutputError, match="it is a folder"):
        atomic_write_text(tmp_path, "text")


def test_json_too_deep_to_read_is_one_line(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ResultError, match="is not valid JSON"):
        read_json(tmp_path / "deep.json")


def test_a_folder_that_cannot_be_made_is_one_readable_line(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write .*check space and permissions"):
        atomic_write_text(tmp_path / "taken" / "file.txt", "text")


def test_not_a_number_is_refused_in_json(tmp_path):
    with pytest.raises(ValueError):
        atomic_write_json(tmp_path / "file.json", {"loss": float("nan")})
    assert [file.name for file in tmp_path.iterdir()] == []


def test_unreadable_json_is_a_result_error(tmp_path):
    (tmp_path / "half.json").write_text('{"top1": 6')
    with pytest.raises(ResultError, match="not valid JSON"):
        read_json(tmp_path / "half.json")
    with pytest.raises(ResultError, match="No such file"):
        read_json(tmp_path / "missing.json")


def test_canonical_json_ignores_the_order_of_keys():
    assert canonical_json({"b": 1, "a": [1, 2]}) == canonical_json({"a": [1, 2], "b": 1}) == '{"a":[1,2],"b":1}'


def test_hash_file_is_the_known_digest(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert hash_file(tmp_path / "file", "md5") == "900150983cd24fb0d6963f7d28e17f72"


def kill_while_writing(target):
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, target], check=False)
    (left,) = target.parent.glob(".*.part")
    return left


def test_what_a_killed_process_left_goes_with_the_next_write_of_the_same_file(tmp_path):
    left = kill_while_writing(tmp_path / "file.txt")
    atomic_write_text(tmp_path / "other.txt", "text")
    assert left.exists(), "another file's"
    atomic_write_text(tmp_path / "file.txt", "text")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file.txt", "other.txt"]


def test_what_a_living_process_or_another_machine_is_writing_stays(tmp_path):
    dead = kill_while_writing(tmp_path / "file.txt")
    elsewhere = dead.rename(dead.with_name(".file.txt.00000000-1-00000000.part"))
    with atomic_writer(tmp_path / "file.txt"):
        atomic_write_text(tmp_path / "file.txt", "text")
        (own,) = tmp_path.glob(f".file.txt.*-{os.getpid()}-*.part")
    assert elsewhere.exists() and not own.exists()


def test_whoever_holds_the_lock_may_remove_all_temporary_files_and_nothing_else(tmp_path):
    left = kill_while_writing(tmp_path / "file.txt")
    left.rename(tmp_path / ".file.txt.00000000-1-00000000.part")
    for name in (".mine.part", "file.part", ".lock"):
        (tmp_path / name).touch()
    remove_temporary_files(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", ".mine.part", "file.part"]
    remove_temporary_files(tmp_path / "none")
