"""`recu sync`: send to the MLflow store what it could not take while jobs ran."""

from __future__ import annotations

import argparse
from pathlib import Path

from recu import params
from recu.errors import ConfigError, OutputError
from recu.paths import PARAMS_DIR, config_file, user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "--runs_dir", type=user_path, help="where jobs keep their state (default: that of params/config.yaml)"
    )
    parser.add_argument("--tracking_uri", help="MLflow store (default: that of params/config.yaml)")
    parser.add_argument("--params_dir", type=user_path, default=PARAMS_DIR, help="where config.yaml is")


def run(arguments: argparse.Namespace) -> None:
    """Send every outbox and say what became of each.

    Raises:
        OutputError: something could not be sent and is still kept.
    """
    from recu.tracking import resolve_tracking_uri
    from recu.tracking.outbox import find_outboxes
    from recu.tracking.sync import replay

    config = params.load_config(config_file(arguments.params_dir))
    address = resolve_tracking_uri(arguments.tracking_uri or config.tracking_uri)
    if address is None:
        raise ConfigError("no MLflow store is configured: give --tracking_uri")
    runs_dir = arguments.runs_dir or Path(config.runs_dir)
    results = [replay(box, address) for box in find_outboxes(runs_dir)]
    for result in results:
        state = "busy: a job is writing it" if result.busy else f"{result.sent} sent, {result.rejected} refused"
        print(f"{result.outbox}: {state}")
    if not results:
        print(f"nothing to send in {runs_dir}")
    rejected = sum(result.rejected for result in results)
    if rejected:
        raise OutputError(f"{rejected} records were refused by the store; they are kept beside the outboxes")
