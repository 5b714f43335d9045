"""`recu preload`: hold in memory what the jobs of a workflow with `preload: true` import, which are forks of it."""

from __future__ import annotations

import argparse
import gc
import logging
import socket

from recu.base.imports import without_collection
from recu.base.preloaded import serve
from recu.cli.main import main
from recu.results.provenance import code_at_start, code_now


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument("socket", type=int, help="number of the open socket that jobs ask at")
    parser.add_argument("parent", type=int, help="process id of the workflow, with which this ends")


def run(arguments: argparse.Namespace) -> None:
    """Import what trainings and evaluations use, and serve."""
    code_at_start()
    serve(socket.socket(fileno=arguments.socket), arguments.parent, code_now, _load, _run)


def _load() -> None:
    with without_collection():
        import recu.stages.evaluate
        import recu.stages.train
        import recu.training.evaluation
        import recu.training.trainer  # noqa: F401
        from recu.results.provenance import environment_hash
        from recu.tracking.client import import_mlflow

        import_mlflow("sqlite:")
    environment_hash()  # once for all
    # What is here to stay is not looked at again, and so not copied into each fork.
    gc.freeze()


def _run(words: list[str]) -> int:
    # Messages of the process that forked are shown where that was started.
    logging.getLogger("recu").handlers.clear()
    return main(words)
