"""Results on disk become rows, and rows become the suite's files."""

import json
from pathlib import Path

import pytest

from recu.base.errors import OutputError, ResultError
from recu.base.files import read_json
from recu.experiment.plan import FIGURES
from recu.experiment.resolving import Origin
from recu.experiment.schema import Published, PublishedResult
from recu.experiment.suite_facts import DatasetFacts, MethodFacts, SuiteFacts
from recu.results.seal import write_sealed_json
from recu.stages.report import collect, render, shown_in_terminal, where_to_look
from tests.unit.results.made import evaluation, packed, speed, training

RUNS = Path("runs")
ID = "cifar10/digits/cifar.resnet20_1w1a/vanilla/seed1"
SPEC = "spec1"


@pytest.fixture
def results(tmp_path):
    train = training(model="resnet20_1w1a", dataset="digits", top1=95.0, last=95.0, epochs=2)
    for stage, metrics in (("train", train), ("evaluate", evaluation(train))):
        write_sealed_json(tmp_path / "results" / stage / ID / "metrics.json", metrics)
    return tmp_path / "results"


@pytest.fixture
def suite():
    return SuiteFacts(
        name="demo",
        title="Demo",
        description="Digits.",
        experiments=(Origin(id=ID, spec_hash=SPEC),),
        datasets={"digits": DatasetFacts(title="Digits", published_as=None)},
        methods={"vanilla": MethodFacts(description="", published_as="vanilla", reconstruction=False)},
    )


@pytest.fixture
def published():
    result = PublishedResult(dataset="CIFAR-10", model="resnet20_1w1a", method="vanilla", top1=87.5, source="s")
    return Published(results=(result,))


def test_results_become_the_suites_files(results, suite, published, tmp_path):
    rows = tmp_path / "rows.json"
    collect(suite.experiments, results, RUNS, rows)
    files = render(rows, suite, published, tmp_path / "reports")
    named = {str(file.relative_to(tmp_path / "reports")) for file in files}
    drawn = {f"figures/demo/{name}.{form}" for name in FIGURES for form in ("svg", "png")}
    assert named == {f"demo.{form}" for form in ("csv", "html", "json", "md", "tex")} | drawn
    assert "not comparable: nothing is published on this dataset" in (tmp_path / "reports" / "demo.md").read_text()
    assert {file for file in (tmp_path / "reports").rglob("*") if file.is_file()} == set(files)


def test_packed_files_are_collected_where_they_are_asked_for_and_are_of_the_same_checkpoint(results, suite, tmp_path):
    rows, file = tmp_path / "rows.json", results / "export" / ID / "metrics.json"
    with pytest.raises(ResultError, match=r"export/.*--forcerun .*export"):
        collect(suite.experiments, results, RUNS, rows, packed=True)
    said = packed(read_json(results / "train" / ID / "metrics.json"))
    write_sealed_json(file, said)
    collect(suite.experiments, results, RUNS, rows, packed=True)
    assert read_json(rows)["rows"][0]["packed"] == said
    collect(suite.experiments, results, RUNS, rows)
    assert "packed" not in read_json(rows)["rows"][0]
    write_sealed_json(file, said | {"checkpoint_sha256": "0" * 64})
    with pytest.raises(ResultError, match=r"is of another checkpoint than .*--forcerun"):
        collect(suite.experiments, results, RUNS, rows, packed=True)


def test_speeds_are_collected_with_the_packed_files_that_they_are_of(results, suite, tmp_path):
    train = read_json(results / "train" / ID / "metrics.json")
    rows, file = tmp_path / "rows.json", results / "speed" / ID / "metrics.json"
    write_sealed_json(results / "export" / ID / "metrics.json", packed(train))
    with pytest.raises(ResultError, match=r"speed/.*--config suites=cifar10 benchmark=true .*--forcerun .*speed"):
        collect(suite.experiments, results, RUNS, rows, speed=True)
    write_sealed_json(file, speed(train))
    collect(suite.experiments, results, RUNS, rows, speed=True)
    row = read_json(rows)["rows"][0]
    assert row["speed"] == speed(train) and row["packed"] == packed(train)
    collect(suite.experiments, results, RUNS, rows, packed=True)
    assert "speed" not in read_json(rows)["rows"][0]
    for other in ({"packed_sha256": "0" * 64}, {"experiment_id": "another"}):
        write_sealed_json(file, speed(train, **other))
        with pytest.raises(ResultError, match=r"speed/.* is of another packed file than .*--forcerun .*speed"):
            collect(suite.experiments, results, RUNS, rows, speed=True)


@pytest.mark.usefixtures("nothing_is_drawn")
def test_the_terminal_shows_what_was_rendered_and_refuses_what_was_edited(results, suite, published, tmp_path):
    collect(suite.experiments, results, RUNS, tmp_path / "rows.json")
    reports = tmp_path / "reports"
    render(tmp_path / "rows.json", suite, published, reports)
    text = shown_in_terminal(reports, "demo", 80)
    assert "95.00" in text and max(map(len, text.splitlines())) <= 80
    assert where_to_look(reports).startswith(f"All files: {reports}/")
    file = reports / "demo.json"
    file.write_text(file.read_text().replace("95.0", "99.0"))
    with pytest.raises(ResultError, match=r"demo\.json was altered after it was published .*make it again"):
        shown_in_terminal(reports, "demo", 80)


def test_a_missing_result_is_named_and_nothing_is_written(results, suite, tmp_path):
    with pytest.raises(ResultError, match=r"cannot read .*seed2/metrics.json"):
        collect(
            (*suite.experiments, Origin(id=ID.replace("seed1", "seed2"), spec_hash="x")),
            results,
            RUNS,
            tmp_path / "rows.json",
        )
    assert not (tmp_path / "rows.json").exists()


def test_a_result_of_other_parameters_is_not_taken(results, tmp_path):
    with pytest.raises(ResultError, match="belongs to other parameters"):
        collect((Origin(id=ID, spec_hash="6" * 16),), results, RUNS, tmp_path / "rows.json")


@pytest.mark.parametrize(
    "content, problem",
    [
        ({}, "rows: missing"),
        ({"rows": []}, "rows: .* at least 1 item"),
        ("{", "not valid JSON"),
        ("[]", "expected form"),
        ({"rows": [{"dataset": 1}]}, "expected form"),
        ('{"rows": []}', "has no content_sha256"),
    ],
)
def test_a_rows_file_that_is_no_rows_file(content, problem, suite, published, tmp_path):
    if isinstance(content, str):
        (tmp_path / "rows.json").write_text(content)
    else:
        write_sealed_json(tmp_path / "rows.json", content)
    with pytest.raises(ResultError, match=rf"{problem}.*make it again: `snakemake .* --forcerun .*rows\.json`"):
        render(tmp_path / "rows.json", suite, published, tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


def _edit(results, stage, **changes):
    file = results / stage / ID / "metrics.json"
    content = read_json(file) | changes
    write_sealed_json(file, content)
    return file


def test_a_number_beyond_rounding_advises_both_steps(results, suite, tmp_path):
    file = _edit(results, "evaluate", top1=90.0)
    state = tmp_path / "runs" / ID
    state.mkdir(parents=True)
    with pytest.raises(ResultError, match="gave top1 90, its training saw 95") as error:
        collect(suite.experiments, results, tmp_path / "runs", tmp_path / "rows.json")
    assert f"--forcerun {file}`; if they still differ" in str(error.value)
    assert f"`mv {state} {state}.old && snakemake" in str(error.value)
    assert not (tmp_path / "rows.json").exists()


def test_mixed_data_advises_to_train_what_is_not_on_the_data_of_now(results, suite, tmp_path):
    other = ID.replace("seed1", "seed2")
    for stage in ("train", "evaluate"):
        content = read_json(results / stage / ID / "metrics.json")
        content |= {"data_fingerprint": "0" * 64, "experiment_id": other}
        content["experiment"] = content.get("experiment", {}) | {"id": other}
        write_sealed_json(results / stage / other / "metrics.json", content)
    experiments = (*suite.experiments, Origin(id=other, spec_hash=SPEC))
    files = {name: str(results / "train" / name / "metrics.json") for name in (ID, other)}
    with pytest.raises(ResultError, match="rest on different data") as unknown:
        collect(experiments, results, RUNS, tmp_path / "rows.json")
    assert all(file in str(unknown.value) for file in files.values())
    manifest = results / "prepare" / "digits" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"fingerprint": "d" * 64}))
    with pytest.raises(ResultError, match="--config suites=cifar10") as known:
        collect(experiments, results, RUNS, tmp_path / "rows.json")
    assert files[other] in str(known.value) and files[ID] not in str(known.value)


def test_rows_edited_by_hand_are_refused(results, suite, published, tmp_path):
    rows = tmp_path / "rows.json"
    collect(suite.experiments, results, RUNS, rows)
    rows.write_text(rows.read_text().replace('"top1_best": 95.0', '"top1_best": 99.0'))
    with pytest.raises(ResultError, match=r"rows\.json was altered after it was published"):
        render(rows, suite, published, tmp_path / "reports")


@pytest.mark.usefixtures("nothing_is_drawn")
def test_an_output_that_cannot_be_written(results, suite, published, tmp_path):
    collect(suite.experiments, results, RUNS, tmp_path / "rows.json")
    (tmp_path / "reports").touch()
    with pytest.raises(OutputError, match="cannot write"):
        render(tmp_path / "rows.json", suite, published, tmp_path / "reports")
