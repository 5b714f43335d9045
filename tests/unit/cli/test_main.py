"""The command line as a whole: start-up, errors and exit codes."""

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recu.base import errors
from recu.cli import main as module
from recu.cli.main import commands, help_of, main
from recu.experiment.paths import PROJECT_DIR

WATCH_IMPORTS = "import sys; from recu.cli.main import main; main(['--help']); print(sorted(sys.modules))"


def test_help_names_every_command_and_imports_nothing_heavy():
    answer = subprocess.run([sys.executable, "-c", WATCH_IMPORTS], capture_output=True, text=True, check=True)
    for command in commands():
        assert f"  {command:<10}{help_of(command)}\n" in answer.stdout and help_of(command)
    for heavy in ("torch", "mlflow", "numpy", "pydantic"):
        assert f"'{heavy}'" not in answer.stdout


def test_the_end_of_a_command_looks_through_nothing_for_garbage():
    # Functions registered before run after: by then all objects are out of the collector's sight.
    code = (
        "import atexit, gc, sys; from recu.cli.main import main;"
        "atexit.register(lambda: print('frozen', gc.get_freeze_count() > 0)); main(sys.argv[1:])"
    )
    answer = subprocess.run([sys.executable, "-c", code, "plan", "--help"], capture_output=True, text=True, check=False)
    assert answer.stdout.splitlines()[-1] == "frozen True"


def test_help_takes_less_than_a_third_of_a_second():
    def seconds():
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "recu", "--help"], capture_output=True, check=True)
        return time.perf_counter() - started

    assert min(seconds() for _ in range(5)) < 0.3


@pytest.mark.parametrize("command", ["prepare", "train", "evaluate"])
def test_help_of_a_command_imports_no_torch(command):
    code = f"import sys; from recu.cli.main import main\ntry: main(['{command}', '--help'])\nexcept SystemExit: pass\n"
    answer = subprocess.run(
        [sys.executable, "-c", code + "assert 'torch' not in sys.modules"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert f"usage: recu {command}" in answer.stdout


def test_unknown_command_proposes_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert "error: unknown command 'trian'; did you mean 'train'?" in capsys.readouterr().err


def test_a_wrong_option_is_one_line(capsys):
    assert main(["train", "--epochs", "many"]) == 2
    assert capsys.readouterr().err == (
        "error: recu train: argument --epochs: invalid int value: 'many' (see recu train --help)\n"
    )
    assert main(["train", "--epoch", "3"]) == 2
    assert "unknown option --epoch; did you mean --epochs?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("a\n b"), 2),
        (errors.DivergenceError("loss"), 3),
        (errors.Interrupted("signal"), 75),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 0),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code):
    def fail(command, words):
        raise error

    monkeypatch.setattr(module, "_run", fail)
    monkeypatch.setattr(module, "_close_output", lambda: None)
    assert main(["train"]) == code
    if code not in (0, 130):
        assert capsys.readouterr().err == f"error: {' '.join(str(error).split())}\n"


def test_an_unexpected_exception_keeps_its_traceback_but_no_password(monkeypatch, capsys):
    def fail(command, words):
        raise ZeroDivisionError("at http://alice:pa55word@host")

    monkeypatch.setattr(module, "_run", fail)
    assert main(["train"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and "ZeroDivisionError: at http://***@host" in shown


def test_an_error_of_the_system_that_nobody_foresaw_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    assert main(["train", "--dataset", "digits", "--model", "resnet20_1w1a", "--save", "a" * 300]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot use ") and "File name too long" in line


@pytest.mark.parametrize("command", ["--version", "--help", "train --help", "plan"])
@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs a device that is always full")
def test_output_on_a_full_disk_is_one_line(command):
    words = f"{sys.executable} -m recu {command} > /dev/full"
    answer = subprocess.run(["bash", "-c", words], cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert line.startswith("error: cannot use standard output, ") and "No space left" in line


@pytest.mark.parametrize(("closing", "code"), [(">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0)])
def test_closed_streams_end_nothing(closing, code):
    words = f"{sys.executable} -m recu plan demo {closing}"
    answer = subprocess.run(["bash", "-c", words], cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (code, "")


def test_a_closed_pipe_is_quiet():
    command = f"{sys.executable} -m recu --help | true; exit ${{PIPESTATUS[0]}}"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_a_name_that_no_terminal_takes_is_printed_with_escapes(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    module._open_closed_streams()
    print("caf\udce9 \xe9", file=stream, flush=True)
    assert stream.buffer.getvalue() == b"caf\\udce9 \\xe9\n"
