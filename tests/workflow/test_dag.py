"""The whole DAG at the smallest size: what it leaves, and what makes its parts run again."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pandas
import pytest

from recu.experiment.paths import PROJECT_DIR
from recu.results.records import SpeedRecord, as_record
from tests.workflow.conftest import Project, environment

pytestmark = pytest.mark.workflow

NETWORK = "smallest/tiny/cifar.resnet20_1w1a"


@pytest.fixture
def restored(finished: Project):
    """The finished project, whose params come back as they were."""
    kept = {file: file.read_bytes() for file in (finished.folder / "params").rglob("*.yaml")}
    yield finished
    for file, content in kept.items():
        file.write_bytes(content)


def test_the_finetune_rests_on_the_vanilla_checkpoint(finished: Project):
    vanilla, finetune = (
        json.loads((finished.folder / f"results/train/{NETWORK}/{method}/seed1/metrics.json").read_text())
        for method in ("vanilla", "finetune")
    )
    assert finetune["parent"]["spec_hash"] == vanilla["spec_hash"]
    assert finetune["parent"]["checkpoint_sha256"] == vanilla["checkpoint_sha256"]


def test_each_best_checkpoint_lies_on_disk_once_and_no_state_is_left(finished: Project):
    published = sorted(finished.folder.glob("results/train/**/model_best.pth.tar"))
    again = sorted(finished.folder.glob("runs/**/model_best.pth.tar"))
    assert len(published) == len(again) == 2
    assert {file.stat().st_ino for file in published} == {file.stat().st_ino for file in again}
    assert not list(finished.folder.glob("runs/**/checkpoint*"))


def test_nothing_runs_twice(finished: Project):
    assert finished.planned() == set()


def test_comments_and_other_suites_rerun_nothing(restored: Project):
    restored.edit("suites/smallest.yaml", "dataset: tiny", "# A comment.\ndataset: tiny")
    restored.edit("suites/demo.yaml", "epochs: 5", "epochs: 7")
    assert restored.planned() == set()


def test_a_changed_finetune_reruns_itself_and_its_dependents_only(restored: Project):
    restored.edit("suites/smallest.yaml", "finetune: {epochs: 1}", "finetune: {epochs: 2}")
    assert restored.planned() == {"train", "evaluate", "collect", "report", "pages", "index", "all"}
    vanilla = f"results/train/{NETWORK}/vanilla/seed1/metrics.json"
    assert restored.planned(vanilla) == set()


def test_a_new_row_leaves_finished_rows_alone(restored: Project):
    restored.edit("suites/smallest.yaml", "rows:", "rows:\n  - model: vgg_small_1w1a")
    assert restored.planned(f"results/evaluate/{NETWORK}/finetune/seed1/metrics.json") == set()
    assert "train" in restored.planned()


def test_another_suite_runs_as_a_whole_after_the_first(restored: Project):
    suites = restored.folder / "params/suites"
    (suites / "other.yaml").write_text((suites / "smallest.yaml").read_text())
    restored.edit("config.yaml", "suites: smallest", "suites: other")
    # All but the dataset, which both share.
    assert restored.planned() == {"prepare_tracking", "train", "evaluate", "collect", "report", "pages", "index", "all"}


def test_tracking_workers_device_and_neutral_settings_rerun_nothing(restored: Project):
    restored.edit("suites/smallest.yaml", "{batch_size: 8,", "{batch_size: 8, batch_size_test: 5, loader: memory,")
    restored.edit("config.yaml", "workers: 2", "workers: 1")
    restored.edit("config.yaml", 'gpus: ""', 'gpus: "cpu"')
    restored.edit("config.yaml", "sqlite:///mlflow.db", "sqlite:///other.db")
    assert restored.planned() == set()


def test_packed_files_are_made_and_listed_where_they_are_wanted(project: Project):
    result = project.snakemake("--config", "packed=true")
    assert result.returncode == 0, result.stdout + result.stderr
    table = pandas.read_csv(project.folder / "reports/smallest.csv")
    for method, size in zip(("vanilla", "finetune"), table["packed_bytes"], strict=True):
        folder = project.folder / f"results/export/{NETWORK}/{method}/seed1"
        said = json.loads((folder / "metrics.json").read_text())
        assert (folder / "network.recu").stat().st_size == said["size_bytes"] == size
        assert said["test_images"] == 20 and said["other_class"] == 0
    verify = [sys.executable, "-m", "recu", "verify", "smallest", "--strict"]
    verified = subprocess.run(
        verify, cwd=project.folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert project.planned("--config", "packed=true") == set()
    # Nothing is trained or measured again without them.
    assert project.planned() == {"collect", "report", "pages", "index", "all"}


def test_speeds_are_measured_listed_and_measured_again_where_they_are_of_something_else(project: Project, monkeypatch):
    wanted, file = ("--config", "benchmark=true"), f"results/speed/{NETWORK}/vanilla/seed1/metrics.json"
    project.edit("suites/smallest.yaml", "  finetune: {epochs: 1}\n", "")
    result = project.snakemake(*wanted)
    assert result.returncode == 0, result.stdout + result.stderr
    said = json.loads((project.folder / file).read_text())
    (line,) = pandas.read_csv(project.folder / "reports/smallest.csv").to_dict("records")
    assert line["packed_ms"] == round(said["packed"]["ms"], 9) and line["speed_threads"] == 2
    up = as_record(said, SpeedRecord).speed_up_batches  # None where this machine is busy just now
    assert line["speedup_batches"] == pytest.approx(up) if up else pandas.isna(line["speedup_batches"])
    assert line["packed_bytes"] > 0
    assert line["speed_device"] == said["provenance"]["device"]
    shown = (project.folder / "reports/smallest.md").read_text()
    assert "speed-up over float (batches)" in shown and line["speed_device"] in shown
    verify = [sys.executable, "-m", "recu", "verify", "smallest", "--strict"]
    verified = subprocess.run(
        verify, cwd=project.folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert project.planned(*wanted) == set()
    # By another version of what the loops are compiled by.
    newer = project.folder / "newer/numba-9.9.dist-info/METADATA"
    newer.parent.mkdir(parents=True)
    newer.write_text("Metadata-Version: 2.1\nName: numba\nVersion: 9.9\n")
    with monkeypatch.context() as changed:
        changed.setenv("PYTHONPATH", f"{newer.parent.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        assert project.planned(*wanted) == {"speed", "collect", "report", "pages", "index", "all"}
    assert project.planned(*wanted) == set()
    # Of another checkpoint.
    project.edit("suites/smallest.yaml", "vanilla: {epochs: 2}", "vanilla: {epochs: 1}")
    result = project.snakemake(file, *wanted)
    assert result.returncode == 0, result.stdout + result.stderr
    again = json.loads((project.folder / file).read_text())
    packed = json.loads((project.folder / file.replace("speed", "export", 1)).read_text())
    assert said["packed_sha256"] != again["packed_sha256"] == packed["packed_sha256"]


def test_devices_of_a_training_are_handed_on(project: Project):
    target = f"results/evaluate/{NETWORK}/vanilla/seed1/metrics.json"
    for number, said in ((0, 0), (2, 2)):
        result = project.snakemake(target, "-n", "-p", "--config", f"gpus_per_training={number}")
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("--processes 2") == said, "training and evaluation"
    result = project.snakemake("-n", "--config", "gpus_per_training=3", "gpus=0,1")
    assert result.returncode == 2 and "error: gpus '0,1' names 2 devices for 3 processes" in result.stderr


def test_one_experiment_alone_by_file_and_by_alias(project: Project):
    file = f"results/train/{NETWORK}/vanilla/seed1/metrics.json"
    for target in (file, f"train-{NETWORK.replace('/', '-')}-vanilla-seed1"):
        assert {"prepare", "train"} <= project.planned(target)
        assert "evaluate" not in project.planned(target)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("suites/smallest.yaml", "resnet20_1w1a", "resnet21_1w1a", "did you mean 'resnet20_1w1a'"),
        ("suites/smallest.yaml", "dataset: tiny", "dataset: tniy", "did you mean 'tiny'"),
        ("suites/smallest.yaml", "epochs: 2", "epochs: -2", "vanilla.epochs: should be greater than or equal to 1"),
        ("config.yaml", "suites: smallest", "suites: smalest", "did you mean 'smallest'"),
        ("config.yaml", "workers: 2", "wrokers: 2", "wrokers: unknown key; did you mean 'workers'"),
        ("config.yaml", "workers: 2", "workers: 2\nworkers: 3", "key 'workers' appears twice"),
    ],
)
def test_a_mistake_in_params_is_one_line_and_exit_code_2(project: Project, file, old, new, message):
    project.edit(file, old, new)
    result = project.snakemake("-n")
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        (
            "train-smallest-tiny-cifar.resnet20_1w1a-vanila-seed1",
            "did you mean train-smallest-tiny-cifar.resnet20_1w1a-van",
        ),
        ("table-cifar10", "suite cifar10 is not chosen (chosen: smallest): add --config suites=smallest,cifar10"),
        (f"results/train/{NETWORK}/vanilla/seed2/metrics.json", f"did you mean '{NETWORK}/vanilla/seed1'"),
    ],
)
def test_a_target_that_nothing_makes_is_one_line_and_exit_code_2(project: Project, target, answer):
    result = project.snakemake(target)
    assert result.returncode == 2
    assert answer in result.stderr.splitlines()[-1]
    assert "Exception" not in result.stderr and not (project.folder / "results").exists()


def test_numbers_in_the_configuration_and_params_of_another_folder(project: Project):
    suites = project.folder / "params/suites"
    (suites / "2024.yaml").write_text((suites / "smallest.yaml").read_text())
    numbers = ("--config", "suites=2024", "gpus=0", "sources={tiny: images}", "workers='1'")
    assert "train" in project.planned("table-2024", *numbers)
    elsewhere = project.folder / "elsewhere"
    elsewhere.mkdir()
    result = Project(elsewhere).snakemake("-n", "--quiet", "rules")
    assert result.returncode == 0, result.stderr
    assert f"note: there is no params/ in {elsewhere}, so {PROJECT_DIR}/params is used" in result.stderr


@pytest.mark.slow
def test_a_diverged_training_is_not_tried_again(project: Project):
    project.edit("suites/smallest.yaml", "vanilla: {epochs: 2}", "vanilla: {epochs: 2, lr: 1.0e+30}")
    target = f"results/train/{NETWORK}/vanilla/seed1/metrics.json"
    result = project.snakemake(target, "--retries", "2")
    assert result.returncode == 1
    log = next(project.folder.glob("runs/**/train.log")).read_text()
    assert log.count(f"training {NETWORK}/vanilla/seed1") == 1
    said = (project.folder / f"results/logs/train/{NETWORK}/vanilla/seed1.log").read_text()
    assert "not tried again, since it would end the same way" in said and "error: " in said


def test_a_suite_of_two_thousand_experiments_is_handed_over_in_files(project: Project, tmp_path_factory):
    from recu.cli.main import main
    from recu.experiment import plan
    from recu.experiment.params import load_config
    from recu.experiment.suite_facts import SuiteFacts

    seeds = ", ".join(map(str, range(1, 1001)))
    project.edit("suites/smallest.yaml", "seeds: [1]", f"seeds: [{seeds}]")
    params = project.folder / "params"
    facts = plan.load_plan(params, load_config(params)).facts()["smallest"]
    assert isinstance(facts, SuiteFacts) and len(facts.experiments) == 2000
    folder = tmp_path_factory.mktemp("facts")
    plan.write_facts(folder, facts)
    file = plan.facts_file(folder, facts)
    assert file.stat().st_size > 128 * 1024, "more than a word of a command can hold"
    words = [
        "report",
        "collect",
        "--suite",
        str(file),
        "--results_dir",
        str(folder),
        "--output",
        str(folder / "rows.json"),
    ]
    assert main(words) == 2, "read as a whole, and the first result is missing"
    assert not (folder / "rows.json").exists()


def test_a_killed_training_continues_where_it_stopped(project: Project):
    project.edit("suites/smallest.yaml", "vanilla: {epochs: 2}", "vanilla: {epochs: 10}")
    target = f"results/train/{NETWORK}/vanilla/seed1/metrics.json"
    # One core, and so one thread: two that wait for each other take minutes on a busy machine.
    command = [sys.executable, "-m", "snakemake", target, "-s", str(PROJECT_DIR / "Snakefile"), "--cores", "1"]
    process = subprocess.Popen(
        command,
        cwd=project.folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    history = wait_for_epochs(project, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reached = len(history.read_text().splitlines())
    assert project.snakemake("--unlock").returncode == 0
    result = project.snakemake(target, "--cores", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    epochs = [json.loads(line)["epoch"] for line in history.read_text().splitlines()]
    assert epochs == list(range(10))
    log = next(project.folder.glob("runs/**/train.log")).read_text()
    assert "resum" in log.lower() or "continu" in log.lower()
    assert 3 <= reached < 10


def wait_for_epochs(project: Project, count: int):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for history in project.folder.glob("runs/**/history.jsonl"):
            if len(history.read_text().splitlines()) >= count:
                return history
        time.sleep(0.05)
    raise AssertionError("training did not begin")


@pytest.mark.parametrize("suites", ["cifar10", "cifar100"])
def test_planning_five_seeds_takes_seconds(tmp_path, suites):
    import shutil

    from recu.experiment.paths import PARAMS_DIR

    shutil.copytree(PARAMS_DIR, tmp_path / "params")
    project = Project(tmp_path)
    project.edit(f"suites/{suites}.yaml", "seeds: [1, 2, 3]", "seeds: [1, 2, 3, 4, 5]")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = project.snakemake("-n", "--quiet", "host", "--config", f"suites={suites}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    assert "note: dataset" in result.stderr, "says which data is missing"
    # Seconds computed, which do not depend on what else the machine does.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
