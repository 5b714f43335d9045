"""Pages of runs, and those over all suites, from a project on disk."""

import re
import shutil
from pathlib import Path

import pytest

from recu.base.errors import ResultError
from recu.base.files import read_json
from recu.experiment import params, paths, plan
from recu.experiment.resolving import load_experiments
from recu.results.records import Rows, read_record
from recu.results.seal import write_sealed_json
from recu.stages.pages import write_index, write_run_pages
from recu.stages.report import collect
from recu.verify.grounds import Places
from tests.unit.stages.conftest import Project

SUITE = """
title: Smallest
description: Shown.
dataset: tiny
seeds: [1]
hyperparameters: {batch_size: 16, warm_up: false}
methods:
  vanilla: {epochs: 1}
rows:
  - model: resnet20_1w1a
"""
ID = "smallest/tiny/cifar.resnet20_1w1a/vanilla/seed1"


@pytest.fixture(scope="module")
def made(tiny_project, prepared, tmp_path_factory) -> Places:
    """A suite of one training, evaluated and collected."""
    return trained(tmp_path_factory.mktemp("pages"), tiny_project, prepared, SUITE)


def trained(folder, tiny_project, prepared, suite) -> Places:
    """What is there once a suite `smallest` of one training has been run in a folder and collected."""
    shutil.copytree(tiny_project / "params", folder / "params")
    (folder / "params/suites/smallest.yaml").write_text(suite)
    shutil.copytree(prepared, folder / "data")
    project = Project(folder, folder / "params", folder / "data")
    (experiment,) = load_experiments(folder / "params", ("smallest",)).values()
    project.train(experiment)
    project.evaluate(experiment)
    shutil.copy(folder / "data/tiny/manifest.json", _filled(paths.manifest_file(project.results, "tiny")))
    collect([experiment.origin], project.results, project.runs, paths.rows_file(project.results, "smallest"))
    return _places(folder)


def _filled(file: Path) -> Path:
    file.parent.mkdir(parents=True)
    return file


def _places(folder: Path) -> Places:
    names = ("params", "data", "results", "runs", "reports")
    return Places(**{f"{name}_dir": folder / name for name in names})


@pytest.fixture
def places(made, tmp_path):
    """A copy to work on."""
    shutil.copytree(made.params_dir.parent, tmp_path / "project")
    return _places(tmp_path / "project")


def _facts(places):
    config = params.load_config(places.params_dir)
    return plan.load_plan(places.params_dir, config, ("smallest",)).facts()["smallest"]


def _run_page(places):
    [file] = write_run_pages(places, paths.rows_file(places.results_dir, "smallest"), _facts(places))
    assert file == places.reports_dir / f"runs/{ID}.html"
    return file.read_text()


def _quoted(places):
    return sum(result.top1 is not None for result in params.load_published(places.params_dir).results)


def _index(places):
    index, claims = write_index(places, params.load_config(places.params_dir))
    return index.read_text(), claims.read_text()


def test_a_run_has_everything_that_is_known_of_it(places):
    page = _run_page(places)
    training = read_json(paths.train_folder(places.results_dir, ID) / paths.METRICS)
    for text in (
        training["checkpoint_sha256"], training["spec_hash"], training["data_fingerprint"], "weight_decay",
        training["provenance"]["code_hash"], "torch 2.", "training: good", "evaluation: good", "recu verify smallest",
        f"snakemake {places.results_dir}/evaluate/{ID}/metrics.json --cores all --config suites=smallest",
    ):  # fmt: skip
        assert text in page, text
    assert page.count("<svg") == 15, "panels: two of curves and of classes, eight of weights, three layers' histograms"
    assert "<dt>binariser</dt><dd>ReCU, activations and weights</dd>" in page
    state, target = places.runs_dir / ID, places.results_dir / f"train/{ID}/metrics.json"
    assert f'<pre class="command">mv {state} {state}.old &amp;&amp; snakemake --cores all' in page
    assert f"--forcerun {target}</pre>" in page
    assert 'href="../../../../../index.html"' in page
    assert (places.reports_dir / f"runs/{ID}.html").parent.joinpath("../../../../../index.html").parent.resolve() == (
        places.reports_dir.resolve()
    )


@pytest.mark.usefixtures("nothing_is_drawn")
def test_a_run_that_verify_finds_altered_says_so(places):
    checkpoint = paths.train_folder(places.results_dir, ID) / paths.BEST_CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes() + b" ")
    assert "training: altered: the checkpoint beside it is another" in _run_page(places)


def test_a_result_published_since_its_row_is_refused(places):
    for stage in ("train", "evaluate"):
        file = places.results_dir / stage / ID / paths.METRICS
        write_sealed_json(file, read_json(file) | {"checkpoint_sha256": "0" * 64})
    with pytest.raises(ResultError, match=r"published again since its row was collected: collect again: `snakemake"):
        _run_page(places)
    assert not places.reports_dir.exists()


@pytest.mark.usefixtures("nothing_is_drawn")
def test_pages_of_runs_that_are_no_more_go(places):
    old = places.reports_dir / "runs/smallest/old.html"
    _filled(old).write_text("old")
    other = places.reports_dir / "runs/other/kept.html"
    _filled(other).write_text("other")
    _run_page(places)
    assert not old.exists() and other.exists()


def test_the_index_has_the_suite_and_what_is_missing_costs(places):
    page, claims = _index(places)
    assert f'href="runs/{ID}.html"' in page and f"{_quoted(places)} published results: 0 run as" in page
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    whole = (
        "suites=cifar10 18 trainings of 10,800 epochs in all, time not known here CIFAR-10 resnet18_1w1a vanilla 92.80;"
    )
    assert f"snakemake --cores all --config {whole}" in text
    results = [line for line in text.split("snakemake --cores all --config ") if line.startswith("suites=imagenet ")]
    assert len(results) == 1 and "ImageNet resnet34_1w1a finetune 65.25" in results[0], "once, with all that it gives"
    assert claims.count(">not run<") > _quoted(places)


def test_a_suite_on_a_dataset_of_an_unknown_size_gives_what_it_may(places):
    datasets = places.params_dir / "datasets.yaml"
    text = datasets.read_text()
    datasets.write_text(re.sub(r"^  (train|test)_images: .*\n", "", text, flags=re.MULTILINE))
    assert datasets.read_text() != text
    page, _ = _index(places)
    whole = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert re.search(r"suites=cifar10 18 trainings .* CIFAR-10 resnet18_1w1a vanilla 92.80;", whole)


def test_results_of_other_parameters_are_not_shown(places):
    suite = places.params_dir / "suites/smallest.yaml"
    suite.write_text(SUITE.replace("epochs: 1", "epochs: 3"))
    page, _ = _index(places)
    assert ID not in page and "results of suite smallest are left out: they rest on other parameters" in page


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (
            lambda places: (places.params_dir / "suites/smallest.yaml").write_text("title: x"),
            "Suite smallest is left out",
        ),
        (
            lambda places: paths.rows_file(places.results_dir, "smallest").write_text("{}"),
            "results of suite smallest are left out: ",
        ),
    ],
)
def test_a_suite_that_cannot_be_read_does_not_take_the_others_away(places, break_it, said):
    break_it(places)
    page, _ = _index(places)
    assert said in page and f"{_quoted(places)} published results" in page


def test_rows_hold_the_losses_and_the_confusion_matrix(places):
    (row,) = read_record(paths.rows_file(places.results_dir, "smallest"), Rows, again="").rows
    assert len(row.curve.test_loss) == len(row.curve.train_loss) == 1
    assert sum(map(sum, row.confusion)) == row.test_images and row.classes == tuple(f"class{n}" for n in range(6))
