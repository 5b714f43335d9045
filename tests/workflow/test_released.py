"""A suite of released checkpoint files through the real Snakefile: published and measured, never trained."""

import json
import os
from pathlib import Path

import pandas
import pytest
import torch

from recu.models import build_model
from tests.workflow.conftest import Project, make_project

pytestmark = pytest.mark.workflow

FILES = """
title: Files of others
description: Nothing is trained.
dataset: tiny
files:
  - {name: now, path: files/now.pth.tar, model: resnet20_1w1a, method: vanilla, claimed_top1: 99.0, claimed_on: tiny,
     obtain: ask for it}
  - {name: early, path: files/early.pth.tar, model: resnet20_1w1a, method: finetune, claimed_top1: 50.0, obtain: ask}
"""
SUITE = "suites=files"


def write_checkpoint(file: Path, variant: str | None, zipped: bool) -> None:
    torch.manual_seed(1)
    network = build_model("resnet20_1w1a", family="cifar", num_classes=2, variant=variant)
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    file.parent.mkdir(exist_ok=True)
    torch.save({"epoch": 600, "state_dict": state}, file, _use_new_zipfile_serialization=zipped)


def add_files_suite(project: Project) -> None:
    (project.folder / "params/suites/files.yaml").write_text(FILES)
    write_checkpoint(project.folder / "files/now.pth.tar", None, zipped=True)
    write_checkpoint(project.folder / "files/early.pth.tar", "2021-03", zipped=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Project:
    """A project whose two files are measured; tests leave it as they found it."""
    project = make_project(tmp_path_factory.mktemp("measured"))
    add_files_suite(project)
    result = project.snakemake("--config", SUITE)
    assert result.returncode == 0, result.stdout + result.stderr
    return project


def test_files_are_measured_and_nothing_is_trained(measured: Project):
    now, early = (
        json.loads((measured.folder / f"results/evaluate/files/{name}/metrics.json").read_text())
        for name in ("now", "early")
    )
    assert (now["variant"], early["variant"]) == (None, "2021-03")
    published = json.loads((measured.folder / "results/train/files/now/metrics.json").read_text())
    assert now["n"] == early["n"] == 20 and published["load"]["taken"] == published["load"]["expected"] > 0
    assert not list((measured.folder / "results/train").rglob("checkpoint*"))
    checkpoint = measured.folder / "results/train/files/now/model_best.pth.tar"
    assert checkpoint.samefile(measured.folder / "files/now.pth.tar"), "it lies on disk once"
    table = pandas.read_csv(measured.folder / "reports/files.csv").set_index("file")
    assert table.loc["now", "claimed_top1"] == 99 and table.loc["now", "top1"] == now["top1"]
    assert table.loc["now", "verdict"] == "differs" and table.loc["early", "verdict"] == "not comparable"
    for suffix in ("md", "html", "json", "tex"):
        assert "Files of others" in (measured.folder / f"reports/files.{suffix}").read_text()
    assert not (measured.folder / "reports/figures").exists()
    assert "claimed 99.00 %" in (measured.folder / "reports/runs/files/now.html").read_text()


def test_each_measurement_is_a_run(measured: Project):
    import mlflow

    from recu.tracking.mirror import bring
    from recu.tracking.sync import find_runs

    uri = f"sqlite:///{measured.folder}/mlflow.db"
    # Measurements this short may end before a busy machine's store has answered.
    for folders in find_runs(measured.folder / "runs", [measured.folder / "results"]):
        assert bring(folders, uri).left == []
    client = mlflow.MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("files").experiment_id])
    assert sorted(run.data.tags["network"] for run in runs) == ["cifar-2021-03.resnet20_1w1a", "cifar.resnet20_1w1a"]
    assert all("test/top1" in run.data.metrics for run in runs)


def test_only_another_file_is_measured_again(measured: Project):
    assert measured.planned("--config", SUITE) == set()
    file = measured.folder / "files/now.pth.tar"
    stamp = file.stat().st_mtime_ns
    os.utime(file, ns=(stamp, stamp + 1))
    assert measured.planned("--config", SUITE) == set(), "it is the same file at another time"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = {"publish", "evaluate", "collect", "report_released", "pages", "index", "all"}
    assert measured.planned("--config", SUITE) == again
    early = "results/evaluate/files/early/metrics.json"
    assert measured.planned(early, "--config", SUITE) == set()
    file.write_bytes(content)
    aside = file.rename(file.with_name("aside"))
    assert measured.planned("--config", SUITE) == set(), "a result outlives its file"
    aside.rename(file)


def test_both_kinds_of_suites_share_a_call_and_have_aliases(project: Project):
    add_files_suite(project)
    both = ("--config", "suites=[smallest,files]")
    assert {"train", "publish", "evaluate", "collect", "report", "report_released"} <= project.planned(*both)
    assert project.planned("evaluate-files-early", *both) & {"train", "report_released"} == set()
    assert {"publish", "evaluate"} <= project.planned("evaluate-files-early", *both)
    assert "report_released" in project.planned("table-files", *both)


def test_missing_files_are_named_while_planning_and_fail_alone(project: Project):
    add_files_suite(project)
    (project.folder / "files/now.pth.tar").unlink()
    plan = project.snakemake("-n", "--quiet", "host", "--config", SUITE)
    assert plan.returncode == 0, plan.stderr
    assert "note: released file files/now.pth.tar is not here yet: ask for it" in plan.stderr
    assert "files/early.pth.tar" not in [line for line in plan.stderr.splitlines() if line.startswith("note: ")]
    result = project.snakemake("--config", SUITE)
    assert result.returncode != 0
    log = (project.folder / "results/logs/publish/files/now.log").read_text()
    assert "error: released file files/now.pth.tar is not here: ask for it; put it there, or change its `path`" in log
    assert "Traceback" not in log
    assert (project.folder / "results/evaluate/files/early/metrics.json").is_file()
    assert not list((project.folder / "results/train").rglob("now/*"))
    assert not (project.folder / "reports/files.md").exists()


def test_a_mistake_in_a_suite_of_files_is_one_line_and_exit_code_2(project: Project):
    add_files_suite(project)
    project.edit("suites/files.yaml", "name: now, path", "nmae: now, path")
    result = project.snakemake("-n", "--config", SUITE)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "params/suites/files.yaml: files.0.name: missing" in result.stderr and "did you mean 'name'" in result.stderr
