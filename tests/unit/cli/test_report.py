"""`recu report show`: tables in a terminal."""

import pytest

from recu.experiment.paths import PARAMS_DIR
from recu.experiment.resolving import load_experiments
from recu.results.seal import write_sealed_json

ROW = {
    "dataset_title": "Digits", "model": "resnet20_1w1a", "family": "cifar", "variant": None, "method": "vanilla",
    "row": None, "reconstruction": False, "epochs": 5, "published_top1": None, "published_source": None,
    "top1_best_mean": 93.25, "top1_best_sd": None, "top1_last_mean": 93.0, "top1_last_sd": None,
    "top5_best_mean": 99.0, "top5_best_sd": None, "seeds": 1, "difference": None, "verdict": "not comparable",
    "reason": "nothing is published on this dataset",
}  # fmt: skip


@pytest.fixture
def tables(recu):
    """Two of them, as the workflow leaves them."""
    for name in ("demo", "other"):
        content = {"suite": name, "title": name.title(), "released": False, "rows": [ROW]}
        (recu.folder / "reports").mkdir(exist_ok=True)
        write_sealed_json(recu.folder / f"reports/{name}.json", content)
    return recu


def test_every_table_or_those_named_in_the_terminals_width(tables, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert tables("report", "show") == 0
    assert tables.out.count("93.25") == 2 and max(map(len, tables.out.splitlines())) <= 80
    assert "not comparable: nothing is published on this dataset" in tables.out
    assert tables.out.splitlines()[-1].startswith("All files: reports/")
    assert tables("report", "show", "other") == 0 and "Demo" not in tables.out and "last epoch" not in tables.out
    assert tables("report", "show", "other", "--full") == 0 and "Top-1 last epoch" in tables.out
    assert "BOPs" not in tables.out, "a table of an earlier version"
    (tables.folder / "reports/index.html").touch()
    tables("report", "show", "other")
    assert "All results: reports/index.html" in tables.out


def test_a_table_that_is_not_there_is_answered_with_what_makes_it(recu, tables):
    assert recu("report", "show", "methods", "--params_dir", PARAMS_DIR) == 2
    assert "run `snakemake --cores all --config suites=methods`" in recu.error()


def test_a_table_of_no_suite_is_not_answered_with_a_command_that_fails(recu, tables):
    assert recu("report", "show", "demmo", "--params_dir", PARAMS_DIR) == 2
    assert "did you mean 'demo'" in recu.error() and "no suite of that name" in recu.error()
    assert "snakemake" not in recu.error()


def test_a_stale_table_says_so(recu, tables):
    def said(**experiments):
        content = {"suite": "demo", "title": "Demo", "released": False, "rows": [ROW]} | experiments
        write_sealed_json(recu.folder / "reports/demo.json", content)
        assert recu("report", "show", "demo", "--params_dir", PARAMS_DIR) == 0
        return " ".join(recu.out.split())

    now = {name: each.spec_hash for name, each in load_experiments(PARAMS_DIR, ("demo",)).items()}
    assert "stale" not in said(experiments=now)
    first = next(iter(now))
    again = "make it anew: `snakemake --cores all --config suites=demo`"
    assert f"stale: 1 of its results are not those that params/ asks for now; {again}" in said(
        experiments=now | {first: "0" * 16}
    )
    other = {name: each for name, each in now.items() if name != first} | {"demo/x": "1"}
    assert "stale: 2 of" in said(experiments=other)
    assert "not known whether it is stale: an earlier version made this table" in said()
    with_speeds = [ROW | {"packed_bytes": 1, "packed_ms": 1.0}]
    assert "suites=demo packed=true benchmark=true`" in said(experiments=other, rows=with_speeds)


def test_a_table_of_a_suite_that_is_no_more_says_so(recu, tables):
    content = {"suite": "gone", "title": "Gone", "released": False, "rows": [ROW], "experiments": {"gone/x": "1"}}
    write_sealed_json(recu.folder / "reports/gone.json", content)
    assert recu("report", "show", "gone", "--params_dir", PARAMS_DIR) == 0
    assert "93.25" in recu.out and "not known whether it is stale: " in recu.out


def test_files_of_others_beside_the_tables_are_left_out_and_named(recu, tables):
    reports = recu.folder / "reports"
    for name, text in (("plan", '{"jobs": []}'), ("list", "[]"), ("notes", "mine")):
        (reports / f"{name}.json").write_text(text)
    assert recu("report", "show", "--params_dir", PARAMS_DIR) == 0, recu.err
    assert recu.out.count("93.25") == 2
    left_out = "reports/list.json, reports/notes.json, reports/plan.json"
    assert f"Left out, since no suite has them as its table: {left_out}\n" in recu.out
    assert recu("report", "show", "demo", "--params_dir", PARAMS_DIR) == 0 and "Left out" not in recu.out
    assert recu("report", "show", "plan", "--params_dir", PARAMS_DIR) == 2 and "unknown table 'plan'" in recu.error()
    (reports / "demo.json").write_text("damaged")
    assert recu("report", "show", "--params_dir", PARAMS_DIR) == 2 and "reports/demo.json" in recu.error()


def test_without_any_table(recu):
    assert recu("report", "show") == 2
    assert "no tables in reports: run `snakemake --cores all`" in recu.error()
