"""`recu store`: create the MLflow store and its experiments once, before jobs log to it side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from recu.paths import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "--tracking_uri", required=True, help="MLflow store; MLFLOW_TRACKING_URI in the environment wins"
    )
    parser.add_argument("--suites", nargs="+", required=True, help="one MLflow experiment is created for each")
    parser.add_argument(
        "--artifacts", type=user_path, default=Path("mlartifacts"), help="folder of a local store's artifacts"
    )


def run(arguments: argparse.Namespace) -> None:
    """Create what is missing; existing experiments stay as they are."""
    from recu.tracking import resolve_tracking_uri
    from recu.tracking.store import prepare_store

    address = resolve_tracking_uri(arguments.tracking_uri)
    if address is not None:
        prepare_store(address, arguments.suites, arguments.artifacts)
