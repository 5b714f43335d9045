"""A published file carries a hash of its own content."""

import json

import pytest

from recu.errors import ResultError
from recu.integrity import SEAL, read_sealed_json, seal_problem, write_sealed_json


def test_what_is_written_reads_back_and_adds_one_key(tmp_path):
    content = {"top1": 91.5, "history": [{"epoch": 0, "test_top1": 0.1 + 0.2}], "name": "é"}
    written = write_sealed_json(tmp_path / "metrics.json", content)
    assert written == content | {SEAL: written[SEAL]}
    assert read_sealed_json(tmp_path / "metrics.json") == written
    assert seal_problem(written) is None


@pytest.mark.parametrize("change", [{"top1": 91.6}, {"extra": 1}, {SEAL: "0" * 64}, {"top1": float("nan")}])
def test_any_change_is_found(tmp_path, change):
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(write_sealed_json(file, {"top1": 91.5, "top5": 99.0}) | change))
    with pytest.raises(ResultError, match=r"metrics\.json was altered after it was published"):
        read_sealed_json(file)


def test_another_order_and_layout_is_the_same_content(tmp_path):
    file = tmp_path / "metrics.json"
    written = write_sealed_json(file, {"b": 1, "a": [1.5, None]})
    file.write_text(json.dumps(dict(reversed(written.items()))))
    assert read_sealed_json(file) == written


def test_a_file_of_an_earlier_version_is_read_but_is_not_verified(tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text('{"top1": 91.5}')
    assert read_sealed_json(file) == {"top1": 91.5}
    assert "published before there was one" in seal_problem({"top1": 91.5})


def test_what_is_no_object_is_refused(tmp_path):
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(ResultError, match="expected form"):
        read_sealed_json(tmp_path / "metrics.json")
