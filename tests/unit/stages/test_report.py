"""Results on disk become rows, and rows become the suite's files."""

import json

import pytest

from recu.config import Published, PublishedResult
from recu.errors import OutputError, ResultError
from recu.experiments import Origin
from recu.stages.report import collect, render
from recu.suite_facts import DatasetFacts, MethodFacts, SuiteFacts

ID = "demo/digits/cifar.resnet20_1w1a/vanilla/seed1"
PROVENANCE = {
    "device": "cpu",
    "created": "2026-11-20T10:00:00+00:00",
    "git_commit": None,
    "git_dirty": None,
    "code_hash": "c" * 64,
    "packages": {"torch": "2.14.1", "python": "3.11.7"},
}
SHARED = {"spec_hash": "5" * 16, "data_fingerprint": "d" * 64, "checkpoint_sha256": "e" * 64, "provenance": PROVENANCE}


@pytest.fixture
def results(tmp_path):
    train = SHARED | {
        "experiment": {
            "id": ID,
            "suite": "demo",
            "dataset": "digits",
            "family": "cifar",
            "variant": None,
            "model": "resnet20_1w1a",
            "method": "vanilla",
            "seed": 1,
            "hyperparameters": {"epochs": 2, "batch_size": 32, "batch_size_test": 128},
        },
        "best": {"epoch": 1, "top1": 95.0, "top5": 99.0, "loss": 0.1},
        "last": {"epoch": 1, "top1": 95.0, "top5": 99.0, "loss": 0.1},
        "epochs": 2,
        "train_seconds": 10.0,
        "history": [{"epoch": epoch, "test_top1": 90.0 + 5 * epoch, "train_top1": 91.0} for epoch in range(2)],
        "parent": None,
        "shortcut": "two per block",
        "cost": dict.fromkeys(
            ("parameters", "checkpoint_bytes", "binary_operations", "floating_point_operations", "operations"), 1000
        ),
    }
    evaluate = SHARED | {"experiment_id": ID, "top1": 95.0, "top5": 99.0, "loss": 0.1, "n": 360}
    for stage, metrics in (("train", train), ("evaluate", evaluate)):
        file = tmp_path / "results" / stage / ID / "metrics.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(metrics))
    return tmp_path / "results"


@pytest.fixture
def suite():
    return SuiteFacts(
        name="demo",
        title="Demo",
        description="Digits.",
        experiments=(Origin(id=ID, spec_hash="5" * 16),),
        datasets={"digits": DatasetFacts(title="Digits", published_as=None)},
        methods={"vanilla": MethodFacts(description="", published_as="vanilla", reconstruction=False)},
    )


@pytest.fixture
def published():
    result = PublishedResult(dataset="CIFAR-10", model="resnet20_1w1a", method="vanilla", top1=87.5, source="s")
    return Published(results=(result,))


def test_results_become_the_suites_four_files(results, suite, published, tmp_path):
    rows = tmp_path / "rows.json"
    collect(suite.experiments, results, rows)
    files = render(rows, suite, published, tmp_path / "reports")
    assert sorted(file.name for file in files) == ["demo.csv", "demo.html", "demo.md", "demo.svg"]
    assert "not comparable: nothing is published on this dataset" in (tmp_path / "reports" / "demo.md").read_text()
    assert sorted(file.name for file in (tmp_path / "reports").iterdir()) == sorted(file.name for file in files)


def test_a_missing_result_is_named_and_nothing_is_written(results, suite, tmp_path):
    with pytest.raises(ResultError, match=r"cannot read .*seed2/metrics.json"):
        collect(
            (*suite.experiments, Origin(id=ID.replace("seed1", "seed2"), spec_hash="x")),
            results,
            tmp_path / "rows.json",
        )
    assert not (tmp_path / "rows.json").exists()


def test_a_result_of_other_parameters_is_not_taken(results, tmp_path):
    with pytest.raises(ResultError, match="belongs to other parameters"):
        collect((Origin(id=ID, spec_hash="6" * 16),), results, tmp_path / "rows.json")


@pytest.mark.parametrize(
    "content, problem", [("[]", "no results"), ("{", "not valid JSON"), ('[{"dataset": 1}]', "expected form")]
)
def test_a_rows_file_that_is_no_rows_file(content, problem, suite, published, tmp_path):
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(ResultError, match=problem):
        render(tmp_path / "rows.json", suite, published, tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


def test_an_output_that_cannot_be_written(results, suite, published, tmp_path):
    collect(suite.experiments, results, tmp_path / "rows.json")
    (tmp_path / "reports").touch()
    with pytest.raises(OutputError, match="cannot write"):
        render(tmp_path / "rows.json", suite, published, tmp_path / "reports")
