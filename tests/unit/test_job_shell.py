"""workflow/job.sh: which ends of a job are worth another attempt."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recu.experiment import plan
from recu.experiment.paths import PROJECT_DIR


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

    def command(self, attempt: int) -> str:
        prefix = plan.shell_prefix(str(self.program), PROJECT_DIR).format()
        log = shlex.quote(str(self.log))
        return f"{prefix}job {attempt} {log} train --x 'a b' > {log} 2>&1"

    def __call__(self, attempt: int = 1) -> int:
        return subprocess.run(["bash", "-c", self.command(attempt)], cwd=self.folder, check=False).returncode

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
