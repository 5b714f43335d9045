"""`recu preload`: hold in memory what the jobs of a workflow with `preload: true` import, which are forks of it."""

from __future__ import annotations

import argparse
import gc
import logging
import socket

from recu.base.imports import without_collection
from recu.base.preloaded import serve
from recu.cli.main import main
from recu.experiment.schema import Model
from recu.results.provenance import code_at_start, code_now, environment_hash, package_versions


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
        import recu.cli.evaluate
        import recu.cli.train
        import recu.data.load.memory
        import recu.experiment.plan
        import recu.stages.evaluate
        import recu.stages.packed
        import recu.stages.train
        import recu.tracking.run
        import recu.training.checkpoint_identity
        import recu.training.evaluation
        import recu.training.trainer  # noqa: F401
        from recu.tracking.rehearsal import rehearse

        rehearse()
        _rehearse_training()
    # Once for all.
    environment_hash()
    package_versions()
    _make_validators(Model)
    # What is here to stay is not looked at again, and so not copied into each fork.
    gc.freeze()


def _make_validators(kind: type[Model]) -> None:
    kind.model_rebuild()
    for each in kind.__subclasses__():
        _make_validators(each)


def _rehearse_training() -> None:
    """Train and evaluate a small network, so that what this loads, compiled loops above all, is there for each fork.

    By one thread, since a fork has none of the others; and not beside a GPU, for which PyTorch starts threads.
    """
    import torch

    from recu.experiment.binarisers import USUAL
    from recu.models.checks import check_binariser

    if torch.cuda.device_count():
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    check_binariser(USUAL)
    torch.set_num_threads(threads)


def _run(words: list[str]) -> int:
    # Messages of the process that forked are shown where that was started.
    logging.getLogger("recu").handlers.clear()
    return main(words)
