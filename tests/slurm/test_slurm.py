"""The workflow through profiles/slurm on a real Slurm, and what each kind of end of a job does: `make test-slurm`."""

import json
import re
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from recu.experiment import paths
from recu.experiment.paths import PROJECT_DIR
from tests.slurm.cluster import Cluster, missing, until
from tests.workflow.conftest import Project, environment, make_project

REASON = missing() or (None if find_spec("snakemake_executor_plugin_slurm") else "needs the extra `slurm`")
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]

VANILLA = paths.EXPERIMENT_ID.format(
    suite="smallest", dataset="tiny", labelled_network="cifar.resnet20_1w1a", method="vanilla", seed=1
)
SMALL = ("--set-threads", "train=1", "evaluate=1", "prepare=1")
# Without accounting only squeue can say how jobs ended.
QUICK = (
    "--slurm-status-command",
    "squeue",
    "--slurm-init-seconds-before-status-checks",
    "2",
    "--latency-wait",
    "5",
    "--slurm-keep-successful-logs",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One node with two fake GPUs."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), gpus=2)
    yield made
    print(f"\n{made.job_list()}")
    made.stop()


@pytest.fixture
def long(tmp_path):
    """A project whose first training takes about a minute and a half."""
    project = make_project(tmp_path)
    project.edit("suites/smallest.yaml", "vanilla: {epochs: 2}", "vanilla: {epochs: 60}")
    return project


@contextmanager
def workflow(project: Project, cluster: Cluster, *arguments: str, minutes: int = 10, resource: str = "mem_mb=500"):
    """The workflow, running; its output goes to a file."""
    command = [sys.executable, "-m", "snakemake", "-s", str(PROJECT_DIR / "Snakefile"), *arguments]
    command += ["--workflow-profile", str(PROJECT_DIR / "profiles/slurm"), *SMALL, *QUICK]
    command += ["--default-resources", "mem_mb=500", "runtime=10"]
    command += ["--set-resources", "prepare:mem_mb=500", f"train:runtime={minutes}", f"train:{resource}"]
    with (project.folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command, cwd=project.folder, env=environment() | cluster.environment(), stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        cluster("scancel", "--user", "root")


def said(project: Project) -> str:
    logs = sorted((project.folder / "results/logs").rglob("*.log"))
    return "\n".join([(project.folder / "output.txt").read_text(), *(log.read_text() for log in logs)])


def metrics_of(project: Project) -> dict:
    return json.loads((paths.train_folder(project.folder / "results", VANILLA) / paths.METRICS).read_text())


def trains(project: Project, epochs: int):
    """Whether the state of the training has reached so many epochs."""

    def reached():
        found = list((project.folder / "runs" / VANILLA).glob(f"*/{paths.HISTORY}"))
        return found and len(found[0].read_text().splitlines()) >= epochs

    return reached


def finish(process: subprocess.Popen, project: Project) -> None:
    assert process.wait(timeout=600) == 0, said(project)


def uninterrupted(project: Project, tmp_path_factory) -> str:
    """Hash of the checkpoint that the same training gives in one piece."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    experiment = metrics_of(project)["segments"][-1]["experiment"]
    places = [f"--{name}_dir={folder / name}" for name in ("results", "runs")]
    command = [sys.executable, "-m", "recu", "train", "--experiment", experiment, *places, "--data_dir=data"]
    command += ["--tracking_uri=", "--gpus=cpu", "--threads=1"]
    subprocess.run(
        command,
        cwd=project.folder,
        env=environment() | {"PYTHONPATH": str(PROJECT_DIR)},
        check=True,
        capture_output=True,
    )
    return json.loads((paths.train_folder(folder / "results", VANILLA) / paths.METRICS).read_text())[
        "checkpoint_sha256"
    ]


def test_preempted_three_times_and_finished_by_the_whole_workflow(long, cluster, tmp_path_factory):
    with workflow(long, cluster, "--config", "gpus=cpu") as process:
        for epochs in (2, 5, 8):
            until(trains(long, epochs), 240)
            (job,) = until(lambda: cluster.jobs("train", "RUNNING"), 60)
            before = int(cluster.shown(job)["Restarts"])
            cluster.preempt()
            until(lambda job=job, before=before: int(cluster.shown(job)["Restarts"]) > before, 60)
        finish(process, long)
    assert (long.folder / "reports/smallest.md").exists()
    pieces = metrics_of(long)["segments"]
    assert len(pieces) == 4 and {piece["provenance"]["slurm_job"] for piece in pieces} == {job}
    assert "Trying to restart" not in said(long), "preemption takes none of Snakemake's attempts"
    assert metrics_of(long)["checkpoint_sha256"] == uninterrupted(long, tmp_path_factory)
    assert slurm_tags(long) >= {job}


def slurm_tags(project: Project) -> set[str | None]:
    """The tag of every run in the project's MLflow store."""
    code = (
        "from recu.tracking.client import connect; client = connect('sqlite:///mlflow.db')\n"
        "ids = [found.experiment_id for found in client.search_experiments()]\n"
        "print(*(run.data.tags.get('slurm_job') for run in client.search_runs(ids)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.folder,
        env=environment() | {"PYTHONPATH": str(PROJECT_DIR)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(answer.stdout.split())


def test_time_limits_are_met_with_the_state_saved(long, cluster, tmp_path_factory):
    long.edit("suites/smallest.yaml", "epochs: 60", "epochs: 200")  # longer than Slurm's shortest limit, a minute
    target = str(paths.train_folder(Path("results"), VANILLA) / paths.METRICS)
    with workflow(long, cluster, target, "--config", "gpus=cpu", minutes=1) as process:
        finish(process, long)
    pieces = metrics_of(long)["segments"]
    assert len(pieces) > 1 and len({piece["provenance"]["slurm_job"] for piece in pieces}) == 1
    assert "Trying to restart" not in said(long)
    assert metrics_of(long)["checkpoint_sha256"] == uninterrupted(long, tmp_path_factory)


def test_scancel_signals_and_a_lost_node(long, cluster, tmp_path_factory):
    """With two GPUs asked for."""
    target = str(paths.train_folder(Path("results"), VANILLA) / paths.METRICS)
    with workflow(long, cluster, target, resource="gpu=2") as process:
        until(trains(long, 2), 240)
        (job,) = until(lambda: cluster.jobs("train", "RUNNING"), 60)
        assert "gpu:2" in cluster.shown(job)["TresPerJob"]
        # To every process of the step: the training, its helpers, and the Snakemake between.
        cluster("scancel", "--signal=USR1", job)
        until(lambda: int(cluster.shown(job)["Restarts"]) == 1, 60)
        until(lambda: cluster.jobs("train", "RUNNING"), 120)
        reached = len(next((long.folder / "runs" / VANILLA).glob(f"*/{paths.HISTORY}")).read_text().splitlines())
        until(trains(long, reached + 2), 240)
        cluster.stop_node()
        until(lambda: cluster.jobs("train", "PENDING"), 60)
        cluster.start_node()
        until(lambda: cluster.jobs("train", "RUNNING"), 120)
        reached = len(next((long.folder / "runs" / VANILLA).glob(f"*/{paths.HISTORY}")).read_text().splitlines())
        until(trains(long, reached + 2), 240)
        cluster("scancel", job)
        (again,) = until(lambda: cluster.jobs("train", "RUNNING"), 120)
        assert again != job
        finish(process, long)
    assert "Trying to restart" in said(long), "scancel is for Snakemake to answer"
    assert "the process that sends" not in said(long) and "Traceback" not in said(long)
    assert metrics_of(long)["checkpoint_sha256"] == uninterrupted(long, tmp_path_factory)


def test_preemption_that_cancels(long, cluster):
    target = str(paths.train_folder(Path("results"), VANILLA) / paths.METRICS)
    with workflow(long, cluster, target, "--config", "gpus=cpu", resource="slurm_partition=cancelling") as process:
        until(trains(long, 2), 240)
        cluster.preempt()
        (job,) = until(lambda: cluster.jobs("train", "PENDING"), 60)
        until(lambda: cluster.jobs("train", "RUNNING"), 120)
        finish(process, long)
    assert {piece["provenance"]["slurm_job"] for piece in metrics_of(long)["segments"]} == {job}


def test_a_failing_job_is_not_tried_for_ever(long, cluster):
    target = str(paths.train_folder(Path("results"), VANILLA) / paths.METRICS)
    long.edit("suites/smallest.yaml", "warm_up: false", "warm_up: false, lr: 1.0e+30")
    with workflow(long, cluster, target, "--config", "gpus=cpu") as process:
        assert process.wait(timeout=600) == 1
    assert len(re.findall("Trying to restart", said(long))) == 3 and "not tried again" in said(long)


def test_a_cluster_without_gpus_is_named(long, tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("no-gpus"))
    try:
        with workflow(long, cluster) as process:
            assert process.wait(timeout=120) == 2, said(long)
        assert "this Slurm cluster has none (sinfo): let them use CPUs with --config gpus=cpu" in said(long)
        assert cluster.jobs("prepare", "PENDING", "RUNNING", "COMPLETED") == []
    finally:
        cluster.stop()
