"""A published file carries a hash of its own content."""

import json

import pytest

from recu.base.errors import ResultError
from recu.results.seal import SEAL, read_sealed_json, seal_problem, write_sealed_json

AGAIN = "`make it`"


def test_what_is_written_reads_back_and_adds_one_key(tmp_path):
    content = {"top1": 91.5, "history": [{"epoch": 0, "test_top1": 0.1 + 0.2}], "name": "é"}
    written = write_sealed_json(tmp_path / "metrics.json", content)
    assert written == content | {SEAL: written[SEAL]}
    assert read_sealed_json(tmp_path / "metrics.json", again=AGAIN) == written
    assert seal_problem(written) is None


@pytest.mark.parametrize("change", [{"top1": 91.6}, {"extra": 1}, {SEAL: "0" * 64}, {"top1": float("nan")}])
def test_any_change_is_found(tmp_path, change):
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(write_sealed_json(file, {"top1": 91.5, "top5": 99.0}) | change))
    with pytest.raises(ResultError, match=r"metrics\.json was altered after it was published"):
        read_sealed_json(file, again=AGAIN)


def test_another_order_and_layout_is_the_same_content(tmp_path):
    file = tmp_path / "metrics.json"
    written = write_sealed_json(file, {"b": 1, "a": [1.5, None]})
    file.write_text(json.dumps(dict(reversed(written.items()))))
    assert read_sealed_json(file, again=AGAIN) == written


def test_a_file_without_a_seal_is_refused(tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text('{"top1": 91.5}')
    with pytest.raises(ResultError, match=r"has no content_sha256: .* make it again: `make it`"):
        read_sealed_json(file, again=AGAIN)


@pytest.mark.parametrize("content", ["{", '{"top1": \xff}', "[" * 100_000])
def test_what_cannot_be_read_names_the_step(tmp_path, content):
    file = tmp_path / "metrics.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ResultError, match="make it again: `make it`"):
        read_sealed_json(file, again=AGAIN)
    with pytest.raises(ResultError, match="No such file or directory: make it again: `make it`"):
        read_sealed_json(tmp_path / "missing.json", again=AGAIN)


def test_what_is_no_object_is_refused(tmp_path):
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(ResultError, match="expected form"):
        read_sealed_json(tmp_path / "metrics.json", again=AGAIN)
