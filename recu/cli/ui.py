"""`recu ui`: the MLflow UI on this project's store, on this machine only."""

from __future__ import annotations

import argparse
import os
import socket
import sys

from recu.base.addresses import SERVER, sqlite_file
from recu.base.errors import ConfigError, RecuError
from recu.cli import options
from recu.experiment import params
from recu.tracking import resolve_tracking_uri


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    options.add_params_option(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; the default admits this machine only"
    )
    parser.add_argument("--port", type=int, default=5000, help="default: %(default)s")


def run(arguments: argparse.Namespace) -> None:
    """Replace this process by MLflow's server.

    Raises:
        RecuError: the store is a server of its own, which has its own UI; or a SQLite store that cannot be opened.
    """
    uri = resolve_tracking_uri(params.load_config(arguments.params_dir).tracking_uri)
    if uri is None:
        raise RecuError("no MLflow store is configured: set tracking_uri in params/config.yaml")
    if uri.startswith(SERVER):
        raise RecuError("the tracking store is an MLflow server, which has its own UI: open its address in a browser")
    file = sqlite_file(uri)
    _check_free(arguments.host, arguments.port)
    if file is not None and file.exists():
        # In one line, where the server would show a traceback or nothing; and artifacts are found after a move.
        from recu.tracking.store import note_sizes, prepare_store

        prepare_store(uri, [])
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
    print(f"MLflow UI: http://{arguments.host}:{arguments.port} (Ctrl-C ends it)", flush=True)
    os.execve(sys.executable, command, environment)


def _check_free(host: str, port: int) -> None:
    """Raise ConfigError where nothing can listen there, in place of the server's traceback a few seconds later."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {host}, port {port}: {reason}; choose another --host or --port") from error
