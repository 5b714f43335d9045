"""`recu sync`: send to the MLflow store what it could not take while jobs ran."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from recu.base.errors import ConfigError, OutputError, ResultError
from recu.base.redaction import redact
from recu.base.text import visible
from recu.cli import options
from recu.experiment import params
from recu.experiment.paths import config_file, user_path

if TYPE_CHECKING:
    from recu.tracking.sync import Replay


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "--runs_dir", type=user_path, help="where jobs keep their state (default: that of params/config.yaml)"
    )
    parser.add_argument(
        "--results_dir", type=user_path, help="where results are published (default: that of params/config.yaml)"
    )
    parser.add_argument("--tracking_uri", help="MLflow store (default: that of params/config.yaml)")
    options.add_params_option(parser)


def run(arguments: argparse.Namespace) -> None:
    """Send every outbox and say what became of each.

    Raises:
        OutputError: something could not be sent and is still kept.
    """
    from recu.tracking import resolve_tracking_uri
    from recu.tracking.outbox import find_outboxes
    from recu.tracking.sync import parents_first, replay

    config = params.load_config(config_file(arguments.params_dir))
    address = resolve_tracking_uri(arguments.tracking_uri or config.tracking_uri)
    if address is None:
        raise ConfigError("no MLflow store is configured: give --tracking_uri")
    runs_dir = arguments.runs_dir or Path(config.runs_dir)
    results_dirs = [arguments.results_dir or Path(config.results_dir)]
    if arguments.results_dir is None:
        # Of another project's runs, or a copy's.
        results_dirs.append(runs_dir.parent / config.results_dir)
    outboxes = parents_first(find_outboxes(runs_dir))
    left = 0
    for outbox in outboxes:
        try:
            result = replay(outbox, address, results_dirs)
        except ResultError as error:
            left += 1
            print(visible(redact(str(error))))
        else:
            left += result.rejected + result.kept
            print(visible(redact(f"{outbox}: {_described(result)}")))
    if not outboxes:
        print(f"nothing to send in {runs_dir}")
    if left:
        raise OutputError(
            f"{left} records were not sent, see above: what can never be sent is kept beside the outboxes"
            " in *.rejected, the rest in the outboxes"
        )


def _described(result: Replay) -> str:
    if result.busy:
        return "busy: a job is writing it"
    parts = [f"{result.sent} sent", f"{result.rejected} refused"]
    if result.kept:
        parts.append(f"{result.kept} kept")
    return ", ".join(parts) + (f" ({result.reason})" if result.reason else "")
