"""A job that is a fork is what a new process would be: words, folder, environment, streams, signals, exit codes."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recu.base import preloaded

pytestmark = pytest.mark.processes

SERVER = """
import os, signal, socket, sys, time
from pathlib import Path
from recu.base import preloaded

def load():
    os.environ["LOADED"] = "while it was imported"

def run(words):
    word, *rest = words
    if word == "say":
        print(os.getcwd(), os.environ.get("SAID"), "LOADED" in os.environ, *rest)
        print("aside", file=sys.stderr)
        return 0
    if word == "end":
        return int(rest[0])
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGTERM, lambda *_: (Path("stopped").touch(), os._exit(75)))
    Path("waits").touch()
    time.sleep(60)

preloaded._POLL_MS = 600_000  # nothing waits for that time to pass
preloaded.serve(socket.socket(fileno=int(sys.argv[1])), os.getppid(), Path(sys.argv[2]).read_text, load, run)
"""


@pytest.fixture
def source(tmp_path):
    """A file that stands for the code."""
    file = tmp_path / "source"
    file.write_text("x = 1")
    return file


@pytest.fixture
def environment(tmp_path, source):
    """Of jobs; the server runs as long as the test."""
    address = tmp_path / "s" / "socket"
    address.parent.mkdir()
    environment = os.environ | {preloaded.ADDRESS: str(address), "SAID": "first"}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(listener.fileno()), str(source)],
            pass_fds=[listener.fileno()],
            env=environment,
        )
    yield environment
    server.kill()
    server.wait()


def command(*words: str) -> list[str]:
    return [sys.executable, "-I", "-S", preloaded.__file__, *words]


def until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_words_folder_environment_and_streams_are_the_jobs(environment, tmp_path):
    # TMPDIR is read when it is needed, and may be another one.
    given = environment | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        command("say", "a b", "c"), cwd=tmp_path, env=given, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path} first False a b c\n", "aside\n")


@pytest.mark.parametrize(
    ("words", "code"), [(("end", "0"), 0), (("end", "3"), 3), (("end", "75"), 75), (("die",), 137)]
)
def test_it_ends_as_the_job_ends(environment, words, code):
    assert subprocess.run(command(*words), env=environment, check=False).returncode == code


def test_a_signal_reaches_the_job(environment, tmp_path):
    with subprocess.Popen(command("wait"), cwd=tmp_path, env=environment) as asking:
        until((tmp_path / "waits").exists)
        asking.send_signal(signal.SIGTERM)
        assert asking.wait() == 75 and (tmp_path / "stopped").exists()


def test_a_job_whose_shell_is_killed_is_asked_to_save_its_state(environment, tmp_path):
    with subprocess.Popen(command("wait"), cwd=tmp_path, env=environment) as asking:
        until((tmp_path / "waits").exists)
        asking.kill()
    until((tmp_path / "stopped").exists)


def version(environment) -> str:
    """What a new process of the program says, which the test's server would not."""
    given = environment | {"PYTHONPATH": str(Path(preloaded.__file__).parents[2])}
    return subprocess.run(command("--version"), env=given, capture_output=True, text=True, check=True).stdout


def test_where_nobody_answers_a_new_process_does_it(environment):
    assert version(environment | {preloaded.ADDRESS: "/nowhere/socket"}).startswith("recu ")


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "SAID"])
def test_with_another_environment_a_new_process_does_it(environment, name):
    assert version(environment | {name: "7"}).startswith("recu ")


def test_once_the_code_has_changed_a_new_process_does_it(environment, source):
    subprocess.run(command("end", "0"), env=environment, check=True)
    status = source.stat()
    source.write_text("x = 2")
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert version(environment).startswith("recu ")


def test_a_fork_that_cannot_become_the_job_is_taken_for_no_job(environment, source, tmp_path):
    """Its exit code was once taken for the process to which signals are passed on: 1, as the system's first."""
    subprocess.run(command("end", "0"), env=environment, check=True)
    source.unlink()
    assert version(environment).startswith("recu ")
    source.write_text("x = 1")
    gone = tmp_path / "gone"
    gone.mkdir()
    words = [*command("--version")]
    shell = 'rmdir "$PWD" && exec "$@"'
    given = environment | {"PYTHONPATH": str(Path(preloaded.__file__).parents[2])}
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *words], cwd=gone, env=given, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("recu ")


def test_it_ends_with_the_process_that_started_it(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from recu.base.preloaded import ADDRESS, start;"
        "start(sys.executable, Path(sys.argv[1]), 1); print(os.environ[ADDRESS], flush=True); time.sleep(60)"
    )
    starting = [sys.executable, "-c", code, str(Path(preloaded.__file__).parents[2])]
    with subprocess.Popen(starting, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as starter:
        file = Path(starter.stdout.readline().strip())
        assert file.is_socket() and file.parent.stat().st_mode & 0o777 == 0o700
        starter.kill()
    until(lambda: not file.parent.exists())
