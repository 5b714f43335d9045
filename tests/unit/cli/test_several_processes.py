"""One command line as several processes: its faults, its launchers, and that the same bits come out in the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recu.cli import options
from recu.experiment.paths import PROJECT_DIR
from recu.results.records import TrainingRecord, read_record
from recu.training.checkpoint import read_checkpoint
from tests.unit.training.tiny import same

WORDS = "train --dataset digits --model resnet20_1w1a --epochs 1 -b 128 --gpus cpu --print_freq 2 --tracking_uri="
ENVIRONMENT = os.environ | {"PYTHONPATH": str(PROJECT_DIR), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
RECU = [sys.executable, "-P", "-m", "recu"]
AT_ONCE_S, WITHIN_S = 300, 60


def start(folder: Path, *more: str, command=(*RECU,), environment=ENVIRONMENT) -> subprocess.Popen:
    words = [*command, *WORDS.split(), "--data_dir", str(folder.parent / "data"), *more]
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def in_training(job: subprocess.Popen) -> dict[int, int]:
    """Wait until a job trains; its processes by rank."""
    said = []
    for line in job.stdout:
        said.append(line)
        if ", step 2 of" in line:
            break
    else:
        raise AssertionError("".join(said))
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(job.pid)], capture_output=True, text=True, check=True)
    ranks = {}
    for word in listed.stdout.split():
        for entry in Path(f"/proc/{word}/environ").read_bytes().split(b"\0"):
            if entry.startswith(b"RANK="):
                ranks[int(entry[5:])] = int(word)
    assert sorted(ranks) == [0, 1]
    return ranks


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def finish(folder: Path, *more: str, **how) -> TrainingRecord:
    job = start(folder, "--save", "one", *more, **how)
    said, _ = job.communicate(timeout=AT_ONCE_S)
    assert job.returncode == 0, said
    return read_record(folder / "results/one/metrics.json", TrainingRecord, again="")


def weights(folder: Path) -> dict:
    return read_checkpoint(folder / "results/one/model_best.pth.tar")["state_dict"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """A training by two processes that nothing interrupts."""
    folder = tmp_path_factory.mktemp("several") / "straight"
    folder.mkdir()
    record = finish(folder, "--processes", "2")
    (piece,) = record.segments
    assert piece.shared is not None and record.provenance.device.startswith("2 x CPU")
    assert vars(piece.shared) == {"processes": 2, "batch_per_process": 64, "batch_norm_batch": 64}
    return folder


@pytest.fixture
def folder(straight, request) -> Path:
    found = straight.parent / request.node.name.replace("[", "-").strip("]")
    found.mkdir()
    return found


FAULTS = {
    "SIGTERM to the command": (signal.SIGTERM, ["job"], 75),
    "SIGUSR1 to the command": (signal.SIGUSR1, ["job"], 75),
    "SIGTERM to one process": (signal.SIGTERM, [1], 75),
    "SIGTERM to all": (signal.SIGTERM, [0, 1, "job"], 75),
    "SIGKILL of the first process": (signal.SIGKILL, [0], 75),
    "SIGKILL of another process": (signal.SIGKILL, [1], 75),
    "SIGKILL of the command": (signal.SIGKILL, ["job"], -signal.SIGKILL),
    "a process that hangs": (signal.SIGSTOP, [1], 75),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_all_in_one_line_and_the_same_command_continues(straight, folder, fault):
    number, whom, code = FAULTS[fault]
    limit = ["--stall_minutes", "0.1"] if number == signal.SIGSTOP else []
    job = start(folder, "--save", "one", "--processes", "2", *limit)
    ranks = in_training(job)
    for each in whom:
        os.kill(ranks.get(each, job.pid), number)
    until = time.monotonic() + WITHIN_S
    while any(map(runs, [*ranks.values(), job.pid])) and time.monotonic() < until:
        time.sleep(0.2)
        job.poll()
    assert not any(map(runs, ranks.values()))
    said = job.stdout.read()
    assert job.wait(1) == code, said
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1, said
    assert "Traceback" not in said and "run the same command again" in said
    finish(folder, "--processes", "2")
    assert same(weights(folder), weights(straight))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_all_with_its_code(straight, folder):
    job = start(folder, "--save", "one", "--processes", "2", "--lr", "1e30", "--no-warm_up")
    said, _ = job.communicate(timeout=AT_ONCE_S)
    assert job.returncode == 3, said
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1 and "Traceback" not in said


@pytest.mark.slow
def test_another_number_of_processes_continues_and_the_record_says_so(straight, folder):
    job = start(folder, "--save", "one", "--processes", "2")
    os.kill(in_training(job)[1], signal.SIGTERM)
    job.communicate(timeout=AT_ONCE_S)
    assert job.returncode == 75
    job = start(folder, "--save", "one")
    said, _ = job.communicate(timeout=AT_ONCE_S)
    assert job.returncode == 0 and "epoch 1 begins anew" in said and "world_size 2 -> 1" in said, said
    record = read_record(folder / "results/one/metrics.json", TrainingRecord, again="")
    assert [piece.shared for piece in record.segments] == [None]


@pytest.mark.slow
def test_torchrun_and_srun_start_the_same(straight, folder):
    torchrun = ["torchrun", "--standalone", "--nproc_per_node", "2", "--no-python", *RECU]
    finish(folder, command=[sys.executable, "-m", "torch.distributed.run", *torchrun[1:]])
    assert same(weights(folder), weights(straight))
    (folder / "slurm").mkdir()
    step = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2"}
    step |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "29517"}
    jobs = [
        start(
            folder / "slurm", "--save", "one", environment=ENVIRONMENT | step | {"SLURM_PROCID": n, "SLURM_LOCALID": n}
        )
        for n in ("0", "1")
    ]
    said = [job.communicate(timeout=AT_ONCE_S)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert "finished: best epoch" in said[0] and not said[1]
    assert same(weights(folder / "slurm"), weights(straight))


@pytest.mark.slow
def test_a_wrong_option_is_one_line_of_the_first_process(straight, folder):
    job = start(folder, "--processes", "2", "--model", "resnet21")
    said, _ = job.communicate(timeout=AT_ONCE_S)
    assert job.returncode == 2, said
    assert [line for line in said.splitlines() if line.startswith("error: ")] == [said.splitlines()[-1]], said


def test_devices_and_processes_that_do_not_agree_are_refused(recu):
    assert recu.train("--gpus", "0,1", "--processes", 3) == 2
    assert "names 2 devices for 3 processes" in recu.error()
    assert recu.train("--processes", -1) == 2
    assert "--processes is -1" in recu.error()
    assert recu.train("--stall_minutes", 0) == 2
    assert "--stall_minutes is 0.0" in recu.error()


def test_one_process_neither_launches_nor_joins(recu, monkeypatch):
    monkeypatch.setattr(options, "_quiet_pytorch", lambda: pytest.fail("several processes"))
    assert recu.train("--save", "one", "--epochs", 1) == 0, recu.err
