"""Commands that make files again leave a table what it lists."""

import json
from pathlib import Path

import pytest

from recu.experiment import paths
from recu.experiment.remake import remake, switched_on


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(file: Path, rows) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"rows": rows}))

    return write


ROWS, TABLE = paths.rows_file(Path("results"), "one"), Path("reports/one.json")


@pytest.mark.parametrize(
    ("row", "line", "switches"),
    [
        ({"packed": {}}, {"packed_bytes": 1}, ("packed",)),
        ({"packed": {}, "speed": {}}, {"packed_bytes": 1, "packed_ms": None}, ("packed", "benchmark")),
        ({"seed": 1}, {"seeds": 1}, ()),
    ],
)
def test_what_rows_list_or_else_the_table_is_made_again_with_the_same_switches(write, row, line, switches):
    assert switched_on(["one"]) == ()
    write(TABLE, [line])
    assert switched_on(["one"]) == switches, "rows that are gone are told of by their table"
    write(ROWS, [row])
    assert switched_on(["one"]) == switches
    words = "".join(f" {switch}=true" for switch in switches)
    assert remake([ROWS], suites=["one"]) == f"`snakemake --cores all --config suites=one{words} --forcerun {ROWS}`"
    assert " packed=true" in remake([ROWS], suites=["one"], columns=["packed"]), "as it is said"
    assert "=true" not in remake([ROWS], suites=["other"], results_dir=Path("elsewhere"))


@pytest.mark.parametrize("rows", [5, None, [1], {"packed": 1}])
def test_rows_of_any_form_are_looked_at(write, rows):
    write(ROWS, rows)
    write(TABLE, [{"packed_bytes": 1}])
    assert switched_on(["one"]) == ("packed",)
