"""Jobs as forks of one process that has imported everything, so that many small ones need not import it each.

`start` makes that process, `serve` is what it does, and this file as a program is what a job's shell runs: it asks for
a fork, hands it words, folder, environment and standard streams, passes on signals, and ends as the fork does. Where
nobody answers, or where a fork would not be what a new process is, it becomes that new process.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.context import ForkProcess
    from pathlib import Path

ADDRESS = "RECU_PRELOADED"
"""Variable with the path of the socket; a process that has it was forked."""
_THREADS = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""Variables that Snakemake sets for each job; libraries read them while they are imported."""
_FREE = {"PWD", "OLDPWD", "SHLVL", "_", "TMPDIR", "TMP", "TEMP", "TEMPDIR", "GOMP_SPINCOUNT"}
"""Variables that nothing reads while it is imported, and one that the program sets."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_BEGINS, _ENDED = b"begins", b"ended"
"""Before the process id of the fork, which says that it has become the job, and before the exit code of a fork."""
_MOST_WAITING = 128
_POLL_MS = 500


def start(python: str, checkout: "Path", threads: int) -> "subprocess.Popen[bytes]":
    """Start the process for the jobs that this one's children will be, and end it with this one.

    Args:
        python: the interpreter of the jobs.
        checkout: where the package is.
        threads: of a job; one with another number becomes a process of its own.

    Raises:
        OSError: there can be no socket, or no process.
    """
    import subprocess
    import tempfile
    from pathlib import Path

    file = Path(tempfile.mkdtemp(prefix="recu-preloaded-"), "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(file))
            listener.listen(_MOST_WAITING)
            # In a session of its own no signal meant for the jobs reaches it.
            process = subprocess.Popen(
                [python, "-m", "recu", "preload", str(listener.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                start_new_session=True,
                env=os.environ
                | dict.fromkeys(_THREADS, str(threads))
                | {"PYTHONPATH": str(checkout), ADDRESS: str(file)},
            )
        except OSError:
            _remove(str(file))
            raise
    os.environ[ADDRESS] = str(file)
    return process


def serve(
    listener: socket.socket,
    parent: int,
    code: "Callable[[], str]",
    load: "Callable[[], None]",
    run: "Callable[[list[str]], int]",
) -> None:
    """Fork a process for each job that is asked for, until the one that started this ends, and the jobs have.

    Args:
        listener: where jobs ask.
        parent: process id of the one that started this.
        code: hash of the code that is imported; once it is another one, jobs are told to import it themselves.
        load: imports it.
        run: takes a job's words and returns its exit code.
    """
    import multiprocessing
    import select

    imported = _fixed(os.environ), code()
    poll, jobs = select.poll(), dict[int, tuple[socket.socket, "ForkProcess"]]()
    poll.register(listener, select.POLLIN)
    try:
        load()
        while jobs or os.getppid() == parent:
            for number, _ in poll.poll(_POLL_MS):
                if number == listener.fileno():
                    connection, _ = listener.accept()
                    inherited = [listener, *(other for other, _ in jobs.values())]
                    process = multiprocessing.get_context("fork").Process(
                        target=_job, args=(connection, inherited, imported, code, run)
                    )
                    try:
                        process.start()
                    except OSError:  # no memory, or too many processes
                        connection.close()
                        continue
                    poll.register(connection, 0)  # for its end alone: the fork reads it
                    poll.register(process.sentinel, select.POLLIN)
                    jobs[connection.fileno()] = connection, process
                elif number in jobs:  # who asked is gone, so the job shall save its state
                    poll.unregister(number)
                    jobs[number][1].terminate()
            for number, (connection, process) in list(jobs.items()):
                if process.exitcode is not None:
                    with suppress(OSError):
                        connection.sendall(b"%s %d\n" % (_ENDED, process.exitcode))
                    with suppress(KeyError):
                        poll.unregister(number)
                    poll.unregister(process.sentinel)
                    process.close()
                    connection.close()
                    del jobs[number]
    finally:
        _remove(os.environ.get(ADDRESS, ""))


def _job(
    connection: socket.socket,
    inherited: "Sequence[socket.socket]",
    imported: tuple["Mapping[str, str]", str],
    code: "Callable[[], str]",
    run: "Callable[[list[str]], int]",
) -> None:
    """The fork: becomes the job that is asked for."""
    for other in inherited:
        other.close()
    message, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while message and not message.endswith(b"\n"):
        message += (more := connection.recv(1 << 16))
        if not more:
            return
    if not message:
        return
    words, folder, environment = json.loads(message)
    try:
        os.chdir(folder)
        same = (_fixed(environment), code()) == imported
    except OSError:  # the folder is gone, or just now a file of the code
        same = False
    if not same:
        connection.sendall(b"\n")
        return
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Anew, since what they lead to may be of another kind: a file, a pipe, a terminal.
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    connection.sendall(b"%s %d\n" % (_BEGINS, os.getpid()))
    connection.close()
    sys.exit(run(words))


def _fixed(environment: "Mapping[str, str]") -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _FREE}


def _remove(socket_file: str) -> None:
    with suppress(OSError):
        os.unlink(socket_file)  # noqa: PTH108
    with suppress(OSError):
        os.rmdir(os.path.dirname(socket_file))  # noqa: PTH106, PTH120


def _main(words: list[str]) -> int:
    """The program of a job's shell: `recu WORDS`, by a fork."""
    waiting = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answers:
        begins, job = b"", b""
        with suppress(OSError):
            connection.connect(os.environ[ADDRESS])
            message = json.dumps([words, os.getcwd(), dict(os.environ)]).encode() + b"\n"  # noqa: PTH109
            sent = socket.send_fds(connection, [message], [0, 1, 2])
            connection.sendall(message[sent:])
            begins, _, job = answers.readline().partition(b" ")
        if begins != _BEGINS:
            signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
            os.environ.pop(ADDRESS, None)
            os.execv(sys.executable, [sys.executable, "-m", "recu", *words])

        def pass_on(number: int, _frame: object) -> None:
            with suppress(ProcessLookupError):
                os.kill(int(job), number)

        for number in _SIGNALS:
            signal.signal(number, pass_on)
        signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
        code = int(answers.readline().partition(b" ")[2] or -signal.SIGKILL)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
