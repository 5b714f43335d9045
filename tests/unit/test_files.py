
import pytest

from recu.errors import OutputError, ResultError
from recu.files import (
    atomic_write_json,
    atomic_write_text,
    atomic_writer,
    canonical_json,
    hash_file,
    read_json,
)


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
