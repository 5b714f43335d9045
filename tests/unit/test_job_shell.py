"""workflow/job.sh: which ends of a job are worth another attempt."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recu.experiment import plan
from recu.experiment.paths import PROJECT_DIR


def outside_slurm() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}


class Job:
    """`job`, with a program in place of Python that ends with the next of the given codes and counts its calls."""

    def __init__(self, folder: Path, *codes: int | str) -> None:
        self.folder, self.log = folder, folder / "log of it"
        (folder / "codes").write_text("".join(f"{code}\n" for code in codes))
        self.program = folder / "fake python"
        self.program.write_text(
            "#!/bin/bash\n"
            'echo "$@" >> calls\n'
            "code=$(sed -n 1p codes); sed -i 1d codes\n"
            'echo "error: the reason" >&2\n'
            "[[ $code =~ ^[0-9]+$ ]] && exit $code\n"
            "kill -$code $$\n"
        )
        self.program.chmod(0o755)

    def command(self, attempt: int, end_time: str = "0") -> str:
        prefix = plan.shell_prefix(str(self.program), PROJECT_DIR, remote=True).format()
        log = shlex.quote(str(self.log))
        return f"{prefix}end_time={end_time}; job {attempt} {log} train --x 'a b' > {log} 2>&1"

    def __call__(self, attempt: int = 1, end_time: str = "0", **environment: str) -> int:
        command = ["bash", "-c", self.command(attempt, end_time)]
        environment = outside_slurm() | environment
        return subprocess.run(command, cwd=self.folder, env=environment, check=False).returncode

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("code", [2, 3])
def test_what_would_end_the_same_way_is_not_tried_again(tmp_path, code):
    job = Job(tmp_path, code, 0)
    assert job() == code and len(job.calls) == 1
    for attempt in (2, 3):
        assert job(attempt) == code and len(job.calls) == 1
        assert "not tried again" in job.log.read_text() and "error: the reason" in job.log.read_text()


def test_the_same_command_by_a_person_is_tried_again(tmp_path):
    job = Job(tmp_path, 2, 0)
    assert job() == 2
    assert job() == 0 and len(job.calls) == 2


@pytest.mark.parametrize("end", [75, "KILL"])
def test_an_interrupted_or_killed_job_continues_at_once(tmp_path, end):
    job = Job(tmp_path, end, 0)
    assert job() == 0
    assert job.calls == ["-m recu train --x a b"] * 2
    assert "continuing" in job.log.read_text()


def test_not_for_ever(tmp_path):
    job = Job(tmp_path, *[75] * 9)
    assert job() == 75 and len(job.calls) == 3
    assert job(2) == 75 and len(job.calls) == 6, "Snakemake's next attempt continues too"


@pytest.mark.parametrize("end", [1, 4, 130, "TERM"])
def test_other_ends_are_left_to_snakemake(tmp_path, end):
    job = Job(tmp_path, end, 0)
    assert job() not in (0, 75) and len(job.calls) == 1
    assert job(2) == 0, "its own attempts are made"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_whoever_stops_the_shell_too_is_obeyed(tmp_path, sent):
    job = Job(tmp_path, 75, 0)
    job.program.write_text(
        f"#!{sys.executable}\nimport os, signal, sys\n"
        "open('calls', 'a').write('x\\n')\n"
        f"signal.signal({int(sent)}, signal.SIG_IGN)\n"
        f"os.killpg(0, {int(sent)})\n"
        "sys.exit(75)\n"
    )
    process = subprocess.Popen(
        ["bash", "-c", job.command(1)],
        cwd=tmp_path,
        start_new_session=True,
        # A shell cannot trap what was ignored when it began, as SIGINT is where tests run in the background.
        preexec_fn=lambda: signal.signal(sent, signal.SIG_DFL),
    )
    assert process.wait(timeout=30) == 75
    assert job.calls == ["x"]


@pytest.mark.parametrize("name", ["{x}", "a b", "$HOME`x`", "it's", 'a"b', "ü#%20?&", "two\nlines"])
def test_the_checkout_may_lie_anywhere(tmp_path, name):
    checkout = tmp_path / name
    (checkout / "workflow").mkdir(parents=True)
    (checkout / "workflow/job.sh").write_bytes((PROJECT_DIR / "workflow/job.sh").read_bytes())
    program = checkout / "python"
    program.write_text('#!/bin/bash\nprintf %s "$PYTHONPATH"\n')
    program.chmod(0o755)
    command = plan.shell_prefix(str(program), checkout).format() + "recu plan"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, env=os.environ.copy())
    assert answer.stdout == str(checkout)


def test_with_a_limited_time_the_place_goes_to_others_first(tmp_path):
    job = Job(tmp_path, 75, "KILL", 0)
    assert job(end_time="$(job_end 60)") == 75 and len(job.calls) == 1
    assert job(2, end_time="$(job_end 60)") == 0, "killed is not told to stop"


def job_end(minutes: str, **environment: str) -> str:
    command = plan.shell_prefix("python", PROJECT_DIR).format() + f"job_end {minutes}"
    answer = subprocess.run(
        ["bash", "-c", command], env=outside_slurm() | environment, capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()


def test_when_a_job_ends(tmp_path):
    assert job_end("0") == "0"
    assert abs(int(job_end("90")) - time.time() - 5400) < 30
    assert job_end("90", SLURM_JOB_END_TIME="1234567890") == "1234567890"
    squeue = tmp_path / "squeue"
    squeue.write_text('#!/bin/bash\n[[ "$*" == *" 7 "* ]] && date -d @1234567890 "+$SLURM_TIME_FORMAT"\n')
    squeue.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert job_end("90", SLURM_JOB_ID="7", PATH=path) == "1234567890"
    assert abs(int(job_end("90", SLURM_JOB_ID="8", PATH=path)) - time.time() - 5400) < 30, "where Slurm cannot say"


def test_an_evaluation_ends_with_its_piece_of_time_and_waits_in_no_queue():
    """Of the shell line of rule evaluate: the end that `make run-gpu` sets, and none for a scheduler's job."""
    rule = (PROJECT_DIR / "workflow/rules/evaluate.smk").read_text()
    line = re.search(r'^ +"(end_time=.*; )"$', rule, re.MULTILINE)[1].format()
    assert "--end_time ${{end_time:-0}}" in rule

    def end(*, remote: bool, **environment: str) -> str:
        command = plan.shell_prefix("python", PROJECT_DIR, remote=remote).format() + line + "echo ${end_time:-0}"
        environment = outside_slurm() | environment
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert end(remote=False, SLURM_JOB_END_TIME="1234567890") == "1234567890" and end(remote=False) == "0"
    assert end(remote=True, SLURM_JOB_END_TIME="1234567890") == "0"


@pytest.mark.parametrize(
    ("shown", "requeued"),
    [
        ("JobId=7 JobState=RUNNING Reason=None PreemptTime=None", True),
        ("JobId=7 JobState=COMPLETING Reason=None PreemptTime=2026-11-26T04:39:14", True),
        ("JobId=7 JobState=COMPLETING Reason=None PreemptTime=None", False),  # scancel
        ("JobId=7 JobState=COMPLETING Restarts=1", False),  # is requeued already
    ],
)
def test_a_slurm_job_that_was_not_cancelled_goes_back_to_the_queue(tmp_path, shown, requeued):
    """What Slurm 22.05 shows of a job that got SIGTERM."""
    job = Job(tmp_path, 75)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        f'#!/bin/bash\n[[ $1 == requeue ]] && {{ echo "$2" > requeued; kill -9 $PPID; }}\necho "{shown} "\n'
    )
    scontrol.chmod(0o755)
    code = job(end_time="1", SLURM_JOB_ID="7", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert code == (-signal.SIGKILL if requeued else 75)
    assert (tmp_path / "requeued").exists() == requeued
