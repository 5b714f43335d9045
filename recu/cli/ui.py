"""`recu ui`: show the MLflow UI of this project's store, on this machine only, at a suite's trainings."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys

from recu.base.addresses import SERVER, sqlite_file
from recu.base.errors import ConfigError, RecuError, unknown_name
from recu.cli import options
from recu.experiment import params
from recu.tracking import resolve_tracking_uri
from recu.tracking.view import address_of

_OPENER = """
import socket, sys, time, webbrowser
page, host, port = sys.argv[1:]
until = time.monotonic() + 60
while time.monotonic() < until:
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        time.sleep(0.5)
    else:
        webbrowser.open(page)
        break
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "suite", nargs="?", help="whose trainings are shown first (default: the first one of params/config.yaml)"
    )
    options.add_params_option(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; the default admits this machine only"
    )
    parser.add_argument("--port", type=int, default=5000, help="default: %(default)s")
    parser.add_argument(
        "--browser",
        action=argparse.BooleanOptionalAction,
        default=sys.stdout.isatty() and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")),
        help="open the page in a browser once the server answers (default: where there are a terminal and a screen)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Replace this process by MLflow's server.

    Raises:
        RecuError: the store is a server of its own, which has its own UI; or a SQLite store that cannot be opened.
    """
    config = params.load_config(arguments.params_dir)
    suite = arguments.suite or params.suite_names(config)[0]
    uri = resolve_tracking_uri(config.tracking_uri)
    if uri is None:
        raise RecuError("no MLflow store is configured: set tracking_uri in params/config.yaml")
    if uri.startswith(SERVER):
        raise RecuError("the tracking store is an MLflow server, which has its own UI: open its address in a browser")
    file = sqlite_file(uri)
    _check_free(arguments.host, arguments.port)
    server = f"http://{_in_address(arguments.host)}:{arguments.port}"
    numbers = _experiments(uri) if file is None or file.exists() else {}
    if suite not in numbers and arguments.suite is not None:
        raise unknown_name("MLflow experiment (there is one of each suite that was run)", suite, numbers)
    page = address_of(server, numbers[suite]) if suite in numbers else server
    if file is not None and file.exists():
        from recu.tracking.store import note_sizes

        note_sizes(file)
    # The job runner serves MLflow's generative features and costs 700 MB.
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # No option: every user of the machine can read a command line, and a database's address holds a password.
        "MLFLOW_BACKEND_STORE_URI": uri,
    }
    command = [sys.executable, "-m", "mlflow", "ui", "--host", arguments.host, "--port", str(arguments.port)]
    # One process serves one person; MLflow's own four take 1.3 GB.
    command += ["--workers", "1"]
    if suite not in numbers:
        print(f"note: suite {suite} was not run yet; `recu ui SUITE` opens another: {', '.join(numbers) or 'none yet'}")
    print(f"MLflow UI (Ctrl-C ends it), answers in some seconds: {page}", flush=True)
    if arguments.browser:
        _open_once_served(page, arguments.host, arguments.port)
    os.execve(sys.executable, command, environment)


def _experiments(uri: str) -> dict[str, str]:
    """The ids of a store's experiments, by name.

    Raises:
        RecuError: in one line, where the server would show a traceback or nothing.
    """
    from recu.tracking.client import connect
    from recu.tracking.store import prepare_store

    prepare_store(uri, [])  # artifacts are found after a move
    return {found.name: found.experiment_id for found in connect(uri).search_experiments() if found.name != "Default"}


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _open_once_served(page: str, host: str, port: int) -> None:
    """Let a process of its own, which outlives this one, wait for the server and open the page."""
    subprocess.Popen([sys.executable, "-c", _OPENER, page, host, str(port)], stderr=subprocess.DEVNULL)


def _check_free(host: str, port: int) -> None:
    """Raise ConfigError where nothing can listen there, in place of the server's traceback a few seconds later."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {host}, port {port}: {reason}; choose another --host or --port") from error
